"""The image and text pipelines of ResVG (those of VLTVG): aspect kept, zero canvas, Pillow resizing and colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from PIL import Image as PILImage
from PIL import ImageEnhance
from torch import Tensor
from torchvision import tv_tensors

from vgbench.batches.letterbox import flip, mentions_direction, place, xyxy_boxes
from vgbench.batches.transforms import Resize, identity_geometry, interleaved, planes
from vgbench.types import Sample

__all__ = ["Draws", "EvalTransform", "TrainTransform"]

ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)

Value = TypeVar("Value")


class Draws:
    """Random draws by name, from torch's default generator. (Names let a recorded sequence be replayed.)"""

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * torch.rand((), dtype=torch.float64).item()

    def choice(self, name: str, options: Sequence[Value]) -> Value:
        return options[int(torch.randint(len(options), ()).item())]

    def integer(self, name: str, low: int, high: int) -> int:
        """Uniform over low..high, both included."""
        return int(torch.randint(low, high + 1, ()).item())

    def permutation(self, name: str, size: int) -> list[int]:
        return torch.randperm(size).tolist()


def start(sample: Sample) -> Sample:
    """A copy with the phrase in lower case and the geometry of the untouched image, without masks."""
    out = sample.copy()
    out["text"] = sample["text"].lower()
    out["geometry"] = identity_geometry(sample["image"])
    out.pop("masks", None)
    return out


class EvalTransform:
    """Long side to the canvas size, image in the centre of the canvas.

    Args:
        size: side of the canvas in pixels.
        mark_padding: hand on a mask of the padding (the official code does not).
    """

    def __init__(self, size: int, mark_padding: bool = False) -> None:
        self.size, self.mark_padding = size, mark_padding

    def __call__(self, sample: Sample) -> Sample:
        sample = Resize(self.size, "pillow")(start(sample))
        height, width = sample["image"].shape[-2:]
        return place(sample, self.size, (self.size - width) // 2, (self.size - height) // 2, self.mark_padding)


class TrainTransform:
    """Random scale and crop, colour jitter, flip with left/right exchanged in the phrase, random place on the canvas.

    A phrase with a direction word is never cropped; else every second sample has its short side resized, is cropped
    so that at least ``crop_iou`` of each box is kept (the box is clipped then), and goes on like the others: long side
    to one of ``long_sizes``. ``geometry`` does not tell a flip.

    Args:
        size: side of the canvas in pixels.
        mark_padding: hand on a mask of the padding (the official code does not).
        whole_words: look for direction words and exchange left/right as whole words. The official code looks for
            substrings: "laptop" counts as "top", and a flip turns "bright" into "bleft".
        long_sizes, short_sizes, crop_min, crop_max: pixels; default: the official ones scaled to the canvas.
        crop_iou, crop_tries: acceptance of a crop; after so many tries the image stays uncropped.
        crop_p, jitter_p, flip_p: probabilities.
        jitter: brightness, contrast and saturation factors lie in 1 - jitter .. 1 + jitter.
        draws: source of randomness.
    """

    def __init__(
        self,
        size: int,
        mark_padding: bool = False,
        whole_words: bool = False,
        long_sizes: Sequence[int] | None = None,
        short_sizes: Sequence[int] | None = None,
        crop_min: int | None = None,
        crop_max: int | None = None,
        crop_iou: float = 0.5,
        crop_tries: int = 20,
        crop_p: float = 0.5,
        jitter_p: float = 0.8,
        flip_p: float = 0.5,
        jitter: Sequence[float] = (0.4, 0.4, 0.4),
        draws: Draws | None = None,
    ) -> None:
        self.size, self.mark_padding = size, mark_padding
        scale = size / 640
        self.long_sizes = tuple(long_sizes or (round(side * scale) for side in range(448, 641, 32)))
        self.short_sizes = tuple(short_sizes or (round(side * scale) for side in (400, 500, 600)))
        self.crop_min = round(384 * scale) if crop_min is None else crop_min
        self.crop_max = round(600 * scale) if crop_max is None else crop_max
        if max(self.long_sizes) > size:
            raise ValueError(f"long side {max(self.long_sizes)} does not fit on a canvas of {size} pixels")
        if self.crop_min > min(*self.short_sizes, self.crop_max):
            raise ValueError(f"crop_min {self.crop_min} exceeds crop_max or the smallest short side")
        self.crop_iou, self.crop_tries = crop_iou, crop_tries
        self.crop_p, self.jitter_p, self.flip_p, self.jitter = crop_p, jitter_p, flip_p, tuple(jitter)
        self.whole_words = whole_words
        self.draws = draws or Draws()

    def __call__(self, sample: Sample) -> Sample:
        draws = self.draws
        sample = start(sample)
        if not mentions_direction(sample["text"], self.whole_words) and draws.uniform("branch") >= 1 - self.crop_p:
            sample = self._crop(sample)
        sample = Resize(draws.choice("long_size", self.long_sizes), "pillow")(sample)
        if draws.uniform("jitter") < self.jitter_p:
            sample["image"] = self._jitter(sample["image"])
        if draws.uniform("flip") < self.flip_p:
            sample = flip(sample, self.whole_words)
        height, width = sample["image"].shape[-2:]
        top = draws.integer("top", 0, self.size - height)
        left = draws.integer("left", 0, self.size - width)
        return place(sample, self.size, left, top, self.mark_padding)

    def _jitter(self, image: Tensor) -> tv_tensors.Image:
        """Brightness, contrast and saturation in random order by random factors."""
        picture = PILImage.fromarray(interleaved(image.as_subclass(Tensor)))
        for kind in self.draws.permutation("jitter_order", len(ENHANCERS)):
            factor = self.draws.uniform("jitter_factors", 1 - self.jitter[kind], 1 + self.jitter[kind])
            picture = ENHANCERS[kind](picture).enhance(factor)
        return tv_tensors.Image(planes(np.array(picture)))

    def _crop(self, sample: Sample) -> Sample:
        draws = self.draws
        height, width = sample["image"].shape[-2:]
        ratio = draws.choice("short_size", self.short_sizes) / min(height, width)
        sample = Resize((round(height * ratio), round(width * ratio)), "pillow")(sample)
        height, width = sample["image"].shape[-2:]
        boxes = sample["boxes"].as_subclass(Tensor)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
        for _ in range(self.crop_tries):
            crop_width = draws.integer("crop_width", self.crop_min, min(width, self.crop_max))
            crop_height = draws.integer("crop_height", self.crop_min, min(height, self.crop_max))
            top = draws.integer("crop_top", 0, height - crop_height)
            left = draws.integer("crop_left", 0, width - crop_width)
            window = torch.tensor([crop_width, crop_height, crop_width, crop_height])
            clipped = torch.minimum((boxes - torch.tensor([left, top, left, top])).clamp(min=0), window)
            if bool(((clipped[:, 2:] - clipped[:, :2]).prod(-1) >= self.crop_iou * areas).all()):
                window_pixels = sample["image"][:, top : top + crop_height, left : left + crop_width]
                sample["image"] = tv_tensors.Image(window_pixels)
                sample["boxes"] = xyxy_boxes(clipped, (crop_height, crop_width))
                old = sample["geometry"]
                offset = (old.offset[0] - left, old.offset[1] - top)
                sample["geometry"] = replace(old, offset=offset, canvas=(crop_height, crop_width))
                break
        return sample
