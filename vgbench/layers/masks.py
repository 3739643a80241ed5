"""Masks of a batch at the sizes of their images, and their run lengths found where the masks are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["RunLengths", "encode_masks", "resize_to_images", "run_lengths"]


def resize_to_images(
    maps: Tensor | Sequence[Tensor], sizes: Sequence[tuple[int, int]], finish: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Bilinear enlargement (align_corners False) of each map to its image, images of one size together.

    Args:
        maps: B maps [h, w]; together in one tensor, or of different sizes.
        sizes: (height, width) of each image.
        finish: applied to the enlarged maps [n, height, width].

    Returns:
        B tensors [height, width].
    """
    results: list[Tensor | None] = [None] * len(sizes)
    for (_, size), rows in _groups([(tuple(maps[row].shape), size) for row, size in enumerate(sizes)]):
        together = torch.stack([maps[row] for row in rows]) if len(rows) < len(maps) else _whole(maps)
        enlarged = finish(F.interpolate(together[:, None], size, mode="bilinear", align_corners=False)[:, 0])
        for row, one in zip(rows, enlarged, strict=True):
            results[row] = one
    return [one for one in results if one is not None]


def _whole(maps: Tensor | Sequence[Tensor]) -> Tensor:
    return maps if isinstance(maps, Tensor) else torch.stack(list(maps))


def _groups(keys: Sequence[Any]) -> Iterator[tuple[Any, list[int]]]:
    rows: dict[Any, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    yield from rows.items()


@dataclass(frozen=True)
class RunLengths:
    """Where the runs of some masks begin, on the host; the strings are made of them without the device.

    Attributes:
        starts: first pixel of every run; the masks lie column by column, one after the other.
        foreground: 0 or 1 per run.
        sizes: (height, width) of each mask.
    """

    starts: np.ndarray
    foreground: np.ndarray
    sizes: tuple[tuple[int, int], ...]

    def encode(self) -> list[dict[str, Any]]:
        """COCO RLE ``{"size": [h, w], "counts": str}`` of each mask, the strings of ``pycocotools.mask.encode``.

        All masks at once: pycocotools takes runs as Python lists only, which is ten times slower and holds the
        interpreter's lock meanwhile. A mask of a model that has not learned yet has 20,000 runs.
        """
        ends = np.cumsum([height * width for height, width in self.sizes], dtype=np.int64)
        bounds = np.searchsorted(self.starts, np.append(0, ends))
        counts = np.diff(self.starts, append=self.starts.dtype.type(ends[-1] if len(ends) else 0))
        begins_inside = self.foreground[bounds[:-1]] == 1  # the first count is of the background, then zero
        counts = np.insert(counts, bounds[:-1][begins_inside], 0)
        bounds = bounds + np.append(0, np.cumsum(begins_inside))
        text, places = _coco_text(counts, bounds)
        strings = (text[begin:end].decode("ascii") for begin, end in pairwise(places.tolist()))
        return [{"size": list(size), "counts": string} for size, string in zip(self.sizes, strings, strict=True)]


def _coco_text(counts: np.ndarray, bounds: np.ndarray) -> tuple[bytes, np.ndarray]:
    """COCO's text of run lengths, and where that of each mask begins (and the last one ends).

    From its fourth count on, a mask has differences to the count before the last one. A number is written in groups of
    five bits, the lowest first, until the rest is its sign; every group but the last has bit 6 set; then 48 is added.
    """
    values = counts.copy()
    values[3:] -= counts[1:-2]
    for place in range(3):  # of every mask that is so long
        early = bounds[:-1][np.diff(bounds) > place] + place
        values[early] = counts[early]
    groups = np.ones(len(values), dtype=np.int8)
    limit = 16
    while (rest := (values >= limit) | (values < -limit)).any():
        groups += rest
        limit *= 32
    ends = np.cumsum(groups, dtype=np.int64)
    first = ends - groups
    text = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
    text[first] = (values & 31) + 48 + 32 * (groups > 1)
    for group in range(1, int(groups.max(initial=0))):
        rows = np.flatnonzero(groups > group)
        text[first[rows] + group] = (values[rows] >> 5 * group & 31) + 48 + 32 * (groups[rows] > group + 1)
    return text.tobytes(), np.append(0, ends)[bounds]


def run_lengths(masks: Sequence[Tensor]) -> RunLengths:
    """The runs of boolean masks [h, w] on any device, with one copy to the host."""
    if not len(masks):
        return RunLengths(np.zeros(0, np.int64), np.zeros(0, np.int64), ())
    flat = torch.cat([mask.t().reshape(-1) for mask in masks])  # column-major, as COCO counts
    begins = np.cumsum([0, *(mask.numel() for mask in masks[:-1])])
    change = torch.ones_like(flat)
    torch.ne(flat[1:], flat[:-1], out=change[1:])
    change.index_fill_(0, torch.from_numpy(begins).to(change.device), True)
    places = change.nonzero()[:, 0]
    packed = places * 2 + flat[places]  # where a run begins, and of what
    if 2 * len(flat) < 2**31:
        packed = packed.int()
    host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=packed.is_cuda).copy_(packed).numpy()
    return RunLengths(host >> 1, host & 1, tuple((mask.shape[0], mask.shape[1]) for mask in masks))


def encode_masks(masks: Sequence[Tensor]) -> list[dict[str, Any]]:
    """COCO RLE of boolean masks [h, w] on any device: :func:`run_lengths` and their strings at once."""
    return run_lengths(masks).encode()
