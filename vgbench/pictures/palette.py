"""Colours of pictures."""

from __future__ import annotations

TRUTH = (0, 114, 178)
PREDICTED = ((230, 159, 0), (204, 121, 167), (240, 228, 66), (213, 94, 0))
INK, PAPER, MUTED = (20, 20, 20), (255, 255, 255), (90, 90, 90)


def pick_colours(count: int) -> list[tuple[int, int, int]]:
    return [PREDICTED[place % len(PREDICTED)] for place in range(count)]
