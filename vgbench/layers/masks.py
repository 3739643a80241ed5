"""Masks of a batch at the sizes of their images, and their run lengths found where the masks are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco
from torch import Tensor

__all__ = ["encode_masks", "resize_to_images"]


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


def encode_masks(masks: Sequence[Tensor]) -> list[dict[str, Any]]:
    """COCO RLE ``{"size": [h, w], "counts": str}`` of boolean masks [h, w] on any device, with one copy to the host.

    The strings are those of ``pycocotools.mask.encode``.
    """
    if not len(masks):
        return []
    flat = torch.cat([mask.t().reshape(-1) for mask in masks])  # column-major, as COCO counts
    ends = np.cumsum([mask.numel() for mask in masks])
    begins = np.concatenate([[0], ends[:-1]])
    change = torch.ones_like(flat)
    torch.ne(flat[1:], flat[:-1], out=change[1:])
    change.index_fill_(0, torch.from_numpy(begins).to(change.device), True)
    places = change.nonzero()[:, 0]
    packed = (places * 2 + flat[places]).cpu().numpy()  # where a run begins, and of what
    starts, foreground = packed >> 1, packed & 1
    bounds = np.searchsorted(starts, np.append(begins, ends[-1]))
    encoded = []
    for number, mask in enumerate(masks):
        part = slice(bounds[number], bounds[number + 1])
        counts = np.diff(np.append(starts[part], ends[number]))
        if foreground[part][0]:
            counts = np.append(0, counts)
        height, width = mask.shape
        packed_counts = coco.frPyObjects({"counts": counts.tolist(), "size": [height, width]}, height, width)["counts"]
        encoded.append({"size": [height, width], "counts": packed_counts.decode("ascii")})
    return encoded
