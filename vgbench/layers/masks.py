"""Masks of a batch at the sizes of their images, and their run lengths found where the masks are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco
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
        starts: first pixel of every run, int64; the masks lie column by column, one after the other.
        foreground: 0 or 1 per run.
        sizes: (height, width) of each mask.
    """

    starts: np.ndarray
    foreground: np.ndarray
    sizes: tuple[tuple[int, int], ...]

    def encode(self) -> list[dict[str, Any]]:
        """COCO RLE ``{"size": [h, w], "counts": str}`` of each mask, the strings of ``pycocotools.mask.encode``."""
        ends = np.cumsum([height * width for height, width in self.sizes], dtype=np.int64)
        begins = np.append(0, ends[:-1])
        bounds = np.searchsorted(self.starts, np.append(begins, ends[-1:]))
        encoded = []
        for number, (height, width) in enumerate(self.sizes):
            part = slice(bounds[number], bounds[number + 1])
            counts = np.diff(np.append(self.starts[part], ends[number]))
            if self.foreground[part][0]:
                counts = np.append(0, counts)
            runs = {"counts": counts.tolist(), "size": [height, width]}
            packed = coco.frPyObjects(runs, height, width)["counts"]
            encoded.append({"size": [height, width], "counts": packed.decode("ascii")})
        return encoded


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
    packed = (places * 2 + flat[places]).cpu().numpy()  # where a run begins, and of what
    return RunLengths(packed >> 1, packed & 1, tuple((mask.shape[0], mask.shape[1]) for mask in masks))


def encode_masks(masks: Sequence[Tensor]) -> list[dict[str, Any]]:
    """COCO RLE of boolean masks [h, w] on any device: :func:`run_lengths` and their strings at once."""
    return run_lengths(masks).encode()
