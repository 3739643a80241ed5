"""Lightning's view of a method."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from vgbench import optim
from vgbench.batches.samplers import TrainLoader
from vgbench.batches.samples import mix_seed
from vgbench.method import GroundingMethod
from vgbench.metrics.evaluator import flat_metrics
from vgbench.training.evaluation import Evaluation
from vgbench.types import Batch, Prediction

TIMED_BATCHES = 10  # per split, for the speed of single prediction sets


class GroundingModule(L.LightningModule):
    """Lightning's view of a method: steps, learning rate, per-epoch validation, prediction files."""

    def __init__(self, method: GroundingMethod, config: DictConfig) -> None:
        super().__init__()
        self.method = method
        self.config = config
        self.schedule: optim.Schedule = instantiate(config.recipe.schedule)
        self.train_loader: TrainLoader | None = None
        self.val_set: Evaluation | None = None
        self.evaluation: Evaluation | None = None
        self.skipped = 0
        trained = {id(parameter) for parameter in method.trainable()}
        for parameter in method.parameters():  # parameters without effect must not wait for a gradient under DDP
            if id(parameter) not in trained:
                parameter.requires_grad_(False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        recipe = self.config.recipe
        return optim.build_optimizer(self.method.param_groups(recipe.lr), instantiate(recipe.optimizer))

    def on_train_epoch_start(self) -> None:
        if self.train_loader is not None:
            self.train_loader.batches.set_epoch(self.current_epoch)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        epoch, accumulate = self.current_epoch, self.config.recipe.accumulate
        steps = math.ceil(self.trainer.num_training_batches / accumulate)
        step = batch_idx // accumulate
        for optimizer in self.trainer.optimizers:
            optim.set_learning_rate(optimizer, self.schedule(epoch, step, steps))
        self.method.on_step(epoch, step, steps)
        # dropout and stochastic depth are functions of the progress too: a resumed run draws the same
        torch.manual_seed(mix_seed(self.config.seed, epoch, batch_idx, self.global_rank) % 2**31)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.train_loader is not None:
            self.train_loader.batches_done = batch_idx + 1
        self.skipped += len(batch.skipped)
        losses = self.method(batch)
        shown = {f"train/{name}": value.detach() for name, value in losses.items()}
        self.log("loss", losses["total"].detach(), prog_bar=True, logger=False, batch_size=len(batch))
        self.log_dict(shown, batch_size=len(batch))
        return losses["total"]

    def _predict(self, batch: Batch, *outputs: Sequence[str]) -> dict[str, list[Prediction]]:
        with torch.set_grad_enabled(self.method.requires_grad_at_inference):
            return self.method.predict(batch, *outputs)

    def on_validation_epoch_start(self) -> None:
        if self.val_set is not None:
            self.val_set.start(self.global_rank)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert self.val_set is not None
        self.val_set.add(batch, self._predict(batch))

    def on_validation_epoch_end(self) -> None:
        assert self.val_set is not None
        reports = self.val_set.finish(self.trainer, bootstrap=0)
        flat = flat_metrics(reports, self.val_set.sets)
        self.log_dict({f"val/{name}": value for name, value in flat.items()}, rank_zero_only=False, sync_dist=False)
        primary = self.val_set.primary
        self.log(primary, flat[primary], prog_bar=True, logger=False)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        assert self.evaluation is not None
        started = time.perf_counter()
        sets = self._predict(batch)
        if batch.image.is_cuda:
            torch.cuda.synchronize()
        if batch_idx > 0:  # the first batch pays for warm-up
            self.evaluation.seconds += time.perf_counter() - started
            self.evaluation.timed += len(batch)
        if 0 < batch_idx <= TIMED_BATCHES and len(sets) > 1:
            self._time_sets(batch)
        self.evaluation.add(batch, sets)

    def _time_sets(self, batch: Batch) -> None:
        """Time every prediction set alone: what the method costs for somebody who wants no other."""
        assert self.evaluation is not None
        for name in self.method.outputs:
            started = time.perf_counter()
            self._predict(batch, [name])
            if batch.image.is_cuda:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
            self.evaluation.output_rates.setdefault(name, []).append(len(batch) / seconds)
