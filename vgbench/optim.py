"""Optimisation as the official recipes define it: parameter groups, schedules as pure functions, clipping, EMA.

A recipe (``recipe`` in the configuration) has ``lr``, ``optimizer`` (a class and its arguments), ``schedule``,
``clip_norm``. The conformance cases ``*-steps`` run these same functions.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Schedule(Protocol):
    """Learning-rate factor as a pure function of progress, so that a resumed run needs no state."""

    def __call__(self, epoch: int, step: int, steps_per_epoch: int) -> float:
        """Factor on every group's base rate for the optimiser step ``step`` (within ``epoch``), both from 0."""
        ...


@dataclass(frozen=True)
class WarmupMultiStep:
    """Per-epoch linear warm-up, then a factor ``gamma`` for every milestone reached (epochs counted from 1).

    Epoch e = 1, 2, ...: ``e / (warmup_epochs + 1)`` while e <= warmup_epochs, else ``gamma ** #{m : e >= m}``
    (ALVG, SimVG; with ``warmup_epochs=0`` a plain step schedule).
    """

    milestones: Sequence[int] = ()
    warmup_epochs: int = 0
    gamma: float = 0.1

    def __call__(self, epoch: int, step: int, steps_per_epoch: int) -> float:
        number = epoch + 1
        if number <= self.warmup_epochs:
            return number / (self.warmup_epochs + 1)
        return self.gamma ** sum(number >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up over ``warmup_steps`` steps, then a half cosine down to ``final`` at the end of ``epochs``."""

    epochs: int
    warmup_steps: int = 0
    final: float = 0.0

    def __call__(self, epoch: int, step: int, steps_per_epoch: int) -> float:
        done = epoch * steps_per_epoch + step
        if done < self.warmup_steps:
            return (done + 1) / (self.warmup_steps + 1)
        total = max(1, self.epochs * steps_per_epoch - self.warmup_steps)
        progress = min(1.0, (done - self.warmup_steps) / total)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


class FusedAdam(torch.optim.Adam):
    """Adam in one pass over the parameters (on CPU several times faster), with clipping under mixed precision.

    A fused optimiser would undo the loss scaling inside its step and therefore refuses gradient clipping; here the
    scaler does it before, as for any other optimiser.
    """

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, fused=True, **options)
        self._step_supports_amp_scaling = False


def build_optimizer(
    groups: Sequence[Mapping[str, Any]], factory: Callable[..., torch.optim.Optimizer]
) -> torch.optim.Optimizer:
    """An optimiser over named groups; each group remembers its base rate as ``initial_lr``.

    On CUDA an optimiser that has a fused form runs in it, unless ``factory`` sets ``fused`` or ``foreach`` itself.
    """
    groups = [{**group, "params": list(group["params"])} for group in groups]
    fused = _can_fuse(factory, [parameter for group in groups for parameter in group["params"]])
    optimizer = factory(groups, fused=True) if fused else factory(groups)
    if fused:  # see FusedAdam
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def _can_fuse(factory: Callable[..., torch.optim.Optimizer], parameters: Sequence[Tensor]) -> bool:
    if not all(parameter.is_cuda and parameter.is_floating_point() for parameter in parameters):
        return False
    options = inspect.signature(factory).parameters
    return "fused" in options and options["fused"].default is None and options["foreach"].default is None


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to ``initial_lr * factor``."""
    for group in optimizer.param_groups:
        rate = group["initial_lr"] * factor
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float) -> Tensor:
    """Scale all gradients together by ``max_norm / (norm + 1e-6)`` if that is below 1; returns the norm before."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return torch.nn.utils.clip_grad_norm_(parameters, max_norm)


def ema_update(average: Sequence[Tensor], current: Sequence[Tensor], updates: int, max_decay: float) -> None:
    """Exponential moving average in place, decay ``min(max_decay, (s + 1) / (s + 10))`` after ``s`` earlier updates.

    Source: SimVG's training loop; parameters and buffers alike (integer buffers are copied).
    """
    decay = min(max_decay, (updates + 1) / (updates + 10))
    pairs = list(zip(average, current, strict=True))
    for kind in {type(mean) for mean in average}:  # sharded parameters do not mix with whole buffers
        moving = [pair for pair in pairs if type(pair[0]) is kind and pair[0].is_floating_point()]
        if moving:
            means, values = zip(*((mean, value.to(mean.dtype)) for mean, value in moving), strict=True)
            torch._foreach_lerp_(list(means), list(values), 1 - decay)
    for mean, value in pairs:
        if not mean.is_floating_point():
            mean.copy_(value)
