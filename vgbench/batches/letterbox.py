"""Letterboxing: the image keeps its aspect and lies on a square canvas of zeros, as in TransVG, VLTVG and VG-LAW.

The steps are functions of a sample and of positions that the caller chose or drew. Boxes and masks follow the image;
``geometry`` follows everything but a flip.
"""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from torch import Tensor
from torchvision import tv_tensors

from vgbench.batches.transforms import Normalize, swap_left_right
from vgbench.types import Sample

__all__ = ["DIRECTIONS", "flip", "mentions_direction", "place", "xyxy_boxes"]

DIRECTIONS = ("left", "right", "top", "bottom", "middle")  # a crop or a shift can make these words wrong

_normalize = Normalize(late=True)


def mentions_direction(text: str, whole_words: bool = False) -> bool:
    """Whether the text holds one of :data:`DIRECTIONS`.

    Args:
        text: lower case.
        whole_words: count whole words only; the official codes look for substrings ("laptop" counts as "top").
    """
    if whole_words:
        return bool(set(DIRECTIONS) & set(re.findall(r"[^\W_]+", text)))
    return any(word in text for word in DIRECTIONS)


def xyxy_boxes(boxes: Tensor, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    """Boxes [n, 4] xyxy as a tv_tensor on a canvas of ``size`` (height, width)."""
    return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)  # type: ignore[call-overload]


def flip(sample: Sample, whole_words: bool) -> Sample:
    """Mirror image, boxes and masks; left and right change places in the text (see :func:`swap_left_right`)."""
    image = sample["image"]
    width = image.shape[-1]
    x1, y1, x2, y2 = sample["boxes"].as_subclass(Tensor).unbind(-1)
    out = sample.copy()
    out["image"] = tv_tensors.Image(image.flip(-1))
    out["boxes"] = xyxy_boxes(torch.stack([width - x2, y1, width - x1, y2], -1), (image.shape[-2], width))
    if "masks" in sample:
        out["masks"] = tv_tensors.Mask(sample["masks"].flip(-1))
    out["text"] = swap_left_right(sample["text"], whole_words)
    return out


def place(sample: Sample, size: int, left: int, top: int, mark_padding: bool = True) -> Sample:
    """Normalise the image and put it at (left, top) of a ``size`` x ``size`` canvas.

    Padding is 0 after the normalisation, also after a late one (:class:`~vgbench.types.Sample`).

    Args:
        sample: uint8 image that fits on the canvas; ``geometry`` is set.
        size: side of the canvas in pixels.
        left, top: where the image begins.
        mark_padding: hand on the padding as ``pad``, [size, size] bool.
    """
    out: Sample = _normalize(sample)
    image = out["image"].as_subclass(Tensor)
    height, width = image.shape[-2:]
    area = (..., slice(top, top + height), slice(left, left + width))
    canvas = torch.zeros(3, size, size, dtype=image.dtype)
    canvas[area] = image
    boxes = sample["boxes"].as_subclass(Tensor) + torch.tensor([left, top, left, top], dtype=torch.float32)
    out["image"] = tv_tensors.Image(canvas)
    out["content"] = (top, left, top + height, left + width)
    out["boxes"] = xyxy_boxes(boxes, (size, size))
    if mark_padding:
        out["pad"] = torch.ones(size, size, dtype=torch.bool)
        out["pad"][area] = False
    if "masks" in sample:
        masks = torch.zeros(len(sample["masks"]), size, size, dtype=torch.uint8)
        masks[area] = sample["masks"].as_subclass(Tensor)
        out["masks"] = tv_tensors.Mask(masks)
    inner = sample["geometry"]
    out["geometry"] = replace(inner, offset=(inner.offset[0] + left, inner.offset[1] + top), canvas=(size, size))
    return out
