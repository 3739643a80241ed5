"""Transforms shared by the methods: torchvision v2 transforms on tv_tensors, so that boxes and masks follow the image.

The official pipelines resize with OpenCV (ALVG, SimVG, VG-LAW, AMC) or Pillow (ResVG, AMC), and the results differ by
up to a tenth of the dynamic range; so those two libraries do the resizing here too, to the pixel.
Everything random draws from torch's default generator, which the loader seeds per sample.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from vgbench.types import Geometry, Normalization, Sample

IMAGENET_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
IMAGENET_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)


Interpolation = Literal["opencv", "pillow", "pillow_bicubic"]


cv2.setNumThreads(0)  # the loader's workers are the parallelism


def interleaved(image: Tensor) -> np.ndarray:
    """uint8 [3, H, W] -> contiguous array [H, W, 3]; a decoded image, which lies so in memory, is not copied."""
    pixels = image.permute(1, 2, 0)
    if pixels.is_contiguous() or len(image) != 3:
        return pixels.contiguous().numpy()
    return cv2.merge([plane.contiguous().numpy() for plane in image])


def planes(array: np.ndarray) -> Tensor:
    """uint8 array [H, W, 3] -> contiguous tensor [3, H, W]."""
    return torch.from_numpy(np.stack(cv2.split(array)))


def resize_image(image: Tensor, size: tuple[int, int], how: Interpolation = "opencv") -> Tensor:
    """Resize uint8 [C, H, W] to ``size`` (height, width), as the named library does it, rounding included.

    Args:
        image: uint8 [C, H, W].
        size: (height, width).
        how: "opencv" bilinear without antialiasing, "pillow" bilinear or bicubic with antialiasing.
    """
    height, width = size
    array = interleaved(image)
    if how == "opencv":
        resized = cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR)
    else:
        method = PILImage.Resampling.BICUBIC if how == "pillow_bicubic" else PILImage.Resampling.BILINEAR
        resized = np.array(PILImage.fromarray(array).resize((width, height), method))
    return planes(resized)


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest neighbour with floor(target * source / target size), uint8 [n, H, W] -> [n, *size]."""
    height, width = size
    if masks.ndim == 3 and _opencv_is_floor(masks.shape[-2], height) and _opencv_is_floor(masks.shape[-1], width):
        out = torch.empty(len(masks), height, width, dtype=torch.uint8)
        for mask, target in zip(masks, out, strict=True):
            cv2.resize(mask.contiguous().numpy(), (width, height), target.numpy(), interpolation=cv2.INTER_NEAREST)
        return out
    rows = torch.div(torch.arange(height) * masks.shape[-2], height, rounding_mode="floor")
    columns = torch.div(torch.arange(width) * masks.shape[-1], width, rounding_mode="floor")
    return masks[..., rows, :][..., columns]


@functools.lru_cache(maxsize=4096)
def _opencv_is_floor(source: int, target: int) -> bool:
    """Whether OpenCV's nearest neighbour takes the pixels that :func:`resize_masks` means (it rounds in floats)."""
    if not source or not target:
        return False
    ramp = np.arange(source, dtype=np.float32)[None]
    source_columns = cv2.resize(ramp, (target, 1), interpolation=cv2.INTER_NEAREST)[0]
    return bool((source_columns == np.arange(target) * source // target).all())


def identity_geometry(image: Tensor) -> Geometry:
    """Geometry of an image that nothing has happened to."""
    size = (image.shape[-2], image.shape[-1])
    return Geometry(scale=(1.0, 1.0), offset=(0.0, 0.0), size=size, canvas=size)


class Resize(v2.Transform):
    """Resize to a fixed (height, width) without keeping the ratio, or to a longest side keeping it.

    Args:
        size: (height, width): stretched; int: the longest side, the other is rounded half to even.
        how: see :func:`resize_image`.
    """

    def __init__(self, size: int | tuple[int, int], how: Interpolation = "opencv") -> None:
        super().__init__()
        self.size = size
        self.how = how

    def target(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.size, int):
            ratio = self.size / max(height, width)
            return round(height * ratio), round(width * ratio)
        return self.size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"size": self.target(*v2.query_size(flat_inputs))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        height, width = params["size"]
        if isinstance(inpt, tv_tensors.Image):
            return tv_tensors.wrap(resize_image(inpt, params["size"], self.how), like=inpt)
        if isinstance(inpt, tv_tensors.Mask):
            return tv_tensors.wrap(resize_masks(inpt, params["size"]), like=inpt)
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            h, w = inpt.canvas_size
            factor = torch.tensor([width / w, height / h, width / w, height / h], dtype=inpt.dtype)
            return tv_tensors.BoundingBoxes(inpt * factor, format=inpt.format, canvas_size=(height, width))  # type: ignore[call-overload]
        return inpt

    def forward(self, sample: Sample) -> Sample:  # type: ignore[override]
        old = sample.get("geometry") or identity_geometry(sample["image"])
        height, width = sample["image"].shape[-2:]
        out: Sample = super().forward(sample)
        new_height, new_width = out["image"].shape[-2:]
        fx, fy = new_width / width, new_height / height
        out["geometry"] = Geometry(
            scale=(old.scale[0] * fx, old.scale[1] * fy),
            offset=(old.offset[0] * fx, old.offset[1] * fy),
            size=old.size,
            canvas=(new_height, new_width),
        )
        return out


class Normalize(v2.Transform):
    """uint8 image -> float32 ``(image / 255 - mean) / std`` (mean and std on the scale 0 to 1).

    Args:
        mean, std: of red, green and blue.
        late: where the loader offers it (:class:`~vgbench.types.Sample`), leave the pixels to be normalised on the
            device. No later step of the transform may read the image's values then.
    """

    def __init__(
        self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD, late: bool = False
    ) -> None:
        super().__init__()
        (red, green, blue), (red_std, green_std, blue_std) = mean, std
        self.normalization = Normalization((red, green, blue), (red_std, green_std, blue_std))
        self.late = late

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        return tv_tensors.Image(self.normalization(inpt.as_subclass(Tensor)))

    def forward(self, *inputs: Any) -> Any:
        sample = inputs[0]
        if self.late and isinstance(sample, dict) and sample.get("late_normalization"):
            return {**sample, "normalization": self.normalization}
        return super().forward(*inputs)


def uniform() -> float:
    """One draw from [0, 1)."""
    return torch.rand((), dtype=torch.float64).item()


_SWAP = {"left": "right", "right": "left"}


def swap_left_right(text: str, whole_words: bool = True) -> str:
    """Exchange the words left and right, keeping the case of each letter pattern (left, Left, LEFT).

    Args:
        text: any text.
        whole_words: only whole words ("bright" stays); False exchanges the lower-case substrings, as the official
            code of ResVG and VG-LAW does ("bright" becomes "bleft").
    """

    def swap(match: re.Match[str]) -> str:
        word = match.group()
        other = _SWAP[word.lower()]
        return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other

    if whole_words:
        return re.sub(r"(?<![^\W_])(left|right)(?![^\W_])", swap, text, flags=re.IGNORECASE)
    return re.sub(r"left|right", lambda match: _SWAP[match.group()], text)
