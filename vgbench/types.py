"""What travels through the suite: Geometry, Sample, Batch, Prediction.

PyTorch is imported by whoever makes or maps tensors, not here: predictions are read and scored without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torchvision import tv_tensors


@dataclass(frozen=True)
class Geometry:
    """How an original image lies in the network input: ``network = original * scale + offset`` per axis.

    Attributes:
        scale: (x, y), network pixels per original pixel.
        offset: (x, y), network pixels left of and above the image (letter-box padding), 0 without padding.
        size: (height, width) of the original image.
        canvas: (height, width) of the network input.
    """

    scale: tuple[float, float]
    offset: tuple[float, float]
    size: tuple[int, int]
    canvas: tuple[int, int]

    @classmethod
    def letterbox(cls, height: int, width: int, side: int) -> Geometry:
        """Where an image [height, width] lies that is scaled to fit a square of ``side`` pixels and centred in it."""
        ratio = side / max(height, width)
        new_height, new_width = round(height * ratio), round(width * ratio)
        return cls(
            scale=(new_width / width, new_height / height),
            offset=(float((side - new_width) // 2), float((side - new_height) // 2)),
            size=(height, width),
            canvas=(side, side),
        )

    def to_original(self, boxes: Tensor) -> Tensor:
        """Boxes [..., 4] xyxy from network to original pixels; not clipped."""
        shift = boxes.new_tensor([*self.offset, *self.offset])
        return (boxes - shift) / boxes.new_tensor([*self.scale, *self.scale])

    def to_network(self, boxes: Tensor) -> Tensor:
        """Boxes [..., 4] xyxy from original to network pixels."""
        return boxes * boxes.new_tensor([*self.scale, *self.scale]) + boxes.new_tensor([*self.offset, *self.offset])


@dataclass(frozen=True)
class Normalization:
    """uint8 pixels -> float32 ``(pixel / 255 - mean) / std``, the same bits on every device.

    Attributes:
        mean, std: of red, green and blue, on the scale 0 to 1.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Tensor, content: Tensor | None = None) -> Tensor:
        """
        Args:
            image: uint8 [..., 3, H, W].
            content: [..., 4] (top, left, bottom, right) of the picture in ``image``; the result is 0 around it.
        """
        top, mean, std = _constants(self, image.device)
        result = image.float().div_(top).sub_(mean).div_(std)
        return result if content is None else result.masked_fill_(_outside(content, image), 0.0)


@functools.lru_cache(maxsize=16)
def _constants(normalization: Normalization, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """255, mean and std as tensors, made once: a copy to the device would wait for it, and CUDA multiplies by the
    (rounded) inverse of a divisor that is a number."""
    import torch

    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (normalization.mean, normalization.std))
    return torch.tensor(255.0, device=device), mean.to(device), std.to(device)


def _outside(content: Tensor, image: Tensor) -> Tensor:
    """bool [..., 1, H, W], True outside the rectangles."""
    import torch

    top, left, bottom, right = content[..., None].unbind(-2)
    rows, columns = (torch.arange(side, device=image.device) for side in image.shape[-2:])
    above, beside = (rows < top) | (rows >= bottom), (columns < left) | (columns >= right)
    return (above[..., :, None] | beside[..., None, :]).unsqueeze(-3)


class Sample(TypedDict, total=False):
    """One image and one expression on their way through a method's transform.

    Before the transform ``image`` is uint8 RGB [3, H, W] and boxes and masks are in original pixels; after it
    ``image`` is the network input, boxes and masks are in network pixels, ``geometry`` is set, and
    ``text`` is the text to be tokenised (cleaned as the method wants it). The network input is normalised float32; if
    ``late_normalization`` was set it may be uint8 as well, with ``normalization`` to say what the device has to make
    of it.
    """

    image: tv_tensors.Image
    boxes: tv_tensors.BoundingBoxes  # [n, 4] xyxy float32, n = 0: no target
    masks: tv_tensors.Mask  # [n, H, W] uint8; absent when the dataset has none or the method asks for none
    text: str
    pad: Tensor  # [H, W] bool, True = padding of the network input; absent: nothing is padded
    geometry: Geometry
    key: str  # the expression's key in the annotation table
    image_id: int  # of the annotation table
    auxiliary: dict[str, Tensor]  # per-expression inputs that the method declares in ``auxiliary_shapes``
    late_normalization: bool  # set by a loader: a quarter of the bytes goes through workers and to the device
    normalization: Normalization  # of a uint8 network input
    content: tuple[int, int, int, int]  # top, left, bottom, right of the picture in it; absent: all of it


Transform = Callable[[Sample], Sample]


def as_array(values: Tensor | np.ndarray, dtype: Any = None) -> np.ndarray:
    """A tensor of any device and precision, or an array, as an array of ``dtype`` (None: its own, at least float32)."""
    if not isinstance(values, np.ndarray):
        values = values.detach().cpu()
        short = values.is_floating_point() and values.element_size() < 4  # NumPy has no bfloat16
        values = (values.float() if short else values).numpy()
    return values if dtype is None else values.astype(dtype, copy=False)


@dataclass
class Batch:
    """Collated samples; B samples, at most M targets each (M = 1 for single-target data).

    Attributes:
        image: [B, 3, H, W] float32, normalised; from the loader until :meth:`to` also uint8.
        image_pad: [B, H, W] bool, True = padding, or None when nothing is padded.
        text_ids: [B, L] int64.
        text_pad: [B, L] bool, True = padding.
        boxes: [B, M, 4] float32 xyxy in network pixels; rows without a target are 0.
        valid: [B, M] bool, True = the row is a target. A no-target expression has no True.
        masks: [B, M, H, W] uint8 or None.
        auxiliary: tensors [B, ...] by name, as declared in :attr:`GroundingMethod.auxiliary_shapes`.
        geometry: one per sample.
        keys: one per sample.
        texts: the texts as the transform left them.
        skipped: reasons of the samples that had to be left out.
        image_ids: one per sample; expressions of one image share it (and, untouched by augmentation, the image).
        normalization: what :meth:`to` makes of a uint8 ``image``; None: it is normalised.
        content: [B, 4] (top, left, bottom, right), the pictures in a uint8 ``image``; None: they fill it.
    """

    image: Tensor
    text_ids: Tensor
    text_pad: Tensor
    boxes: Tensor
    valid: Tensor
    masks: Tensor | None = None
    image_pad: Tensor | None = None
    auxiliary: dict[str, Tensor] = field(default_factory=dict)
    geometry: Sequence[Geometry] = ()
    keys: Sequence[str] = ()
    texts: Sequence[str] = ()
    skipped: Sequence[str] = ()
    image_ids: Sequence[int] = ()
    normalization: Normalization | None = None
    content: Tensor | None = None

    def __len__(self) -> int:
        return self.image.shape[0]

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Apply ``function`` to every tensor."""
        from torch import Tensor

        changed: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                changed[item.name] = function(value)
        changed["auxiliary"] = {name: function(value) for name, value in self.auxiliary.items()}
        return replace(self, **changed)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        """The batch as a method takes it: on ``device``, the image normalised there."""
        moved = self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        if moved.normalization is None:
            return moved
        image = moved.normalization(moved.image, moved.content)
        return replace(moved, image=image, normalization=None, content=None)

    def pin_memory(self) -> Batch:
        return self.map(lambda tensor: tensor.pin_memory())


@dataclass
class Prediction:
    """What a method says about one expression, in pixels of the original image.

    Methods give tensors; what is read from a file may be NumPy arrays of the same shapes.

    Attributes:
        boxes: [n, 4] float32 xyxy, ranked, best first; [0, 4] where the method gives no box.
        scores: [n] float32 in [0, 1], never increasing along the list.
        mask: COCO RLE ``{"size": [h, w], "counts": str}`` of the union of the targets, or None.
        no_target: the method's own decision that nothing is meant, or None if it makes none.
        point: (x, y) of the peak of a heat map, integer pixel indices, or None.
        heatmap: [h, w] float32 of any size covering the whole image, for pictures and the pointing game, or None.
        canvas_mask: COCO RLE in the network's frame, for the metric variants that are defined there, or None.
        geometry: the frame of ``canvas_mask``.
        answer: a language model's words, from which the boxes were read, or None.
        masks_at: the mask at other probabilities than the method's own, in percent, for the metric variant ``cut``.
    """

    boxes: Tensor | np.ndarray
    scores: Tensor | np.ndarray
    mask: dict[str, Any] | None = None
    no_target: bool | None = None
    point: tuple[int, int] | None = None
    heatmap: Tensor | np.ndarray | None = None
    canvas_mask: dict[str, Any] | None = None
    geometry: Geometry | None = None
    masks_at: dict[int, dict[str, Any]] | None = None
    answer: str | None = None


@dataclass(frozen=True)
class Usage:
    """What the answers of a language model cost.

    Attributes:
        answers: how many were given, those of an earlier, stopped evaluation included.
        reused: how many of them were taken from an earlier, stopped evaluation.
        prompt_tokens, answer_tokens: of all answers together; None: not counted.
        seconds: from question to answer, summed over the answers.
    """

    answers: int
    reused: int
    prompt_tokens: int | None
    answer_tokens: int | None
    seconds: float

    def per_answer(self, total: float | None) -> float | None:
        """The mean; None if nothing was counted or answered."""
        return None if total is None or not self.answers else total / self.answers
