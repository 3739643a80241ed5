"""Measuring: memory, FLOPs, made-up batches of the right shapes."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import tv_tensors

from vgbench.method import GroundingMethod
from vgbench.types import Batch, Sample


def peak_memory() -> int:
    """Bytes: the most that was allocated on the GPU if there is one, else the process's largest resident set."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def saved_bytes(module: nn.Module, work: Callable[[], Any]) -> int:
    """Activation memory of a training step: bytes kept from ``work()``'s forward pass for its backward pass.

    Independent of device and allocator: what a step needs beyond weights, gradients and optimiser state, apart from
    short-lived buffers. Every storage counts once, parameters of ``module`` do not.
    """
    known = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: list[torch.Tensor] = []  # alive meanwhile, or their addresses could be used again

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            known.add(tensor.untyped_storage().data_ptr())
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept)


@contextmanager
def only(method: GroundingMethod, *sets: str) -> Iterator[None]:
    """Meanwhile ``predict`` gives these prediction sets alone, and runs only what they need."""
    whole = method.prediction_sets
    method.prediction_sets = sets  # type: ignore[misc]
    try:
        yield
    finally:
        method.prediction_sets = whole  # type: ignore[misc]


def synthetic_sample(method: GroundingMethod, size: tuple[int, int] = (480, 640), seed: int = 0) -> Sample:
    """A random image with one box in the middle (and its mask, if the method reads masks), not yet transformed."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    coarse = torch.rand(1, 3, max(2, height // 16), max(2, width // 16), generator=generator)
    image = (torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")[0] * 255).to(torch.uint8)
    box = torch.tensor([[width * 0.25, height * 0.25, width * 0.7, height * 0.75]])
    sample: Sample = {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes(box, format="XYXY", canvas_size=size),  # type: ignore[call-overload]
        "text": "",
        "key": str(seed),
    }
    if method.wants_masks:
        mask = torch.zeros(1, height, width, dtype=torch.uint8)
        mask[:, height // 4 : height * 3 // 4, width // 4 : width * 7 // 10] = 1
        sample["masks"] = tv_tensors.Mask(mask)
    if method.extra_inputs:
        sample["extra"] = {name: torch.randn(shape, generator=generator) for name, shape in method.extra_inputs.items()}
    return sample


def synthetic_batch(method: GroundingMethod, size: int, image: tuple[int, int] = (480, 640)) -> Batch:
    """A batch with the shapes of real ones and random word ids: no tokenizer file is needed.

    Half of the text positions are padding.
    """
    from vgbench.loader import collate

    length, vocabulary = method.text_shape
    generator = torch.Generator().manual_seed(0)

    def tokenize(texts: Any) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.randint(min(4, vocabulary - 1), vocabulary, (len(texts), length), generator=generator)
        pad = (torch.arange(length) >= (length + 1) // 2).expand(len(texts), length).clone()
        ids[pad] = method.pad_id
        return ids, pad

    transform = method.eval_transform()
    batch = collate([transform(synthetic_sample(method, image, seed)) for seed in range(size)], tokenize)
    assert batch is not None
    return batch


def forward_flops(method: GroundingMethod, batch: Batch) -> float:
    """FLOPs of ``predict`` per sample (a multiply-add counts as two), as torch's counter sees them."""
    method.eval()
    # torch's counter wants a grad_fn of every module input that requires a gradient; a view of a parameter that is
    # taken without gradients requires one and has none
    wanted = method.requires_grad_at_inference
    parameters = [] if wanted else [parameter for parameter in method.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(wanted):
            method.predict(batch)
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
    return counter.get_total_flops() / len(batch)
