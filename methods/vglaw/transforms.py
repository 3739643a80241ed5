"""VG-LAW's image pipeline: longest side to S, crop, flip, normalise, place on an S x S canvas of zeros.

Each step is a function of the sample and of its random draws, so that recorded draws give the recorded result; the
draws themselves are made in :class:`TrainTransform`. Boxes are scaled by the single ratio ``S / max(H, W)`` on both
axes although the image's sides are rounded, and are never clipped except by a crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision import tv_tensors

from vgbench.batches.letterbox import flip, mentions_direction, place, xyxy_boxes
from vgbench.batches.transforms import identity_geometry, resize_image, resize_masks
from vgbench.types import Sample


def scaled_size(size: tuple[int, int], ratio: float) -> tuple[int, int]:
    """(height, width) of the image content after scaling, rounded half to even."""
    return round(size[0] * ratio), round(size[1] * ratio)


def multi_scale_sizes(size: int) -> tuple[int, ...]:
    """Lengths of the longest side that ``--multi_scale`` draws from: S - 128 to S + 128 in steps of 32."""
    return tuple(size + 32 * step for step in range(-4, 5))


def resize(sample: Sample, side: int, limit: int) -> Sample:
    """Scale the longest side to ``side``, or to ``limit`` where a larger ``side`` would not do.

    That is if the text mentions a direction (the later crop would move it), or if a scaled box would be wider or
    higher than the canvas.

    Args:
        sample: original pixels.
        side: target length of the longest side.
        limit: S, the side of the canvas.
    """
    image, boxes = sample["image"], sample["boxes"].as_subclass(Tensor)
    size = (image.shape[-2], image.shape[-1])
    if mentions_direction(sample["text"]) and side > limit:
        side = limit
    ratio = side / max(size)
    if ((boxes[:, 2:] - boxes[:, :2]) * ratio > limit).any():
        ratio = limit / max(size)
    new = scaled_size(size, ratio)
    out = sample.copy()
    out["image"] = tv_tensors.Image(resize_image(image, new))
    out["boxes"] = xyxy_boxes(boxes * ratio, new)
    if "masks" in sample:
        out["masks"] = tv_tensors.Mask(resize_masks(sample["masks"], new))
    out["geometry"] = replace(identity_geometry(image), scale=(ratio, ratio), canvas=new)
    return out


@dataclass(frozen=True)
class CropChoices:
    """Where a crop window can lie: possible left and top positions of a window of fixed size."""

    left: range
    top: range
    width: int
    height: int


def crop_choices(sample: Sample, size: int) -> CropChoices | None:
    """Windows of at most ``size`` x ``size`` that do not cut the (rounded) box; None: the image stays as it is.

    An image that fits is its own window, which only clips a box at its border. A larger one is not cropped if the text
    mentions a direction. (The official test for that never fires; it matters with ``--multi_scale`` only.)
    """
    height, width = sample["image"].shape[-2:]
    window = (min(width, size), min(height, size))
    if not len(sample["boxes"]) or (window != (width, height) and mentions_direction(sample["text"])):
        return None
    x1, y1, x2, y2 = (round(value) for value in sample["boxes"][0].tolist())
    left = range(max(0, x2 - window[0]), min(x1, width - window[0]) + 1)
    top = range(max(0, y2 - window[1]), min(y1, height - window[1]) + 1)
    return CropChoices(left, top, *window) if left and top else None


def crop(sample: Sample, left: int, top: int, width: int, height: int) -> Sample:
    """Cut out a window; boxes are clipped to it."""
    boxes = sample["boxes"].as_subclass(Tensor) - torch.tensor([left, top, left, top], dtype=torch.float32)
    boxes = torch.minimum(boxes.clamp(min=0), torch.tensor([width, height, width, height], dtype=torch.float32))
    out = sample.copy()
    out["image"] = tv_tensors.Image(sample["image"][:, top : top + height, left : left + width])
    out["boxes"] = xyxy_boxes(boxes, (height, width))
    if "masks" in sample:
        out["masks"] = tv_tensors.Mask(sample["masks"][:, top : top + height, left : left + width])
    return out


class EvalTransform:
    """Resize and centre. (The official scripts place the image at random at test time too.)"""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, sample: Sample) -> Sample:
        sample = resize(sample, self.size, self.size)
        height, width = sample["image"].shape[-2:]
        return place(sample, self.size, (self.size - width) // 2, (self.size - height) // 2)


def _draw(choices: Sequence[int]) -> int:
    return choices[int(torch.randint(len(choices), ()))]


class TrainTransform:
    """Training pipeline: resize, crop, flip with p = 0.5, random placement.

    Args:
        size: S, side of the network input in pixels.
        sides: lengths of the longest side to draw from; the official scripts use S alone.
        flip_whole_words: exchange only the whole words left and right at a flip; False exchanges the substrings, as
            the official code does ("bright" becomes "bleft").
    """

    def __init__(self, size: int, sides: Sequence[int], flip_whole_words: bool = False) -> None:
        self.size = size
        self.sides = tuple(sides)
        self.flip_whole_words = flip_whole_words

    def __call__(self, sample: Sample) -> Sample:
        sample = resize(sample, _draw(self.sides), self.size)
        choices = crop_choices(sample, self.size)
        if choices is not None:
            sample = crop(sample, _draw(choices.left), _draw(choices.top), choices.width, choices.height)
        if torch.rand(()) < 0.5:
            sample = flip(sample, self.flip_whole_words)
        height, width = sample["image"].shape[-2:]
        top = _draw(range(self.size - height + 1))
        left = _draw(range(self.size - width + 1))
        return place(sample, self.size, left, top)
