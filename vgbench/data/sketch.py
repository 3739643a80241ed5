"""Pictures of what expressions name, offered by datasets that know their words (:meth:`GroundingData.sketcher`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sketcher:
    """Who can draw what an expression names.

    Attributes:
        title: whose words are known, for messages: the title of a dataset.
        sources: the values of the column ``source`` of tables with these words.
        draw: (expression, side in pixels, seed) -> uint8 RGB [side, side, 3]; equal arguments make equal pictures.
    """

    title: str
    sources: frozenset[str]
    draw: Callable[[str, int, int], np.ndarray]
