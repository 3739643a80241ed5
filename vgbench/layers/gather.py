"""Gathering along the last dimension, for compiled blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["gather_last"]


@torch.library.custom_op("vgbench::gather_last", mutates_args=())
def gather_last(values: Tensor, index: Tensor) -> Tensor:
    """``values.gather(-1, index)`` as one opaque operation.

    Compiled into its neighbours, the backward pass becomes one loop of atomic additions in float32 memory order, which
    took 18 ms where the library's own scatter takes 1.5 (H200, [64, 8, 400, 41] from an index [1, 1, 400, 400]).

    Args:
        values: [..., n].
        index: int64, expandable to [..., m], in [0, n).

    Returns:
        [..., m].
    """
    return values.gather(-1, index.expand(*values.shape[:-1], index.shape[-1]))


@gather_last.register_fake
def _(values: Tensor, index: Tensor) -> Tensor:
    return values.new_empty(*values.shape[:-1], index.shape[-1])


@torch.library.custom_op("vgbench::scatter_last", mutates_args=())
def _scatter_last(gradient: Tensor, index: Tensor, length: int) -> Tensor:
    """The gradient of :func:`gather_last` with respect to its values, [..., length]."""
    summed = gradient.new_zeros(*gradient.shape[:-1], length)
    return summed.scatter_add_(-1, index.expand(gradient.shape), gradient)


@_scatter_last.register_fake
def _(gradient: Tensor, index: Tensor, length: int) -> Tensor:
    return gradient.new_empty(*gradient.shape[:-1], length)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    values, index = inputs
    ctx.save_for_backward(index)
    ctx.length = values.shape[-1]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    (index,) = ctx.saved_tensors
    return _scatter_last(gradient, index, ctx.length), None


gather_last.register_autograd(_backward, setup_context=_keep)
