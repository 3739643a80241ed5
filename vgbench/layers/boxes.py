"""Box formats and overlaps. A box is the last axis of a tensor; every function broadcasts over the axes before it.

Overlaps are computed in float32 whatever the autocast state. ``eps`` is *added* to both denominators, which is the
convention of the DETR family (detrex: 1e-6, DETR: 0).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["canvas_sides", "cxcywh_to_xyxy", "giou", "iou", "pairwise", "xyxy_to_cxcywh"]


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(centre x, centre y, width, height) [..., 4] -> (left, top, right, bottom) [..., 4]."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - 0.5 * size, centre + 0.5 * size], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(left, top, right, bottom) [..., 4] -> (centre x, centre y, width, height) [..., 4]."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([0.5 * (low + high), high - low], dim=-1)


def canvas_sides(width: float, height: float, like: Tensor) -> Tensor:
    """(width, height, width, height) with the type and device of ``like``, made without a copy from the host."""
    return torch.stack([like.new_full((), width), like.new_full((), height)] * 2)


def _product(sides: Tensor) -> Tensor:
    """Width times height [..., 2] -> [...]; the gradient of ``sides.prod(-1)`` asks the device how many are zero."""
    width, height = sides.unbind(-1)
    return width * height


def _areas(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both boxes in float32, intersection and union area [...]."""
    first, second = first.float(), second.float()
    overlap = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    intersection = _product(overlap.clamp(min=0))
    union = _product(first[..., 2:] - first[..., :2]) + _product(second[..., 2:] - second[..., :2]) - intersection
    return first, second, intersection, union


def iou(first: Tensor, second: Tensor, eps: float = 0.0) -> Tensor:
    """Intersection over union ``I / (U + eps)`` of xyxy boxes [..., 4] and [..., 4] -> [...] in [0, 1]."""
    _, _, intersection, union = _areas(first, second)
    return intersection / (union + eps)


def giou(first: Tensor, second: Tensor, eps: float = 0.0) -> Tensor:
    """Generalised IoU ``I / (U + eps) - (C - U) / (C + eps)`` of xyxy boxes -> [...] in [-1, 1]; C is the hull's area.

    Source: Rezatofighi et al., CVPR 2019.
    """
    first, second, intersection, union = _areas(first, second)
    hull = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    area = _product(hull.clamp(min=0))
    return intersection / (union + eps) - (area - union) / (area + eps)


def pairwise(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Views that make an overlap pairwise: boxes [..., n, 4] and [..., m, 4], ``iou(*pairwise(a, b))`` [..., n, m]."""
    return first.unsqueeze(-2), second.unsqueeze(-3)
