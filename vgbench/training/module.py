"""Lightning's view of a method."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.trainer.states import TrainerFn
from omegaconf import DictConfig
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from vgbench import optim
from vgbench.batches.samplers import TrainLoader
from vgbench.batches.samples import mix_seed
from vgbench.layers.casts import one_cast_per_step
from vgbench.method import GroundingMethod
from vgbench.training.evaluation import Evaluation
from vgbench.training.losses import LossWatch
from vgbench.training.own_checkpoint import OWN_KEY
from vgbench.training.pipeline import HostPart, PredictionPipeline
from vgbench.training.setup import method_node
from vgbench.training.sharding import clip_sharded, separated, shard
from vgbench.training.transfer import BatchTransfer
from vgbench.types import Batch

TIMED_BATCHES = 10  # per split, for the speed of single outputs


class Stopwatch:
    """Seconds that predicting took on one process, and the samples per second of every output alone.

    The first batch pays for warm-up and is left out; outputs are timed one by one on the next few. What the host does
    beside later batches counts as far as it was waited for.
    """

    def __init__(self) -> None:
        self.seconds, self.samples = 0.0, 0
        self.output_rates: dict[str, list[float]] = {}

    def add(self, samples: int, seconds: float) -> None:
        self.samples += samples
        self.seconds += seconds

    def add_output(self, name: str, samples: int, seconds: float) -> None:
        self.output_rates.setdefault(name, []).append(samples / seconds)


class GroundingModule(L.LightningModule):
    """Lightning's view of a method: steps, learning rate, per-epoch validation, prediction files.

    Args:
        method: the method.
        config: of the run.
        evaluation: what validation and test steps fill.
        train_loader: its sampler is told epoch and progress.

    Attributes:
        skipped: training samples that this process could not read.
        stopwatch: of the last test.
    """

    def __init__(
        self,
        method: GroundingMethod,
        config: DictConfig,
        evaluation: Evaluation,
        train_loader: TrainLoader | None = None,
    ) -> None:
        super().__init__()
        self.method = method
        self.config = config
        self.evaluation = evaluation
        self.train_loader = train_loader
        self.schedule: optim.Schedule = instantiate(config.recipe.schedule, _convert_="all")
        self.skipped = 0
        self.loss_watch: LossWatch | None = None
        self.stopwatch = Stopwatch()
        self._transfer = BatchTransfer()
        trained = {id(parameter) for parameter in method.trainable()}
        for parameter in method.parameters():  # parameters without effect must not wait for a gradient under DDP
            if id(parameter) not in trained:
                parameter.requires_grad_(False)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return self._transfer(batch, device)

    def configure_model(self) -> None:
        """Shard the method for a training with ``trainer=fsdp``; an evaluation has it whole on every process."""
        mesh = self.device_mesh
        if mesh is not None and self.trainer.state.fn == TrainerFn.FITTING:
            shard(self.method, mesh["data_parallel"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        recipe = self.config.recipe
        groups = self.method.param_groups(recipe.lr)
        return optim.build_optimizer(
            separated(groups) if self.device_mesh else groups, instantiate(recipe.optimizer, _convert_="all")
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if self.device_mesh and gradient_clip_val:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            clip_sharded(parameters, float(gradient_clip_val))
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_fit_start(self) -> None:
        self.loss_watch = LossWatch(Path(self.trainer.default_root_dir))

    def check_weights(self) -> None:
        """
        Raises:
            UserError: if a loss of this training or a weight is not finite.
        """
        if self.loss_watch is not None:
            self.loss_watch.check_weights(self.parameters(), self.current_epoch, self.trainer.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_weights()
        checkpoint[OWN_KEY] = json.dumps({"method": method_node(self.config)})

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
        casts = contextlib.nullcontext() if self.device_mesh else one_cast_per_step()  # sharded weights are cast there
        with self._stance(batch), casts:
            losses = self.method(batch)
        if self.loss_watch is not None:
            self.loss_watch.add(losses, self.current_epoch, self.trainer.global_step)
        every = self.config.logger.every_n_steps
        if self.trainer.is_last_batch or (every and (self.trainer.global_step + 1) % every == 0):
            # only what a logger writes: two dozen losses cost as much of the host's time as a layer of the model
            logged = {f"train/{name}": value.detach() for name, value in losses.items()}
            self.log_dict(logged, batch_size=len(batch))
            self.log("loss", losses["total"].detach(), prog_bar=True, logger=False, batch_size=len(batch))
        return losses["total"]

    def _stance(self, batch: Batch) -> AbstractContextManager[Any]:
        """A last, smaller batch is not compiled for: that would take the best part of a minute, for one step an epoch.

        Recomputed blocks have to run alike both times, and the second time is outside of this.
        """
        whole = len(batch) == self.config.recipe.batch_size or self.config.checkpointing
        return contextlib.nullcontext() if whole else torch.compiler.set_stance("force_eager")

    def _start_prediction(self, batch: Batch, *outputs: Sequence[str]) -> tuple[HostPart, float]:
        """What is left to do on the host, and the seconds that the rest took. ``outputs``: at most one list."""
        started = time.perf_counter()
        # what is compiled is the training step: too few batches to compile for come here, and of too many shapes
        eager = torch.compiler.set_stance("force_eager")
        with eager, torch.set_grad_enabled(self.method.requires_grad_at_inference):
            host_part = self.method.start_prediction(batch, *outputs)
        if isinstance(self.method, FSDPModule):  # who looks at its parameters sees them spread, as before
            self.method.reshard()
        if batch.image.is_cuda:
            torch.cuda.synchronize()
        return host_part, time.perf_counter() - started

    def _seconds_of_output(self, batch: Batch, name: str) -> float:
        """What predicting one output of a batch takes from beginning to end."""
        started = time.perf_counter()
        self._start_prediction(batch, [name])[0]()
        return time.perf_counter() - started

    def _start_evaluation(self) -> None:
        self.evaluation.start(self.global_rank, self.trainer.world_size)
        self.pipeline = PredictionPipeline(self.evaluation.add)

    def on_validation_epoch_start(self) -> None:
        self.check_weights()
        self._start_evaluation()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.pipeline.put(batch.keys, len(batch.skipped), self._start_prediction(batch)[0])

    def on_validation_epoch_end(self) -> None:
        self.pipeline.finish()
        flat = self.evaluation.flat(self.evaluation.finish(self.trainer, bootstrap=0))
        self.log_dict({f"val/{name}": value for name, value in flat.items()}, rank_zero_only=False, sync_dist=False)
        primary = self.evaluation.primary
        self.log(primary, flat[primary], prog_bar=True, logger=False)

    def on_test_epoch_start(self) -> None:
        self.stopwatch = Stopwatch()
        self._start_evaluation()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        host_part, seconds = self._start_prediction(batch)
        if 0 < batch_idx <= TIMED_BATCHES and len(self.method.outputs) > 1 and self.method.steady:
            for name in self.method.outputs:  # what the method costs for somebody who wants no other output
                self.stopwatch.add_output(name, len(batch), self._seconds_of_output(batch, name))
        seconds += self.pipeline.put(batch.keys, len(batch.skipped), host_part)
        if batch_idx > 0:  # the first batch pays for warm-up
            self.stopwatch.add(len(batch), seconds)

    def on_test_epoch_end(self) -> None:
        self.stopwatch.add(0, self.pipeline.finish())
