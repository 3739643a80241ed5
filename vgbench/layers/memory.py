"""Activation memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["saved_bytes"]


def saved_bytes(module: nn.Module, work: Callable[[], Any]) -> int:
    """Activation memory of a training step: bytes kept from ``work()``'s forward pass for its backward pass.

    Independent of device and allocator: what a step needs beyond weights, gradients and optimiser state, apart from
    short-lived buffers. Every storage counts once, parameters of ``module`` do not.
    """
    parameter_storages = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    saved_tensors: list[torch.Tensor] = []  # alive meanwhile, or their addresses could be used again

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in parameter_storages:
            parameter_storages.add(tensor.untyped_storage().data_ptr())
            saved_tensors.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work()
    return sum(tensor.untyped_storage().nbytes() for tensor in saved_tensors)
