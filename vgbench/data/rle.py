"""COCO run-length masks: pixel counts of many pairs without decoding them, and a check before C code trusts a string.

A mask is a sequence of run lengths, background first, over the pixels in column-major order; each length is written in
digits of five bits (bit 5 of a character: more digits follow), from the fourth on as difference to the one two before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco

Array = np.ndarray
RLE = dict[str, Any]

_STRING = re.compile(r"[0-o]*[0-O]")  # ends with a whole number; pycocotools would read on behind the string
_CHUNK = 64  # strings parsed at once: their digits stay in the cache


def valid(counts: Sequence[str], pixels: Array) -> Array:
    """bool [n]: is each string a compressed RLE that covers exactly ``pixels[i]`` (height times width) pixels?"""
    good = np.array([_STRING.fullmatch(text) is not None for text in counts], dtype=bool)
    for start in range(0, len(counts), _CHUNK):
        part = np.flatnonzero(good[start : start + _CHUNK]) + start
        if len(part):
            runs, first = _runs([counts[index] for index in part.tolist()])
            whole = np.minimum.reduceat(runs, first) >= 0
            good[part] = whole & (np.add.reduceat(runs, first) == np.asarray(pixels)[part])
    return good


def _runs(counts: Sequence[str]) -> tuple[Array, Array]:
    """Run lengths of all (well-formed) strings in one row, int64, and where in it those of each string begin."""
    data = np.frombuffer("".join(counts).encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((data & 32) == 0)  # last digit of each number
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - starts + 1
    place = np.arange(len(data)) - np.repeat(starts, digits)
    values = np.add.reduceat((data & 31) << np.minimum(5 * place, 40), starts)
    values -= np.where(data[ends] & 16, np.int64(1) << np.minimum(5 * digits, 45), 0)
    last = np.searchsorted(ends, np.cumsum([len(text) for text in counts]) - 1)
    first = np.concatenate([[0], last[:-1] + 1])
    mask = np.repeat(np.arange(len(counts)), last - first + 1)
    index = np.arange(len(ends)) - first[mask]
    # From the fourth number on each is the difference to the run two before: sums along the odd and the even runs.
    chain = 3 * mask + np.where(index == 0, 0, 1 + index % 2)
    order = np.argsort(chain, kind="stable")
    sums = np.cumsum(values[order])
    heads = np.flatnonzero(np.diff(chain[order], prepend=-1))
    before = np.concatenate([[0], sums[heads[1:] - 1]])
    runs = np.empty_like(values)
    runs[order] = sums - np.repeat(before, np.diff(heads, append=len(sums)))
    return runs, first


def areas(masks: Sequence[RLE | None]) -> Array:
    """Foreground pixels of each mask, int64 [n]; 0 for None."""
    return np.array([0 if mask is None else int(coco.area(mask)) for mask in masks], dtype=np.int64)


def intersections(first: Sequence[RLE | None], second: Sequence[RLE | None]) -> Array:
    """Pixels in both masks of each pair, int64 [n]; 0 where one is None.

    Raises:
        ValueError: if the masks of a pair differ in size.
    """
    shared = np.zeros(len(first), dtype=np.int64)
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        if one is None or other is None:
            continue
        if one["size"] != other["size"]:
            raise ValueError(f"masks of a pair are {one['size']} and {other['size']}")
        shared[index] = coco.area(coco.merge([one, other], intersect=True))
    return shared


def union(masks: Sequence[RLE]) -> RLE | None:
    """One RLE that covers all ``masks``; None for none."""
    if len(masks) < 2:
        return masks[0] if masks else None
    return _text(coco.merge(list(masks)))


def encode(mask: Array) -> RLE:
    """Binary [H, W] -> RLE ``{"size": [H, W], "counts": str}``."""
    return _text(coco.encode(np.asfortranarray(mask, dtype=np.uint8)))


def decode(mask: RLE) -> Array:
    """RLE -> bool [H, W]."""
    return coco.decode(mask).astype(bool)


def _text(mask: RLE) -> RLE:
    return {"size": [int(side) for side in mask["size"]], "counts": mask["counts"].decode("ascii")}


def rectangle(box: Sequence[float], height: int, width: int) -> RLE:
    """The pixels of an xyxy box (rounded to whole pixels, cut at the image) as RLE."""
    left, top, right, bottom = (round(edge) for edge in box)
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 1
    return encode(mask)
