"""Masks in the frames in which they are compared: the image, the letter-boxed canvas, a stretched canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vgbench.core.errors import UserError
from vgbench.data import rle

if TYPE_CHECKING:
    from vgbench.types import Geometry


Array = np.ndarray


def decode(mask: rle.RLE | None, size: tuple[int, int]) -> Array:
    """A COCO RLE (None: empty) as a mask [H, W] of ``size``."""
    if mask is None:
        return np.zeros(size, dtype=bool)
    if tuple(mask["size"]) != tuple(size):
        raise UserError(f"a predicted mask is {mask['size']}, its frame {list(size)} (height, width); mend canvas_mask")
    return rle.decode(mask)


def to_canvas(mask: Array, frame: Geometry) -> Array:
    """Original binary mask -> network frame; a pixel takes the source pixel floor(position / scale), padding is 0."""
    canvas = np.zeros(frame.canvas, dtype=bool)
    indices = []
    for axis in (1, 0):  # rows use the y scale
        source, target = mask.shape[1 - axis], frame.canvas[1 - axis]
        # Back to whole pixels first: dividing by the float scale could fall just below an exact index.
        length, start = round(source * frame.scale[axis]), round(frame.offset[axis])
        place = np.arange(target) - start
        inside = (place >= 0) & (place < length)
        indices.append((np.flatnonzero(inside), place[inside] * source // length))
    (rows, from_rows), (columns, from_columns) = indices
    canvas[np.ix_(rows, columns)] = mask[np.ix_(from_rows, from_columns)]
    return canvas


def stretch(mask: Array, height: int, width: int) -> Array:
    """Nearest pixel centre, as Pillow resizes label images."""
    rows = ((2 * np.arange(height) + 1) * mask.shape[0]) // (2 * height)
    columns = ((2 * np.arange(width) + 1) * mask.shape[1]) // (2 * width)
    return mask[np.ix_(rows, columns)]
