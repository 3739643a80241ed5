"""LayerNorm of a GELU, in one pass over the activations on a GPU."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["norm_of_gelu"]

HAS_TRITON = find_spec("triton") is not None


def norm_of_gelu(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """``norm(gelu(x))``, as a Transformer with a norm inside its feed-forward part needs it (Magneto, BEiT-3).

    Half-precision activations on a GPU go through one kernel of our own each way. What a compiler makes of the two
    operations computes the error function of every element two to three times (an inner width of 3,072 does not fit
    its single-pass form): 0.76 ms forward and 1.4 ms backward for [128 x 401, 3072] on an H200.

    Args:
        x: [..., F].
        norm: over the last dimension.

    Returns:
        [..., F]; float32 under autocast elsewhere, of x's type out of the kernel: the next product casts to it anyway.
    """
    if x.is_cuda and x.dtype in (torch.bfloat16, torch.float16) and _kernel_runs():
        return norm_of_gelu_in_one(x, norm.weight, norm.bias, norm.eps)[0]
    return norm(F.gelu(x))


@torch.compiler.assume_constant_result
def _kernel_runs() -> bool:
    """Triton makes kernels for this card."""
    return HAS_TRITON and torch.cuda.get_device_capability() >= (8, 0)


@torch.library.custom_op("vgbench::norm_of_gelu", mutates_args=())
def norm_of_gelu_in_one(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The norm [..., F] in x's type; mean and reciprocal deviation of gelu(x) per row, float32, for the gradient."""
    from vgbench.layers import gelu_norm_kernel

    return gelu_norm_kernel.forward(x, weight, bias, eps)


@norm_of_gelu_in_one.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    rows = x.shape[:-1].numel()
    result = torch.empty_like(x, memory_format=torch.contiguous_format)
    return result, x.new_empty(rows, dtype=torch.float32), x.new_empty(rows, dtype=torch.float32)


@torch.library.custom_op("vgbench::norm_of_gelu_backward", mutates_args=())
def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; the latter two float32."""
    from vgbench.layers import gelu_norm_kernel

    return gelu_norm_kernel.backward(gradient, x, weight, mean, scale)


@_gradients.register_fake
def _(gradient: Tensor, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    vector = x.new_empty(x.shape[-1], dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.contiguous_format), vector, torch.empty_like(vector)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight = inputs[:2]
    ctx.save_for_backward(x, weight, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    x, weight, mean, scale = ctx.saved_tensors
    of_x, of_weight, of_bias = _gradients(gradient, x, weight, mean, scale)
    return of_x, of_weight.to(weight.dtype), of_bias.to(weight.dtype), None


norm_of_gelu_in_one.register_autograd(_backward, setup_context=_keep)
