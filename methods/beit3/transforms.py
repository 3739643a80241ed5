"""The input pipeline of SimVG and ALVG, as SeqTR wrote it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from vgbench.batches.transforms import Normalize, Resize, identity_geometry, resize_image, uniform
from vgbench.text.sentencepiece import clean_expression
from vgbench.types import Geometry, Sample


class ClipBoxes(v2.Transform):
    """Clip boxes to [0, w - 1] x [0, h - 1], as the SeqTR family's loaders do before anything else."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            height, width = inpt.canvas_size
            limit = torch.tensor([width - 1, height - 1, width - 1, height - 1], dtype=inpt.dtype)
            return tv_tensors.wrap(torch.minimum(inpt.clamp(min=0), limit), like=inpt)
        return inpt


class CleanText:
    """Clean the expression as the SeqTR family does (:func:`vgbench.text.sentencepiece.clean_expression`)."""

    def __call__(self, sample: Sample) -> Sample:
        return {**sample, "text": clean_expression(sample["text"])}


class LargeScaleJitter:
    """SeqTR's large-scale jitter: rescale by a random factor, then crop around the target if the image has grown.

    Only for samples with exactly one box; others pass unchanged. Masks are not supported.

    A factor r is drawn from ``scale``; the image is resized (ratio kept) to ``r * size`` along its longer side. For
    r > 1 it is cropped to what it would be at r = 1: random offsets are tried until the crop keeps at least 90 % of
    the box, after 100 failures 80 %, and so on down to 50 %. If all 500 fail, the best try is taken if it kept 30 %,
    else the sample stays as it was. The kept share is the product of the two *signed* side lengths of the
    intersection, as in the official code (a crop diagonally beyond a small box passes with it).

    The official code shifts the box by the last instead of the best offset when it falls back to the best try; here
    it is the best one.

    Args:
        size: S.
        scale: range of r.
        draw: source of uniform numbers in [0, 1): first the scale, then (x, y) of every try.
    """

    THRESHOLDS = (0.9, 0.8, 0.7, 0.6, 0.5)
    TRIES = 100
    MINIMUM = 0.3

    def __init__(self, size: int, scale: tuple[float, float] = (0.3, 1.4), draw: Callable[[], float] = uniform) -> None:
        self.size = size
        self.scale = scale
        self.draw = draw

    def __call__(self, sample: Sample) -> Sample:
        if len(sample["boxes"]) != 1:
            return sample
        image = sample["image"]
        height, width = image.shape[-2:]
        r = self.scale[0] + (self.scale[1] - self.scale[0]) * self.draw()
        fit = self.size / max(height, width)
        new_height, new_width = int(height * fit * r + 0.5), int(width * fit * r + 0.5)
        fx, fy = new_width / width, new_height / height
        x1, y1, x2, y2 = sample["boxes"].as_subclass(Tensor).double()[0].tolist()
        box = (x1 * fx, y1 * fy, x2 * fx, y2 * fy)
        offset = (0.0, 0.0)
        final = (new_height, new_width)
        if r > 1:
            final = (int(height * fit + 0.5), int(width * fit + 0.5))
            corner = self._offset(box, (new_height, new_width), final)
            if corner is None:
                return sample
            offset = corner
        resized = resize_image(image, (new_height, new_width))
        left, top = int(offset[0]), int(offset[1])
        resized = resized[:, top : top + final[0], left : left + final[1]]
        shifted = torch.tensor([box], dtype=torch.float64) - torch.tensor([*offset, *offset], dtype=torch.float64)
        limit = torch.tensor([final[1] - 1, final[0] - 1] * 2, dtype=torch.float64)
        shifted = torch.minimum(shifted.clamp(min=0), limit).float()
        old = sample.get("geometry") or identity_geometry(image)
        geometry = Geometry(
            scale=(old.scale[0] * fx, old.scale[1] * fy),
            offset=(old.offset[0] * fx - offset[0], old.offset[1] * fy - offset[1]),
            size=old.size,
            canvas=final,
        )
        boxes = tv_tensors.BoundingBoxes(shifted, format="XYXY", canvas_size=final)  # type: ignore[call-overload]
        return {**sample, "image": tv_tensors.Image(resized.contiguous()), "boxes": boxes, "geometry": geometry}

    def _offset(
        self, box: tuple[float, float, float, float], size: tuple[int, int], crop: tuple[int, int]
    ) -> tuple[float, float] | None:
        """(x, y) of the crop, sizes as (height, width); None: no try kept enough of the box."""
        x1, y1, x2, y2 = box
        area = (x2 - x1) * (y2 - y1)
        best, best_offset = 0.0, None
        for threshold in self.THRESHOLDS:
            for _ in range(self.TRIES):
                left = self.draw() * (size[1] - crop[1])
                top = self.draw() * (size[0] - crop[0])
                if area == 0:
                    continue
                inside = (min(x2, left + crop[1]) - max(x1, left)) * (min(y2, top + crop[0]) - max(y1, top))
                visible_share = inside / area
                if visible_share >= threshold:
                    return left, top
                if visible_share > best:
                    best, best_offset = visible_share, (left, top)
        return best_offset if best >= self.MINIMUM else None


def stretched(size: int, jitter: LargeScaleJitter | None = None) -> v2.Compose:
    """The pipeline of SimVG and ALVG: clip boxes, stretch to size x size, normalise, clean the expression.

    Args:
        size: S.
        jitter: comes before the resize.
    """
    steps: list[Callable[[Any], Any]] = [ClipBoxes(), Resize((size, size)), Normalize(late=True), CleanText()]
    if jitter is not None:
        steps.insert(1, jitter)
    return v2.Compose(steps)
