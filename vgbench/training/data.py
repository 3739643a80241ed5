"""What a run is trained and scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
import numpy as np
import torch
from omegaconf import DictConfig

from vgbench.batches.samplers import eval_loader
from vgbench.batches.samples import GroundingDataset
from vgbench.data.dataset import GroundingData
from vgbench.data.extra import Extra
from vgbench.data.leakage import SeenImages
from vgbench.data.table import AnnotationTable
from vgbench.method import GroundingMethod
from vgbench.records import store
from vgbench.records.record import FILE_NAME, TrainingData
from vgbench.training import weights
from vgbench.training.trainer import workers


def earlier_training(config: DictConfig, method: GroundingMethod) -> tuple[list[TrainingData], SeenImages | None]:
    """Training data of the weights that a training starts from, and their images; None: a run of its own did not make
    them. Shipped weights have seen rendered images only, none of an evaluation split."""
    if not config.weights or weights.is_shipped(config.weights):
        return [], SeenImages(np.array([], dtype=str))
    folder = weights.run_folder(weights.resolve(str(config.weights), raw=True))
    if folder is None or (seen := SeenImages.read(folder)) is None:
        return [], None
    made = store.read(folder).training if (folder / FILE_NAME).exists() else None
    return ([*made.earlier, *made.data] if made else []), seen


def evaluation_splits(config: DictConfig, data: GroundingData) -> list[str]:
    """The splits that a run is scored on."""
    return list(config.eval.splits or [name for name in data.splits if name not in ("train", "pretrain")])


def extra_train(config: DictConfig) -> list[Extra]:
    """The folders of ``recipe.extra_train``."""
    given = config.recipe.get("extra_train") or []
    return [Extra.open(Path(str(folder)).expanduser()) for folder in ([given] if isinstance(given, str) else given)]


def training_data(table: AnnotationTable, dataset: str, split: str, split_by: str | None = None) -> TrainingData:
    return TrainingData(
        dataset=dataset,
        split=split,
        split_by=split_by,
        data_hash=table.hash,
        expressions=len(table),
        excluded_images=int(table.info.get("excluded_images", 0)),
    )


def evaluation_loader(
    config: DictConfig,
    trainer: L.Trainer,
    method: GroundingMethod,
    data: GroundingData,
    table: AnnotationTable,
    side: Mapping[str, Mapping[str, torch.Tensor]],
    pin: bool,
    said: Sequence[int] | None = None,
) -> torch.utils.data.DataLoader:
    dataset = GroundingDataset(
        table,
        data.image_path,
        method.eval_transform(),
        masks=False,
        said=said,
        side=side,
        on_bad_sample=data.on_bad_sample,
    )
    return eval_loader(
        dataset, method, config.eval.batch_size, workers(config), trainer.global_rank, trainer.world_size, pin
    )
