"""Trainings that end before their last epoch: ``recipe.early_stop`` and ``recipe.max_time``."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, Timer
from omegaconf import DictConfig, OmegaConf

from vgbench.core.errors import UserError
from vgbench.training.logs import say


class Patience(EarlyStopping):
    """Lightning's EarlyStopping on what selects the best model, counted in validations.

    A training that has ended does not begin again when its run goes on (with the evaluation), unless it has more
    patience now.
    """

    def __init__(self, metric: str, **options: Any) -> None:
        super().__init__(f"val/{metric}", mode="max", check_on_train_epoch_end=False, **options)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.stopped_epoch and self.wait_count >= self.patience:
            trainer.should_stop = True

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if text := self.note():
            say(text)

    def note(self) -> str | None:
        """For a reader of the record, if it ended the training."""
        if not self.stopped_epoch or self.wait_count < self.patience:
            return None
        return (
            f"training ended after epoch {self.stopped_epoch} (from 0): no better {self.monitor} in {self.patience} "
            "validations (recipe.early_stop)"
        )


class TimeLimit(Timer):
    """Lightning's Timer: the training ends after the step at hand, and what it came to is validated.

    The time of a run that was stopped counts from where it goes on.
    """

    def _check_time_remaining(self, trainer: L.Trainer) -> None:
        super()._check_time_remaining(trainer)
        if trainer.should_stop and self.time_elapsed() >= (self._duration or 0.0):
            trainer.limit_val_batches = 1.0

    def note(self) -> str | None:
        """For a reader of the record, if it ended the training."""
        remaining = self.time_remaining()
        if remaining is None or remaining > 0:
            return None
        return f"training ended after {self.time_elapsed():.0f} s (recipe.max_time)"


def endings(recipe: DictConfig, metric: str) -> list[Patience | TimeLimit]:
    """What may end a training before ``recipe.epochs``.

    Args:
        metric: full name of the metric that selects the best model.

    Raises:
        UserError: for a value that Lightning's callbacks do not take.
    """
    callbacks: list[Patience | TimeLimit] = []
    early_stop = _plain(recipe.early_stop)
    if early_stop is not None:
        options = early_stop if isinstance(early_stop, dict) else {"patience": early_stop}
        patience = options.get("patience")
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise UserError(f"recipe.early_stop={early_stop}: give validations without improvement, at least 1")
        try:
            callbacks.append(Patience(metric, **options))
        except (TypeError, MisconfigurationException) as error:
            raise UserError(f"recipe.early_stop={early_stop}: {error}") from None
    max_time = _plain(recipe.max_time)
    if max_time is not None:
        callbacks.append(_time_limit(max_time))
    return callbacks


def _time_limit(max_time: Any) -> TimeLimit:
    wanted = f"recipe.max_time={max_time}: give DD:HH:MM:SS or {{hours: N}}, more than nothing"
    if not isinstance(max_time, (str, dict)):
        raise UserError(wanted)
    try:
        limit = TimeLimit(max_time, verbose=False)
    except (TypeError, MisconfigurationException, OverflowError):
        raise UserError(wanted) from None
    if (limit.time_remaining() or 0.0) <= 0:
        raise UserError(wanted)
    return limit


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
