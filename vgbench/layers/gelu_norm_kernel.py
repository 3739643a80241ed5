"""The kernels of :mod:`vgbench.layers.gelu_norm`, in Triton; imported where they run."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Measured on an H200, whose multiprocessors are 132, for [51328, 3072] in bf16: 0.30 and 0.52 ms, a copy takes 0.15.
WARPS = 4
PROGRAMS, BACKWARD_PROGRAMS = 1056, 264  # each takes every PROGRAMS-th row


@triton.jit
def _gelu_parts(x):
    """Phi(x), the distribution function of the normal distribution, and ``exp(-x^2 / 2)``, of float32 x.

    The upper tail is a polynomial times that exponential (Abramowitz and Stegun, Handbook of Mathematical Functions,
    7.1.26: |error| < 0.75e-7), so that the derivative of the GELU costs no second exponential.
    """
    e = tl.exp2(x * x * -0.72134752044448170)  # log2(e) / 2
    t = 1.0 / (1.0 + 0.23164190 * tl.abs(x))  # 0.3275911 / sqrt(2)
    series = t * (0.127414796 + t * (-0.142248368 + t * (0.710706871 + t * (-0.726576014 + t * 0.530702715))))
    tail = series * e
    return tl.where(x > 0, 1.0 - tail, tail), e


@triton.jit
def _forward_kernel(x_ptr, weight_ptr, bias_ptr, y_ptr, mean_ptr, scale_ptr, rows, width, eps, BLOCK: tl.constexpr):
    column = tl.arange(0, BLOCK)
    inside = column < width
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + column, mask=inside, other=0.0).to(tl.float32)
    first = tl.program_id(0)
    step = tl.num_programs(0)
    place = first.to(tl.int64) * width + column
    far = step.to(tl.int64) * width
    following = tl.load(x_ptr + place, mask=inside, other=0.0)
    for row in range(first, rows, step):
        x = following.to(tl.float32)
        # the next row is on its way while this one is computed
        following = tl.load(x_ptr + place + far, mask=inside & (row + step < rows), other=0.0)
        phi, _ = _gelu_parts(x)
        value = x * phi
        mean = tl.sum(value, 0) / width
        centred = tl.where(inside, value - mean, 0.0)
        scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / width + eps)
        y = centred * scale * weight + bias
        tl.store(y_ptr + place, y.to(y_ptr.dtype.element_ty), mask=inside)
        tl.store(mean_ptr + row, mean)
        tl.store(scale_ptr + row, scale)
        place += far


@triton.jit
def _backward_kernel(
    gradient_ptr, x_ptr, weight_ptr, mean_ptr, scale_ptr, of_x_ptr, of_weight_ptr, of_bias_ptr, rows, width,
    BLOCK: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BLOCK)
    inside = column < width
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    of_weight = tl.zeros([BLOCK], tl.float32)
    of_bias = tl.zeros([BLOCK], tl.float32)
    first = tl.program_id(0)
    step = tl.num_programs(0)
    place = first.to(tl.int64) * width + column
    far = step.to(tl.int64) * width
    next_x = tl.load(x_ptr + place, mask=inside, other=0.0)
    next_gradient = tl.load(gradient_ptr + place, mask=inside, other=0.0)
    for row in range(first, rows, step):
        x, gradient = next_x.to(tl.float32), next_gradient.to(tl.float32)
        there = inside & (row + step < rows)
        next_x = tl.load(x_ptr + place + far, mask=there, other=0.0)
        next_gradient = tl.load(gradient_ptr + place + far, mask=there, other=0.0)
        mean, scale = tl.load(mean_ptr + row), tl.load(scale_ptr + row)
        phi, e = _gelu_parts(x)
        slope = phi + x * e * 0.3989422804014327  # 1 / sqrt(2 pi)
        normal = tl.where(inside, (x * phi - mean) * scale, 0.0)
        of_weight += gradient * normal
        of_bias += gradient
        weighted = gradient * weight
        along = tl.sum(weighted * normal, 0) / width
        average = tl.sum(weighted, 0) / width
        of_x = (weighted - average - normal * along) * scale * slope
        tl.store(of_x_ptr + place, of_x.to(of_x_ptr.dtype.element_ty), mask=inside)
        place += far
    tl.store(of_weight_ptr + first * width + column, of_weight, mask=inside)
    tl.store(of_bias_ptr + first * width + column, of_bias, mask=inside)


def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`vgbench.layers.gelu_norm.norm_of_gelu_in_one`."""
    x = x.contiguous()
    width = x.shape[-1]
    rows = x.numel() // width
    y = torch.empty_like(x)
    mean, scale = (x.new_empty(rows, dtype=torch.float32) for _ in range(2))
    block = triton.next_power_of_2(width)
    grid = (min(rows, PROGRAMS),)
    _forward_kernel[grid](x, weight, bias, y, mean, scale, rows, width, eps, BLOCK=block, num_warps=WARPS)
    return y, mean, scale


def backward(gradient: Tensor, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    x, gradient = x.contiguous(), gradient.contiguous()
    width = x.shape[-1]
    rows = x.numel() // width
    of_x = torch.empty_like(x)
    programs = min(rows, BACKWARD_PROGRAMS)
    of_weight, of_bias = (x.new_empty(programs, width, dtype=torch.float32) for _ in range(2))
    block = triton.next_power_of_2(width)
    _backward_kernel[(programs,)](
        gradient, x, weight, mean, scale, of_x, of_weight, of_bias, rows, width, BLOCK=block, num_warps=WARPS
    )
    return of_x, of_weight.sum(0), of_bias.sum(0)
