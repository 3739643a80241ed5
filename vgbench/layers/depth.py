"""Stochastic depth: residual branches that are dropped at random while training (Huang et al., ECCV 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["branch_scales", "drop_path_rates"]


def drop_path_rates(last: float, layers: int) -> list[float]:
    """Rate per layer: 0 for the first, ``last`` for the last, linear between."""
    return [last * i / (layers - 1) if layers > 1 else 0.0 for i in range(layers)]


def branch_scales(keep: Tensor, branches: int, batch: int) -> Tensor:
    """Factors of all residual branches of a stack of layers, drawn at once.

    Args:
        keep: [layers], probability that a branch of a layer is kept.
        branches: residual branches per layer.
        batch: number of samples B.

    Returns:
        [layers, branches, B, 1, 1]: 0 for samples whose branch is dropped, 1 / keep probability for the others.
    """
    keep = keep[:, None, None, None, None].expand(-1, branches, batch, 1, 1)
    return torch.bernoulli(keep) / keep
