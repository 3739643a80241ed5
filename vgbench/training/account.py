"""What a training has come to over all its interruptions: time, last losses, samples left out."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from vgbench.training.module import GroundingModule


class Account(Callback):
    """Travels with the checkpoints, so that the record of a run that was stopped is that of one that was not.

    Attributes:
        losses: ``train/*`` as last logged.
        earlier_s: seconds of training before this process took it up.
    """

    def __init__(self) -> None:
        self.losses: dict[str, float] = {}
        self.earlier_s = 0.0
        self._since: float | None = None
        self._module: GroundingModule | None = None
        self._skipped = 0

    @property
    def seconds(self) -> float:
        """Seconds of training in all."""
        return self.earlier_s + (0.0 if self._since is None else time.perf_counter() - self._since)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, GroundingModule)
        self._module = pl_module
        self._since = time.perf_counter()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._module is not None:
            self._module.skipped = self._skipped

    def _note_losses(self, trainer: L.Trainer) -> None:
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
        self.losses |= logged

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._note_losses(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._note_losses(trainer)

    def state_dict(self) -> dict[str, Any]:
        skipped = 0 if self._module is None else self._module.skipped
        return {"losses": self.losses, "seconds": self.seconds, "skipped": skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.losses, self.earlier_s = dict(state_dict["losses"]), float(state_dict["seconds"])
        self._skipped = int(state_dict["skipped"])
