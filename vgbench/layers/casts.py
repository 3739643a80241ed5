"""Weights of repeated blocks in the precision of a mixed-precision step, cast once per step and block.

Autocast casts weight by weight, a kernel each and another for the gradient: several hundred launches per step, which
is what a GPU waits for where batches are small, and in compiled blocks anew with every call of a block. Here one kernel
casts all weights of a block, and one their gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vgbench.layers.blocks import BlockCall

__all__ = ["cast_weights_once", "one_cast_per_step", "step_weights"]

Casts = dict[tuple[nn.Module, bool], list[Tensor]]

_casts: list[Casts] = []  # of the step that is running; empty: there is none, and autocast casts


def cast_weights_once(blocks: Iterable[nn.Module]) -> int:
    """Make each block use weights that are cast together, inside of :func:`one_cast_per_step`, where autocast is on.

    The weights are those of its linear layers (what autocast casts of them). In place; to be called after the blocks
    were compiled. The parameters themselves stay what optimisers, state dicts and hooks see. Numbers are those of
    autocast to the bit: gradients of several calls of a block are added in the lower precision, as autocast's cache
    has it. Where parts of a block are called apart, :func:`step_weights` gives them the same weights. Returns the
    number of blocks.
    """
    count = 0
    for block in blocks:
        _WithCasts(block).take_over()
        count += 1
    return count


@contextlib.contextmanager
def one_cast_per_step() -> Iterator[None]:
    """Around the forward pass of one training step: what is cast for it is not used again in the next."""
    _casts.append({})
    try:
        yield
    finally:
        _casts.pop()


def step_weights(block: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Around calls of parts of a block that :func:`cast_weights_once` may have been told of: the weights that the block
    itself would use in this step."""
    call = block._compiled_call_impl or vars(block).get("forward")
    return call.weights() if isinstance(call, _WithCasts) else contextlib.nullcontext()


class _WithCasts(BlockCall):
    """Runs on weights of the running step; ``places`` are where the block has them."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block)
        self.places: list[tuple[nn.Module, str]] = [
            (module, name)
            for module in block.modules()
            if type(module) is nn.Linear
            for name, value in module.named_parameters(recurse=False)
            if value.dtype == torch.float32
        ]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        with self.weights():
            return self.forward(*arguments, **options)

    @contextlib.contextmanager
    def weights(self) -> Iterator[None]:
        """The block has this step's weights inside; its parameters where nothing is cast."""
        weights = [module._parameters[name] for module, name in self.places] if _casts else []
        if not weights or not torch.is_autocast_enabled(weights[0].device.type):  # type: ignore[union-attr]
            yield
            return
        key = (self.block, torch.is_grad_enabled())
        if key not in _casts[-1]:
            dtype = torch.get_autocast_dtype(weights[0].device.type)  # type: ignore[union-attr]
            _casts[-1][key] = _cast(weights, dtype)  # type: ignore[arg-type]
        self._place(_casts[-1][key])
        try:
            yield
        finally:
            self._place(weights)

    def _place(self, weights: Sequence[Tensor | None]) -> None:
        for (module, name), weight in zip(self.places, weights, strict=True):
            module._parameters[name] = weight  # type: ignore[assignment]


def _cast(weights: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Copies in ``dtype``, through which gradients reach those weights that are trained."""
    trained = [weight for weight in weights if weight.requires_grad]
    rest = [weight for weight in weights if not weight.requires_grad]
    copies = {id(weight): copy for weight, copy in zip(rest, _copies(rest, dtype), strict=True)}
    if trained:
        copies |= {id(weight): copy for weight, copy in zip(trained, _Cast.apply(dtype, *trained), strict=True)}
    return [copies[id(weight)] for weight in weights]


def _copies(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    if copies:
        with torch.no_grad():
            torch._foreach_copy_(copies, list(tensors))
    return copies


class _Cast(torch.autograd.Function):
    """Float32 weights -> copies in a lower precision; gradients in that precision -> float32."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)  # a weight without gradient stays without
        return tuple(_copies(weights, dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        wide = iter(_copies([gradient for gradient in gradients if gradient is not None], torch.float32))
        return None, *(None if gradient is None else next(wide) for gradient in gradients)
