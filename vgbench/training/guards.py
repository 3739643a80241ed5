"""Callbacks that end or save a training at the right moment: signals, checkpoints within an epoch."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from vgbench.core.stop import StopRequest, current_request
from vgbench.training.checkpoints import FOLDER, STEP_FILE, CheckpointFiles

__all__ = ["StepCheckpoint", "StopAtStep"]


class StepCheckpoint(ModelCheckpoint):
    """A checkpoint every so many steps, but none between the last batch of an epoch and its validation.

    A run that went on from there would not do that validation: Lightning counts the epoch as done.
    """

    def on_train_batch_end(self, trainer: L.Trainer, *arguments: Any, **options: Any) -> None:
        if not _before_validation(trainer):
            super().on_train_batch_end(trainer, *arguments, **options)


def _before_validation(trainer: L.Trainer) -> bool:
    return trainer.is_last_batch and bool(trainer.limit_val_batches)


class StopAtStep(Callback):
    """Saves and ends a training that is told to stop at the end of the step at hand, on all processes the same one.

    In validations and tests a signal ends the run at once: there is nothing to save that is not saved already.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FOLDER / STEP_FILE
        self.request: StopRequest = current_request()

    def _listen(self, trainer: L.Trainer) -> None:
        """Take SIGTERM back from Lightning, whose handler ends a run without saving; SLURM's requeueing keeps it."""
        environment = trainer._accelerator_connector.cluster_environment
        if self.request.listens and not (isinstance(environment, SLURMEnvironment) and environment.auto_requeue):
            signal.signal(signal.SIGTERM, self.request.handle)

    def _asked(self, trainer: L.Trainer) -> bool:
        """Whether any process was told to stop; asked on all of them."""
        if not self.request.listens:
            return False
        asked = self.request.signal is not None
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked and self.request.signal is None:
            self.request.signal = signal.SIGTERM
        return asked

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        def describe() -> str:
            files = trainer.strategy.checkpoint_io
            assert isinstance(files, CheckpointFiles)
            saved = "nothing was saved yet"
            if files.saved_step is not None:
                saved = f"resume=true goes on from step {files.saved_step}"
            return f"stopped after step {trainer.global_step}; {saved}"

        self._listen(trainer)
        self.request.describe = describe
        self.request.defers = True

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._asked(trainer):  # the end of the epoch was saved
            self.request.end()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not self._asked(trainer) or not whole_step or trainer.is_last_batch:
            return
        trainer.save_checkpoint(self.path)
        self.request.end()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._asked(trainer):
            self.request.end()
        self.request.defers = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.request.defers = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.request.defers = False
        if self._asked(trainer):
            self.request.end()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen(trainer)
