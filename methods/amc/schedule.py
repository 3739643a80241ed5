"""AMC's learning rate: warm-up in steps of iterations inside the first epoch, then a cosine by epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class SteppedWarmupCosine:
    """Factor on the base rate as a pure function of progress (``configs/Pretrain.yaml`` of AMC and ALBEF).

    In epoch 0 the factor starts at ``warmup`` and rises by ``(1 - warmup) / warmup_steps`` after the optimiser step of
    every ``interval``-th iteration, ``warmup_steps`` times at most. Epoch e >= 1 runs at
    ``final + (1 - final) (1 + cos(pi e / epochs)) / 2``, however far the warm-up came.

    Args:
        epochs: length of the cosine.
        warmup: first factor.
        final: factor that the cosine tends to.
        warmup_steps: rises of the warm-up.
        interval: iterations per rise.
    """

    epochs: int
    warmup: float = 0.1
    final: float = 0.1
    warmup_steps: int = 20
    interval: int = 100

    def __call__(self, epoch: int, step: int, steps_per_epoch: int) -> float:
        if epoch > 0:
            return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        rises = min(max(0, step - 1) // self.interval, self.warmup_steps)
        return self.warmup + rises * (1 - self.warmup) / self.warmup_steps
