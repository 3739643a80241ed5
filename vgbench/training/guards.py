"""Callbacks that end or save a training at the right moment: signals, checkpoints within an epoch."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loops.evaluation_loop import RestartStage

from vgbench.core.stop import StopRequest, current_request
from vgbench.training.callbacks import ExponentialMovingAverage
from vgbench.training.checkpoints import FOLDER, STEP_FILE, CheckpointFiles
from vgbench.training.logs import say
from vgbench.training.module import GroundingModule

__all__ = ["DueValidation", "ErrorCheckpoint", "StepCheckpoint", "StopAtStep"]


class StepCheckpoint(ModelCheckpoint):
    """A checkpoint every so many steps; that of an epoch's last batch at the start of its validation.

    A run that went on from the batch itself would not do that validation: Lightning counts the epoch as done.
    """

    def on_train_batch_end(self, trainer: L.Trainer, *arguments: Any, **options: Any) -> None:
        if not _before_validation(trainer):
            if trainer.global_step % self._every_n_train_steps == 0:
                _log_step(trainer)
            super().on_train_batch_end(trainer, *arguments, **options)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_batch_end(trainer, pl_module, None, None, trainer.fit_loop.batch_idx)


class DueValidation(Callback):
    """Has Lightning do the validation of an epoch whose last checkpoint was written before it."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        batches = trainer.fit_loop.epoch_loop
        if trainer.fit_loop.restarted_mid_epoch and batches.restarted_on_last and batches.batch_progress.is_last_batch:
            batches.val_loop._restart_stage = RestartStage.RESTARTED_MID_EVALUATION


def _log_step(trainer: L.Trainer) -> None:
    """Have the loggers write the step at hand, which Lightning does after the checkpoint; the log takes it once."""
    trainer._logger_connector.update_train_step_metrics()


def _before_validation(trainer: L.Trainer) -> bool:
    return trainer.is_last_batch and bool(trainer.limit_val_batches)


class ErrorCheckpoint(Callback):
    """Saves a training of one process that an error ends within an epoch (no memory left, a disk that is gone), as it
    was after its last whole step.

    Args:
        folder: the run folder.
    """

    # Lightning's OnExceptionCheckpoint saves whatever is there: a step that is half done, the average in the place of
    # the weights during a validation. From what it saves a training goes on with a batch left out and its log a step
    # ahead. Of several processes the one that failed would wait for the others for ever. For signals it comes too late:
    # Lightning makes an exception of SIGTERM between two training batches only, and a checkpoint elsewhere of SIGUSR1.

    def __init__(self, folder: Path) -> None:
        self.path = folder / FOLDER / STEP_FILE
        self._updates_weights = False

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self._updates_weights = False

    def on_before_optimizer_step(self, trainer: L.Trainer, *_: Any) -> None:
        self._updates_weights = True

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._updates_weights = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        batches = trainer.fit_loop.epoch_loop.batch_progress
        done = batches.current.completed
        steps = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.current.completed
        whole = not self._updates_weights and done == steps * trainer.accumulate_grad_batches
        between = trainer.training and 0 < done < trainer.num_training_batches
        if not isinstance(exception, Exception) or trainer.world_size > 1 or not (whole and between):
            return
        assert isinstance(pl_module, GroundingModule)
        batches.total.reset_on_restart()  # the batch at hand comes again
        batches.current.reset_on_restart()
        batches.is_last_batch = False
        if pl_module.train_loader is not None:
            pl_module.train_loader.batches_done = done
        try:
            trainer.save_checkpoint(self.path)
        except Exception:  # what ended the training ends this too (a full disk, a device in disorder), and is told next
            return
        say(f"saved: resume=true goes on from step {trainer.global_step}")


class StopAtStep(Callback):
    """Saves and ends a training that is told to stop at the end of the step at hand, on all processes the same one.

    In the validation of a single process it is saved as it was before it; with several, which need not be at the same
    batch, a validation is ended at once, as tests are.

    Args:
        folder: the run folder.
        average: the moving average that takes the place of the weights in validations, if there is one.
    """

    def __init__(self, folder: Path, average: ExponentialMovingAverage | None = None) -> None:
        self.path, self.average = folder / FOLDER / STEP_FILE, average
        self.request: StopRequest = current_request()
        self._hosts: Any = None  # a group of all processes, on the host

    def _listen(self, trainer: L.Trainer) -> None:
        """Take the signals back from Lightning, whose handlers end a run without saving, or save it elsewhere."""
        environment = trainer._accelerator_connector.cluster_environment
        if not self.request.listens:
            return
        signal.signal(signal.SIGTERM, self.request.handle)
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue and environment.requeue_signal:
            self.request.requeues = environment.requeue_signal
            signal.signal(environment.requeue_signal, self.request.handle)

    def _asked(self, trainer: L.Trainer) -> bool:
        """Whether any process was told to stop; asked on all of them."""
        if not self.request.listens:
            return False
        number = self.request.signal or 0
        if trainer.world_size > 1:
            number = self._highest(number)
        if number and self.request.signal is None:
            self.request.signal = number
        return number > 0

    def _highest(self, number: int) -> int:
        """The highest of all processes' numbers. They meet on the host: on the device they would wait for its step."""
        if self._hosts is None:
            self._hosts = torch.distributed.new_group(backend="gloo")
        numbers = torch.tensor(number)
        torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MAX, group=self._hosts)
        return int(numbers)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        def describe() -> str:
            files = trainer.strategy.checkpoint_io
            assert isinstance(files, CheckpointFiles)
            saved = "nothing was saved yet"
            if files.saved_step is not None:
                saved = f"resume=true goes on from step {files.saved_step}"
            return f"stopped after step {trainer.global_step}; {saved}"

        self._listen(trainer)
        if self.request.listens:  # Lightning has the processes meet on the device at every step, for the same question
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
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
        _log_step(trainer)
        trainer.save_checkpoint(self.path)
        self.request.end()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._asked(trainer):
            self._save_before_validation(trainer)
        self.request.defers = trainer.world_size == 1

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.world_size == 1 and self._asked(trainer):
            if self.average:
                self.average.exchange(pl_module)
            self._save_before_validation(trainer)

    def _save_before_validation(self, trainer: L.Trainer) -> None:
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.reset()
        trainer.save_checkpoint(self.path)
        self.request.end()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.request.defers = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.request.defers = False
        if self._asked(trainer):
            self.request.end()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen(trainer)
