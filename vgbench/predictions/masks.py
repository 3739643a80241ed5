"""Masks in other people's files: COCO RLE in its forms, and polygons."""

from __future__ import annotations

import ast
import re
from typing import Any

import numpy as np

from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.predictions.fields import number, shown, structure

_ENCODE = "encode it with pycocotools.mask.encode, or give polygons"


def box_around(mask: rle.RLE | None) -> list[float] | None:
    """x1, y1, x2, y2 around a mask; None: it is empty."""
    x, y, width, height = (float(v) for v in rle.coco.toBbox(mask))
    return [x, y, x + width, y + height] if width > 0 and height > 0 else None


def segmentation(value: Any, place: str, size: tuple[int, int]) -> rle.RLE | None:
    """A mask: compressed or uncompressed RLE, polygons in pixels of the image, or a list of RLEs, which are joined.

    Args:
        value: as the file has it, also as text (a cell of a table).
        place: where it stands, for messages.
        size: (width, height) of the image.

    Raises:
        UserError: if it is none of these, or the mask of another size than the image.
    """
    value = structure(value)
    if value in (None, "", [], [[]]):
        return None
    width, height = size
    if not isinstance(value, list):
        return _run_lengths(value, place, size)
    if all(isinstance(part, dict) for part in value):
        return rle.union([_run_lengths(part, place, size) for part in value])
    polygons = value if isinstance(value[0], list) else [value]
    corners = [[number(v) for v in polygon] if isinstance(polygon, list) else [] for polygon in polygons]
    if all(len(polygon) >= 6 and len(polygon) % 2 == 0 and None not in polygon for polygon in corners):
        return _as_text(rle.coco.merge(rle.coco.frPyObjects(corners, height, width)))
    raise UserError(f"{place}: segmentation is no polygon; give lists of x1, y1, x2, y2, x3, y3, ...")


def _run_lengths(value: Any, place: str, size: tuple[int, int]) -> rle.RLE:
    sides, counts = (value.get("size"), value.get("counts")) if isinstance(value, dict) else (None, None)
    sides = structure(sides)
    if isinstance(counts, str) and "," in counts:  # no sign of the compressed form
        counts = structure(counts)
    if not (isinstance(sides, list) and len(sides) == 2 and all(_is_side(side) for side in sides)):
        raise UserError(f"{place}: segmentation is {shown(value)}, no COCO RLE; {_ENCODE}")
    height, width = (int(number(side) or 0) for side in sides)
    if (width, height) != size:
        raise UserError(
            f"{place}: segmentation is {height} x {width}, the image is {size[1]} x {size[0]} (height x width); resize "
            "the mask to the image"
        )
    if isinstance(counts, list):
        if all(isinstance(run, int) and run >= 0 for run in counts) and sum(counts) == height * width:
            return _as_text(rle.coco.frPyObjects({"size": [height, width], "counts": counts}, height, width))
        raise UserError(f"{place}: segmentation: the runs do not add up to {height} x {width} pixels; correct them")
    text = counts.decode("ascii", "replace") if isinstance(counts, bytes) else counts
    text = _without_bytes_marks(text) if isinstance(text, str) else ""
    if rle.valid([text], np.array([height * width]))[0]:
        return {"size": [height, width], "counts": text}
    raise UserError(f"{place}: segmentation is no compressed COCO RLE; {_ENCODE}")


def _is_side(value: Any) -> bool:
    side = number(value)
    return side is not None and 0 < side < 1e9 and side == int(side)


def _as_text(mask: rle.RLE) -> rle.RLE:
    return {"size": [int(side) for side in mask["size"]], "counts": mask["counts"].decode("ascii")}


def _without_bytes_marks(counts: str) -> str:
    """``b'...'``, as ``str(bytes)`` writes it, as the text it stands for."""
    if re.fullmatch(r"b'.*'|b\".*\"", counts, re.S):
        try:
            return bytes(ast.literal_eval(counts)).decode("ascii")
        except (ValueError, SyntaxError, UnicodeDecodeError):
            return counts
    return counts
