"""The optimiser of the official recipe, MindSpore's AdamWeightDecay, and the schedule that its scripts ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["AdamWeightDecay", "WarmupStep"]


class AdamWeightDecay(torch.optim.Optimizer):
    """Adam with decoupled weight decay and without bias correction.

    ``m <- beta1 m + (1 - beta1) g``, ``v <- beta2 v + (1 - beta2) g^2``,
    ``theta <- theta - lr (m / (sqrt(v) + eps) + weight_decay theta)``. Without the correction the first step has
    length ``lr (1 - beta1) / sqrt(1 - beta2)`` per element, 3.16 lr at the defaults. The decay acts on every parameter
    that has a gradient, norms and biases included.

    Source: MindSpore ``nn.AdamWeightDecay``, the optimiser of dcdcvgroup/vglaw-mindspore.

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        weight_decay: decoupled decay, multiplied with the learning rate.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), not {tuple(betas)}")
        if eps <= 0:
            raise ValueError(f"eps must be positive, not {eps}")
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update of all parameters that have a gradient; returns what ``closure`` (called first) returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
                    self.state[parameter]["exp_avg_sq"] = torch.zeros_like(parameter)
            gradients = [parameter.grad for parameter in parameters]
            first = [self.state[parameter]["exp_avg"] for parameter in parameters]
            second = [self.state[parameter]["exp_avg_sq"] for parameter in parameters]
            beta1, beta2 = group["betas"]
            torch._foreach_lerp_(first, gradients, 1 - beta1)
            torch._foreach_mul_(second, beta2)
            torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
            update = torch._foreach_sqrt(second)
            torch._foreach_add_(update, group["eps"])
            torch._foreach_reciprocal_(update)
            torch._foreach_mul_(update, first)
            if group["weight_decay"]:
                torch._foreach_add_(update, parameters, alpha=group["weight_decay"])
            torch._foreach_mul_(update, group["lr"])
            torch._foreach_sub_(parameters, update)
        return loss


@dataclass(frozen=True)
class WarmupStep:
    """Linear warm-up over optimiser steps, then a step: the schedule that the official scripts ask for.

    The official code computes it and never hands it to the optimiser. Its warm-up is counted in micro-batches (8000,
    64 of which make one optimiser step), hence 125 here.

    Args:
        drop_epoch: number of epochs at the full rate (warm-up included); None: never dropped.
        gamma: factor from then on.
        warmup_steps: optimiser steps of the warm-up.
        warmup_start: factor at its first step.
    """

    drop_epoch: int | None = 10
    gamma: float = 0.1
    warmup_steps: int = 125
    warmup_start: float = 0.01

    def __call__(self, epoch: int, step: int, steps_per_epoch: int) -> float:
        factor = self.gamma if self.drop_epoch is not None and epoch >= self.drop_epoch else 1.0
        done = epoch * steps_per_epoch + step
        if done < self.warmup_steps:
            factor *= self.warmup_start + (1 - self.warmup_start) * done / self.warmup_steps
        return factor
