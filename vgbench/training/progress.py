"""What is seen of a run while it works: a bar on a terminal, a line every half minute in a log."""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, RichProgressBar

from vgbench.core.console import Pace
from vgbench.training.logs import say
from vgbench.training.module import GroundingModule
from vgbench.types import Batch

LOSSES = 4  # of the losses that a method logs, so many stand in a line


def progress() -> Callback:
    """The bar where it is drawn, on a terminal as standard output; else the lines (into a file, through ``tee``)."""
    draws = sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return Bar() if draws else LogLines()


def evaluated(module: L.LightningModule) -> str:
    """Which predictions are being made: "val", or "val, shuffled-text" for a control."""
    assert isinstance(module, GroundingModule)
    evaluation = module.evaluation
    place = evaluation.folder.name
    return evaluation.split if place in ("predictions", "validation") else f"{evaluation.split}, {place}"


class Bar(RichProgressBar):
    """Lightning's bar with epochs counted from 1 and the name of the split that is evaluated."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=5, leave=False)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        return dict(items)

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"

    @property
    def validation_description(self) -> str:
        return "validation"

    @property
    def test_description(self) -> str:
        return evaluated(self.trainer.lightning_module)


class LogLines(Callback):
    """A line every half minute: epoch, step, losses, samples per second and the time that is left of the training; in
    evaluations the split and the batches."""

    def __init__(self) -> None:
        self.pace = Pace()
        self._samples, self._since = 0, time.perf_counter()
        self._steps, self._started = 0, time.perf_counter()

    def _restart(self) -> None:
        self._samples, self._since = 0, time.perf_counter()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._steps, self._started = 0, time.perf_counter()
        self._restart()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()  # its seconds are none of the training's rate

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._samples += len(batch) * trainer.world_size
        self._steps += 1
        if not self.pace.due():
            return
        now = time.perf_counter()
        batches, epochs = int(trainer.num_training_batches), trainer.max_epochs or 1
        done = trainer.current_epoch * batches + batch_idx + 1
        left = (now - self._started) / self._steps * max(batches * epochs - done, 0)
        parts = [
            f"epoch {trainer.current_epoch + 1}/{epochs}, step {batch_idx + 1}/{batches}",
            *_losses(trainer),
            f"{self._samples / (now - self._since):.3g} samples/s",
            f"{timedelta(seconds=round(left))} left",
        ]
        say(", ".join(parts))
        self._restart()

    def _line(self, what: str, number: int, total: Any) -> None:
        if self.pace.due():
            say(f"{what}: batch {number + 1} of {int(total)}")

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        self._line("validation", batch_idx, sum(trainer.num_val_batches))

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        self._line(f"evaluation on {evaluated(pl_module)}", batch_idx, sum(trainer.num_test_batches))


def _losses(trainer: L.Trainer) -> list[str]:
    """The losses that were logged last, the total and the largest; none before the first time."""
    values = {
        name.removeprefix("train/"): float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("train/")
    }
    order = sorted(values, key=lambda name: (name != "total", -abs(values[name])))[:LOSSES]
    return [f"{name if name != 'total' else 'loss'} {values[name]:.4g}" for name in order]
