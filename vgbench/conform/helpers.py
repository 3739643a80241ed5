"""What conformance runners of methods have in common: raw samples, texts as bytes, recorded draws, learning rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision import tv_tensors

from vgbench.checkpoints.names import KeyEntry, export_mapped
from vgbench.conform.compare import REACH, tolerances_of
from vgbench.types import Sample

__all__ = ["StepReach", "decode_bytes", "epoch_rates", "raw_sample", "text_rows", "training_samples", "under_prefix"]


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


class StepReach:
    """How far an optimiser of Adam's kind can have carried each parameter where its gradient was rounding only.

    Args:
        parameters: the model's parameters by name.
        device: where the case runs; it says which gradients are rounding (see ``vgbench.conform.compare``).
        growth: largest step of the optimiser in units of the learning rate (Adam: 1).
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], device: str, growth: float = 1.0) -> None:
        self.parameters = dict(parameters)
        self.noise = tolerances_of(device).gradient_noise
        self.growth = growth
        self.reach = {name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def add(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the step into account that is about to be made: between the backward pass and it."""
        gradients = {name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        limit = self.noise * torch.stack([gradient.abs().max() for gradient in gradients.values()]).max()
        rates = {id(p): float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}
        for name, gradient in gradients.items():
            # Twice: ours may have gone one way and the official one the other.
            step = 2 * self.growth * rates.get(id(self.parameters[name]), 0.0)
            self.reach[name] += step * (gradient.abs() <= limit)

    def tensors(self, prefix: str, entries: Sequence[KeyEntry] | None = None) -> dict[str, Tensor]:
        """For the result of a runner: reach by the names of the expected tensors, ``prefix`` + official name."""
        reach = self.reach if entries is None else export_mapped(self.reach, entries)
        return {f"{REACH}{prefix}{name}": value for name, value in reach.items()}
