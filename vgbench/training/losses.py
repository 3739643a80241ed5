"""Losses and weights that are not finite: the training ends there, with the checkpoint before it named."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vgbench.core.errors import UserError
from vgbench.training.checkpoints import FOLDER


@dataclass(frozen=True)
class _Step:
    epoch: int
    step: int
    terms: Mapping[str, Tensor]
    total: Tensor
    copied: torch.cuda.Event | None


class LossWatch:
    """Looks at the total loss of every step.

    On the CPU at once, before its gradient is taken. On a GPU the value is copied without waiting for it and looked at
    in one of the next steps, always before anything is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._steps: deque[_Step] = deque()

    def add(self, losses: Mapping[str, Tensor], epoch: int, step: int) -> None:
        """
        Raises:
            UserError: if this loss or an earlier one is not finite.
        """
        terms = {name: value.detach() for name, value in losses.items()}
        total, copied = terms["total"], None
        if total.is_cuda:
            host = torch.empty(total.shape, dtype=total.dtype, pin_memory=True)
            host.copy_(total, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
            total = host
        self._steps.append(_Step(epoch, step, terms, total, copied))
        self.check(wait=False)

    def check(self, wait: bool = True) -> None:
        """
        Raises:
            UserError: if a loss so far is not finite; ``wait``: also if it still has to be computed.
        """
        while self._steps:
            first = self._steps[0]
            if first.copied is not None:
                if not wait and not first.copied.query():
                    return
                first.copied.synchronize()
            self._steps.popleft()
            if not math.isfinite(float(first.total)):
                bad = [name for name, value in first.terms.items() if not bool(torch.isfinite(value).all())]
                terms = ", ".join(name for name in bad if name != "total") or "total"
                self._end(f"the loss is not finite at epoch {first.epoch}, step {first.step} ({terms})")

    def check_weights(self, parameters: Iterable[nn.Parameter], epoch: int, step: int) -> None:
        """
        Raises:
            UserError: if a loss or a parameter is not finite.
        """
        self.check()
        flags = [torch.isfinite(parameter.detach()).all() for parameter in parameters if parameter.numel()]
        if flags and not bool(torch.stack(flags).all()):
            self._end(f"the loss of epoch {epoch} led to weights that are not finite before step {step}")

    def _end(self, problem: str) -> None:
        files = sorted((self.folder / FOLDER).glob("*.ckpt"), key=lambda path: path.lstat().st_mtime)
        last = f"last good checkpoint: {files[-1]}" if files else "no checkpoint was saved before"
        raise UserError(f"{problem}; {last}; lower recipe.lr, set recipe.clip_norm or take trainer.precision=32-true")
