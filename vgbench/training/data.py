"""What a run is trained and scored on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader

from vgbench.batches.samplers import EvalBatches, TrainBatches, TrainLoader, eval_loader, train_loader
from vgbench.batches.samples import GroundingDataset
from vgbench.data.additional import AdditionalData, joined
from vgbench.data.dataset import GroundingData
from vgbench.data.images import ImageFile
from vgbench.data.leakage import SeenImages, exclude_leaked
from vgbench.data.table import AnnotationTable
from vgbench.method import GroundingMethod
from vgbench.records.record import TrainingData
from vgbench.training.logs import say
from vgbench.training.setup import build_data
from vgbench.training.speed import evaluation_batch
from vgbench.training.trainer import pins_memory, workers

SMOKE_BATCHES = 3  # of training and of validation in a smoke run


@dataclass(frozen=True)
class TrainingSet:
    """The annotations that a run trains on and is selected by.

    Attributes:
        dataset: what ``config.dataset`` names.
        table: all training expressions, further training data included.
        image_path: image name of ``table`` -> file.
        validation: the split that selects the best model.
        sources: what ``table`` is made of, for the record.
        seen: the images of ``table``.
    """

    dataset: GroundingData
    table: AnnotationTable
    image_path: Callable[[str], ImageFile]
    validation: AnnotationTable
    sources: tuple[TrainingData, ...]
    seen: SeenImages


@dataclass(frozen=True)
class TrainingSamples:
    """What training and validation are fed with: decoded, transformed, with the method's auxiliary inputs."""

    train: GroundingDataset
    validation: GroundingDataset


def load_training_data(config: DictConfig) -> TrainingSet:
    """The training split, ``recipe.extra_train`` behind it, without the images of evaluation splits if so wished.

    Raises:
        UserError: if a split or folder is missing, or nothing is left to train on.
    """
    recipe, dataset = config.recipe, build_data(config)
    table = dataset.load(recipe.train_split)
    extras = _extra_train(config)
    if recipe.exclude_leaked:
        table, extras = _without_leaked(config, dataset, table, extras)
    sources = [_source(table, dataset.name, recipe.train_split, dataset.split_by)]
    sources += [_source(extra.table, str(extra.table.info["dataset"]), "train") for extra in extras]
    image_path: Callable[[str], ImageFile] = dataset.image_path
    if extras:
        table, image_path = joined(table, image_path, extras)
    validation = dataset.load(recipe.val_split)
    if config.get("smoke"):
        table = table.take(range(min(SMOKE_BATCHES * recipe.batch_size * recipe.accumulate, len(table))))
        validation = validation.take(range(min(SMOKE_BATCHES * evaluation_batch(config), len(validation))))
    seen = SeenImages.of(table, dataset.image_aliases())
    return TrainingSet(dataset, table, image_path, validation, tuple(sources), seen)


def _extra_train(config: DictConfig) -> list[AdditionalData]:
    """The folders of ``recipe.extra_train``."""
    folders = config.recipe.extra_train or []
    return [
        AdditionalData.open(Path(str(path)).expanduser())
        for path in ([folders] if isinstance(folders, str) else folders)
    ]


def _without_leaked(
    config: DictConfig, dataset: GroundingData, table: AnnotationTable, extras: Sequence[AdditionalData]
) -> tuple[AnnotationTable, list[AdditionalData]]:
    """Training data without the images of every split that the run is selected or scored on."""
    names = dict.fromkeys([config.recipe.val_split, *scored_splits(config, dataset)])
    evaluations = [dataset.load(name) for name in names]
    table, *tables = exclude_leaked([table, *(extra.table for extra in extras)], evaluations, dataset.image_aliases())
    say(f"{dataset.name}: {table.info['excluded_images']:,} evaluation images left out of training")
    return table, [AdditionalData(extra.folder, clean) for extra, clean in zip(extras, tables, strict=True)]


def _source(table: AnnotationTable, dataset: str, split: str, split_by: str | None = None) -> TrainingData:
    return TrainingData(
        dataset=dataset,
        split=split,
        split_by=split_by,
        data_hash=table.hash,
        expressions=len(table),
        excluded_images=int(table.info.get("excluded_images", 0)),
    )


def scored_splits(config: DictConfig, dataset: GroundingData) -> list[str]:
    """The splits that a run is scored on."""
    splits = config.eval.splits
    return [splits] if isinstance(splits, str) else list(splits or dataset.evaluation_splits)


def training_samples(config: DictConfig, method: GroundingMethod, data: TrainingSet) -> TrainingSamples:
    """What the method trains and validates on.

    Raises:
        UserError: if auxiliary inputs are missing, those of the splits to score in the end included: that is better
            known before the training than after.
    """
    recipe = config.recipe
    auxiliary = method.auxiliary_inputs(data.table)
    validation = evaluation_samples(method, data.dataset, data.validation, method.auxiliary_inputs(data.validation))
    if auxiliary:
        for split in scored_splits(config, data.dataset):
            if split != recipe.val_split:
                method.auxiliary_inputs(data.dataset.load(split))
    train = GroundingDataset(
        data.table,
        data.image_path,
        method.train_transform(),
        sampling=recipe.sampling,
        masks=method.wants_masks,
        auxiliary=auxiliary,
        on_bad_sample=data.dataset.on_bad_sample,
    )
    return TrainingSamples(train, validation)


def evaluation_samples(
    method: GroundingMethod,
    dataset: GroundingData,
    table: AnnotationTable,
    auxiliary: Mapping[str, Mapping[str, Tensor]],
    expression_rows: Sequence[int] | None = None,
) -> GroundingDataset:
    """Every expression of ``table`` once, in order; ``expression_rows``: the rows whose expressions they get."""
    return GroundingDataset(
        table,
        dataset.image_path,
        method.eval_transform(),
        masks=False,
        expression_rows=expression_rows,
        auxiliary=auxiliary,
        on_bad_sample=dataset.on_bad_sample,
    )


def training_loader(
    config: DictConfig, trainer: L.Trainer, method: GroundingMethod, samples: GroundingDataset
) -> TrainLoader:
    """The batches of this process."""
    recipe = config.recipe
    batches = TrainBatches(
        len(samples),
        recipe.batch_size,
        config.seed,
        orientation=samples.orientation() if recipe.group_by_orientation else None,
        drop_last=recipe.drop_last,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
    )
    return train_loader(samples, batches, method, workers(config, trainer), pins_memory(trainer))


def evaluation_loader(
    config: DictConfig, trainer: L.Trainer, method: GroundingMethod, samples: GroundingDataset
) -> DataLoader:
    """The batches of this process, all processes together every sample once."""
    images = samples.table.column("image_id")
    batches = EvalBatches(images, evaluation_batch(config), trainer.global_rank, trainer.world_size)
    return eval_loader(samples, batches, method, workers(config, trainer), pins_memory(trainer))
