"""Lightning's trainer from the configuration."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar
from omegaconf import DictConfig, OmegaConf

from vgbench.core.errors import UserError
from vgbench.core.processes import usable_cores
from vgbench.training.checkpoints import CheckpointFiles
from vgbench.training.loggers import build_loggers, check_loggers
from vgbench.training.speed import set_float32


def workers(config: DictConfig, trainer: L.Trainer) -> int:
    """Loader processes of each process of a run: ``auto`` is half of its share of this machine's cores, at most 8."""
    if config.workers == "auto":
        return min(8, usable_cores() // (2 * trainer.num_devices))
    return int(config.workers)


def build_trainer(config: DictConfig, folder: Path, callbacks: Sequence[Callback], **options: Any) -> L.Trainer:
    """Lightning's trainer as the ``trainer`` and ``recipe`` nodes say."""
    set_float32(str(config.trainer.precision))
    loggers = list(build_loggers(config, folder).values()) if options.pop("logging", False) else []
    given = set(options) | {"max_epochs", "logger", "log_every_n_steps", "callbacks", "default_root_dir", "plugins"}
    if taken := given & set(config.trainer):
        raise UserError(f"trainer.{min(taken)}: the run sets it itself; see recipe.* and logger.*")
    try:
        return L.Trainer(
            **{
                name: instantiate(value) if OmegaConf.is_config(value) else value
                for name, value in config.trainer.items()
            },
            max_epochs=config.recipe.epochs,
            logger=loggers or False,
            log_every_n_steps=config.logger.every_n_steps,
            callbacks=list(callbacks),
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
            default_root_dir=folder,
            plugins=[CheckpointFiles()],
            use_distributed_sampler=False,
            enable_model_summary=False,
            enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
            **options,
        )
    except (L.fabric.utilities.exceptions.MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"trainer: {error}; vgbench list shows the trainer choices") from None


def trial_trainer(config: DictConfig) -> L.Trainer:
    """The trainer of the ``trainer`` node, without a run; the ``logger`` node is looked at too.

    Raises:
        UserError: if Lightning does not take it.
    """
    check_loggers(config)
    with quiet():
        return build_trainer(config, Path(), [], gradient_clip_val=None, accumulate_grad_batches=1)


def pins_memory(trainer: L.Trainer) -> bool:
    """Whether batches go to a GPU, and are to be kept in memory that it reads directly."""
    return isinstance(trainer.accelerator, L.pytorch.accelerators.CUDAAccelerator)


EXPECTED_WARNINGS = (
    ".*does not have many workers.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    ".*exists and is not empty.*",
    ".*sync_dist=True.*",  # every process has scored all predictions
    ".*smaller than the logging interval.*",
    ".*compiled.*is not supported.*",
    ".*MLflow only allows.*",
    ".*There is a wandb run already in progress.*",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back what Lightning says of every run, for the time of a training or an evaluation."""
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        yield
