"""What conformance runners of methods have in common: raw samples, texts as bytes, recorded draws, learning rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torchvision import tv_tensors

from vgbench.types import Sample

__all__ = ["decode_bytes", "epoch_rates", "raw_sample", "text_rows", "training_samples", "under_prefix"]


def raw_sample(image: Tensor, boxes: Tensor, text: str, masks: Tensor | None = None) -> Sample:
    """An untransformed sample on the CPU, where transforms run.

    Args:
        image: [h, w, 3] uint8.
        boxes: [n, 4] xyxy in pixels of it.
        text: the expression.
        masks: [n, h, w] uint8, or None.
    """
    pixels = image.cpu().permute(2, 0, 1).contiguous()
    size = (pixels.shape[-2], pixels.shape[-1])
    targets = tv_tensors.BoundingBoxes(boxes.cpu().float(), format="XYXY", canvas_size=size)  # type: ignore[call-overload]
    sample: Sample = {"image": tv_tensors.Image(pixels), "boxes": targets, "text": text, "key": ""}
    if masks is not None:
        sample["masks"] = tv_tensors.Mask(masks.cpu())
    return sample


def decode_bytes(values: Tensor) -> str:
    """A text stored as uint8 [bytes] (a vocabulary file)."""
    return bytes(values.tolist()).decode()


def text_rows(texts: Sequence[str]) -> Tensor:
    """Texts as zero-padded UTF-8, uint8 [n, longest]; the inverse of :meth:`vgbench.conform.case.Case.text`."""
    rows = [torch.tensor(list(text.encode()), dtype=torch.uint8) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def under_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name begins with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def training_samples(inputs: Mapping[str, Tensor]) -> list[str]:
    """Prefixes ``train.0.``, ``train.1.``, ... of the training samples of a preprocess case."""
    return [f"train.{number}." for number in range(sum(name.endswith(".image_index") for name in inputs))]


def epoch_rates(factor: Callable[[int, int, int], float], rate: float, epochs: int, steps: int = 1) -> Tensor:
    """Learning rate at the first step of every epoch, [epochs].

    Args:
        factor: a schedule, (epoch from 0, step, steps per epoch) -> factor.
        rate: what it is multiplied with.
        epochs: number of epochs.
        steps: steps per epoch.
    """
    return torch.tensor([rate * factor(epoch, 0, steps) for epoch in range(epochs)])
