"""What a method costs: memory, activations, FLOPs."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vgbench.method import GroundingMethod
from vgbench.types import Batch


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
