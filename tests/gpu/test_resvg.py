"""ResVG on a card."""

from __future__ import annotations

from tests.gpu.checks import MARKS, OnTheCard

pytestmark = MARKS


class TestResVG(OnTheCard):
    method = "resvg"
