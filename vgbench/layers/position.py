"""Fixed position codes of the DETR family."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_position_2d(pad: Tensor, channels: int, temperature: float = 10000.0) -> Tensor:
    """DETR's 2-D sine code: y channels first, then x, each with sine (even) and cosine (odd) interleaved.

    A cell's coordinate is the number of valid cells up to and including it along the axis, divided by the last count
    of its column or row (+ 1e-6), times 2 pi.

    Args:
        pad: [B, h, w] bool, True = padding.
        channels: width of the code, a multiple of 4.
        temperature: the longest wavelength is 2 pi times this.

    Returns:
        [B, channels, h, w] float32.

    Source: Carion et al., ECCV 2020; detrex.
    """
    valid = (~pad).float()
    half = channels // 2
    index = torch.arange(half, device=pad.device)
    wavelength = temperature ** (2 * torch.div(index, 2, rounding_mode="floor").float() / half)
    codes = []
    for axis in (1, 2):
        count = valid.cumsum(axis)
        last = count.narrow(axis, count.shape[axis] - 1, 1)
        angle = (count / (last + 1e-6) * (2 * math.pi))[..., None] / wavelength
        codes.append(torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], dim=-1).flatten(-2))
    return torch.cat(codes, dim=-1).permute(0, 3, 1, 2)
