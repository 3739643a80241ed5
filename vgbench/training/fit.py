"""Training: a method and samples in, the best model out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from omegaconf import DictConfig

from vgbench.core.files import sha256_prefix
from vgbench.core.processes import process_rank
from vgbench.method import GroundingMethod
from vgbench.records.record import Checkpoint, Training
from vgbench.training import weights
from vgbench.training.account import Account
from vgbench.training.callbacks import ExponentialMovingAverage, KeepBestModel, Throughput, ValidationEpochs
from vgbench.training.checkpoints import FOLDER, LAST_FILE, STEP_FILE, naming_checkpoint
from vgbench.training.data import TrainingSamples, evaluation_loader, training_loader
from vgbench.training.ending import endings
from vgbench.training.evaluation import Evaluation, metrics_by_output
from vgbench.training.guards import DueValidation, ErrorCheckpoint, StepCheckpoint, StopAtStep
from vgbench.training.loggers import tracking
from vgbench.training.model import TrainedModel
from vgbench.training.module import GroundingModule
from vgbench.training.progress import progress
from vgbench.training.run_log import LogPosition
from vgbench.training.setup import LAST, build_method, method_node
from vgbench.training.speed import prepare_blocks
from vgbench.training.start import Start
from vgbench.training.trainer import build_trainer, quiet


@quiet()
def fit(
    config: DictConfig,
    method: GroundingMethod,
    samples: TrainingSamples,
    tasks: Sequence[str],
    folder: Path,
    start: Start,
) -> TrainedModel:
    """Train ``method`` and keep the model that is best on the validation split (the last, if none was evaluated)."""
    recipe = config.recipe
    if process_rank() == 0:
        start.seen.save(folder)
    average = ExponentialMovingAverage(recipe.ema) if recipe.ema else None
    best = KeepBestModel(folder / weights.MODEL_FILE, method_node(config), average)
    throughput, account = Throughput(), Account()
    validation = Evaluation(
        samples.validation.table,
        recipe.val_split,
        folder / "validation",
        metrics_by_output(method, tasks),
        primary=recipe.monitor,
    )
    early = endings(recipe, validation.primary)
    trainer = build_trainer(
        config,
        folder,
        [
            *([average] if average else []),
            *(account, LogPosition(), throughput, best, *early, ValidationEpochs(recipe), DueValidation()),
            StopAtStep(folder, average),
            ErrorCheckpoint(folder),
            progress(),
            *_checkpoints(config, folder),
        ],
        logging=True,
        gradient_clip_val=recipe.clip_norm,
        accumulate_grad_batches=recipe.accumulate,
        num_sanity_val_steps=0,
        inference_mode=not method.requires_grad_at_inference,
        limit_val_batches=1.0,
    )
    loader = training_loader(config, trainer, method, samples.train)
    module = GroundingModule(method, config, validation, loader)
    steps = len(loader) // recipe.accumulate * recipe.epochs
    prepare_blocks(config, method, trainer.strategy.root_device, steps)
    val_loader = evaluation_loader(config, trainer, method, samples.validation)
    with tracking(), naming_checkpoint(start.resume_from, trainer):
        trainer.fit(module, loader, val_loader, ckpt_path=start.resume_from, weights_only=True)
    if best.epoch < 0:
        best.save(trainer, module)
    trainer.strategy.barrier("model written")
    model = _trained_model(config, folder, start, module, account, throughput.rate)
    endings_met = [note for ending in early if (note := ending.note()) is not None]
    return replace(model, notes=(*model.notes, *endings_met), earlier_s=account.earlier_s)


def _checkpoints(config: DictConfig, folder: Path) -> list[Callback]:
    """What a stopped run goes on from: the last epoch, and every so many steps if wished."""
    place = folder / FOLDER
    last = ModelCheckpoint(
        place, filename=LAST_FILE.removesuffix(".ckpt"), save_on_train_epoch_end=True, enable_version_counter=False
    )
    if not config.checkpoint_every:
        return [last]
    every = config.checkpoint_every
    name = STEP_FILE.removesuffix(".ckpt")
    return [last, StepCheckpoint(place, filename=name, every_n_train_steps=every, enable_version_counter=False)]


def _trained_model(
    config: DictConfig, folder: Path, start: Start, module: GroundingModule, account: Account, rate: float | None
) -> TrainedModel:
    """What the training wrote, read back into a method without the wrappers of compilation and sharding: the best
    model, or with ``checkpoint=last`` that of the last epoch."""
    recipe, trainer, file = config.recipe, module.trainer, folder / weights.MODEL_FILE
    if config.checkpoint == LAST:
        file = folder / FOLDER / LAST_FILE
    training = Training(
        data=list(start.sources),
        earlier=list(start.earlier),
        epochs=float(trainer.current_epoch),
        steps=trainer.global_step,
        batch=recipe.batch_size * recipe.accumulate * trainer.world_size,
        precision=str(config.trainer.precision),
        wall_s=account.seconds,
        final_losses={name: value for name, value in account.losses.items() if math.isfinite(value)},
    )
    notes = [f"{module.skipped} training samples could not be read and were left out"] if module.skipped else []
    if config.checkpoint == LAST:
        notes.append("scored: the model of the last epoch, not the best one (checkpoint=last)")
    if config.weights:
        notes.append(f"started from weights={config.weights}")
    method = build_method(config.method)
    weights.load(method, file)
    return TrainedModel(
        method,
        Checkpoint(file.name, sha256_prefix(file), "trained here"),
        start.seen,
        training,
        samples_per_s=rate,
        notes=tuple(notes),
    )
