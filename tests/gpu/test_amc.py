"""AMC on a card."""

from __future__ import annotations

from tests.gpu.checks import MARKS, OnTheCard

pytestmark = MARKS


class TestAMC(OnTheCard):
    method = "amc"
    draws_on_the_device = True
