"""Callbacks of a training run: moving average, best model, epochs that are validated, throughput."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import Tensor

from vgbench import optim
from vgbench.core.errors import UserError
from vgbench.method import GroundingMethod
from vgbench.training import weights
from vgbench.training.logs import say
from vgbench.training.module import GroundingModule
from vgbench.training.sharding import sharded_like, whole
from vgbench.types import Batch


class ExponentialMovingAverage(Callback):
    """Averages parameters and buffers after every optimiser step; validation and the final model use the average."""

    # Lightning's EMAWeightAveraging is another average: of a fixed decay, where SimVG's grows with the updates; its
    # first update forgets the initial weights; it averages counting buffers and cuts them to integers. Its base class
    # WeightAveraging with our formula gives the same bits on one device, but asks a counter on the device at every step
    # (which waits for it), copies module and loader, does not work with sharded weights, and puts the average into a
    # checkpoint's ``state_dict`` in the place of the weights that go on.

    def __init__(self, max_decay: float) -> None:
        self.max_decay = max_decay
        self.updates = 0
        self._average: list[Tensor] = []

    @staticmethod
    def _tensors(module: L.LightningModule) -> list[Tensor]:
        assert isinstance(module, GroundingModule)
        return [*module.method.parameters(), *module.method.buffers()]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._average:  # of a resumed run it is there: some strategies restore it late, after on_fit_start
            self._average = [tensor.detach().clone() for tensor in self._tensors(pl_module)]
        pairs = zip(self._average, self._tensors(pl_module), strict=True)
        self._average = [sharded_like(average, tensor) for average, tensor in pairs]
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step == self._step:
            return  # gradients are still being accumulated
        self._step = trainer.global_step
        with torch.no_grad():
            optim.ema_update(self._average, self._tensors(pl_module), self.updates, self.max_decay)
        self.updates += 1

    def exchange(self, pl_module: L.LightningModule) -> None:
        """Let the average and the weights change places."""
        with torch.no_grad():
            for tensor, other in zip(self._tensors(pl_module), self._average, strict=True):
                raw = tensor.detach().clone()
                tensor.copy_(other)
                other.copy_(raw)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._average:  # not before: at the start of a validation a checkpoint may be written
            self.exchange(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._average:
            self.exchange(pl_module)

    def averaged_state(self, method: GroundingMethod) -> dict[str, Tensor]:
        """State dict of the average (without the buffers that state dicts leave out); to be called on every process."""
        names = [name for name, _ in method.named_parameters()] + [name for name, _ in method.named_buffers()]
        average = dict(zip(names, self._average, strict=True))
        return {name: whole(average.get(name, value)) for name, value in method.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "average": [whole(tensor) for tensor in self._average]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates, self._average = state_dict["updates"], state_dict["average"]


class KeepBestModel(Callback):
    """Writes model.safetensors whenever the monitored validation metric improves; what is evaluated in the end."""

    def __init__(self, path: Path, method_config: dict[str, Any], average: ExponentialMovingAverage | None) -> None:
        self.path, self.method_config, self.average = path, method_config, average
        self.best = -math.inf
        self.epoch = -1

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, GroundingModule)
        value = float(trainer.callback_metrics[f"val/{pl_module.evaluation.primary}"])
        if not math.isfinite(value):
            name = pl_module.evaluation.primary
            raise UserError(f"val/{name} is not finite at epoch {trainer.current_epoch}; choose another recipe.monitor")
        if value > self.best:
            self.best, self.epoch = value, trainer.current_epoch
            self.save(trainer, pl_module)

    def save(self, trainer: L.Trainer, pl_module: GroundingModule) -> None:
        """Write the model as it is now (the average, if there is one, and the raw weights beside it); to be called on
        every process."""
        gathered = trainer.strategy.lightning_module_state_dict()  # the strategy gathers what it may have sharded
        raw = {name.removeprefix("method."): value for name, value in gathered.items()}
        state = self.average.averaged_state(pl_module.method) if self.average else raw
        if trainer.is_global_zero and self.average:
            weights.save(raw, self.method_config, self.path.with_name(weights.RAW_FILE))  # for a next stage
        if trainer.is_global_zero:
            weights.save(state, self.method_config, self.path)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.epoch = state_dict["best"], state_dict["epoch"]


class ValidationEpochs(Callback):
    """Validates after the epochs that the recipe says, counted from 0: ``eval_from``, then every ``eval_every``-th.

    ``eval_from: 0`` is the end of the first interval: epoch ``eval_every - 1``.
    """

    def __init__(self, recipe: DictConfig) -> None:
        self.every: int = recipe.eval_every
        self.first: int = recipe.eval_from or recipe.eval_every - 1

    def includes(self, epoch: int) -> bool:
        return epoch >= self.first and (epoch - self.first) % self.every == 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # a resumed epoch has no start
        trainer.limit_val_batches = 1.0 if self.includes(trainer.current_epoch) else 0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.limit_val_batches = 1.0 if self.includes(trainer.current_epoch) else 0


SHOWN_EVERY = 10  # batches between two rates in the progress bar
STARVED = 0.1  # share of the time spent waiting for data from which a run says so


class Throughput(Callback):
    """Training samples per second over the steps after the first few, shown in the progress bar.

    After the first epoch it says whether the loader keeps up: which share of the time was spent waiting for data.

    Args:
        warmup: steps that do not count.
    """

    def __init__(self, warmup: int = 3) -> None:
        self.warmup, self.samples, self.seconds, self._seen = warmup, 0, 0.0, 0
        self.waited, self._reported = 0.0, False
        self._since: float | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ):
        now = time.perf_counter()
        self._seen += 1
        if self._since is not None and self._seen > self.warmup:
            self.samples += len(batch) * trainer.world_size
            self.seconds += now - self._since
            if batch_idx % SHOWN_EVERY == 0:
                rate = torch.tensor(self.samples / self.seconds)  # on the host: a copy would wait for the device
                pl_module.log("samples/s", rate, prog_bar=True, logger=False, batch_size=1)
        self._since = now

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if self._since is not None and self._seen >= self.warmup:
            self.waited += time.perf_counter() - self._since

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        share = self.waited / self.seconds if self.seconds else 0.0
        if not self._reported and self.seconds and trainer.is_global_zero:
            self._reported = True
            if share > STARVED:
                workers = trainer.train_dataloader.num_workers if trainer.train_dataloader is not None else 0
                enough = math.ceil(max(1, workers) / max(1 - share, 0.01))
                say(f"{share:.0%} of the time went into waiting for data; workers={enough} would do, not {workers}")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since = None

    def state_dict(self) -> dict[str, Any]:
        return {"samples": self.samples, "seconds": self.seconds, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.samples, self.seconds, self.waited = (state_dict[name] for name in ("samples", "seconds", "waited"))

    @property
    def rate(self) -> float | None:
        return self.samples / self.seconds if self.seconds else None
