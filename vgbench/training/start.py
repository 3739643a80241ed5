"""Where a training starts from: the checkpoint of a stopped run, weights, pretrained parts, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from vgbench.checkpoints.names import LoadReport
from vgbench.core.errors import UserError
from vgbench.core.hub import local_path
from vgbench.data.leakage import SeenImages
from vgbench.method import GroundingMethod
from vgbench.records import store
from vgbench.records.record import FILE_NAME, TrainingData
from vgbench.training import weights
from vgbench.training.checkpoints import newest_checkpoint
from vgbench.training.data import TrainingSet
from vgbench.training.setup import choices, method_name


@dataclass(frozen=True)
class Start:
    """Where a training starts from.

    Attributes:
        resume_from: Lightning's checkpoint of the stopped run that goes on, or None.
        report: what was loaded of ``weights`` or ``pretrained``, or None.
        sources: what this run trains on.
        earlier: training data of the weights that it starts from, as far as their run folder tells.
        seen: the images of both.
    """

    resume_from: Path | None
    report: LoadReport | None
    sources: tuple[TrainingData, ...]
    earlier: tuple[TrainingData, ...]
    seen: SeenImages


def start_from(config: DictConfig, method: GroundingMethod, data: TrainingSet, resumed: Path | None = None) -> Start:
    """Load what the training starts from into ``method``; of a run to resume, find its newest checkpoint.

    Args:
        resumed: the folder of the run that goes on, or None.

    Raises:
        UserError: if there is no such file, or it does not fit the method.
    """
    resume_from = newest_checkpoint(resumed) if resumed else None
    report = None if resume_from else _load_start(config, method)
    earlier, seen_earlier = _earlier_training(config)
    seen = data.seen | seen_earlier if seen_earlier else SeenImages(data.seen.keys, complete=False)
    return Start(resume_from, report, data.sources, earlier, seen)


def _load_start(config: DictConfig, method: GroundingMethod) -> LoadReport | None:
    """Load ``weights`` (a whole model) or ``pretrained`` (parts), if given.

    Of a run folder or an official file with a moving average the raw weights are taken, as the authors' trainings do;
    the average of a run is the file ``model.safetensors`` in its folder.
    """
    if config.weights:
        spec, dataset = str(config.weights), choices(config)["dataset"]
        return weights.load(method, weights.resolve(spec, method_name(method), dataset, raw=True), raw=True)
    if config.pretrained:
        path = local_path(str(config.pretrained))
        if not path.exists():
            raise UserError(f"{path}: no such file; pretrained= must be the checkpoint that the recipe names")
        return method.load_pretrained(path)
    return None


def _earlier_training(config: DictConfig) -> tuple[tuple[TrainingData, ...], SeenImages | None]:
    """Training data of the weights that a training starts from, and their images; None: a run of its own did not make
    them. Shipped weights have seen rendered images only, none of an evaluation split."""
    if not config.weights or weights.is_shipped(config.weights):
        return (), SeenImages(np.array([], dtype=str))
    folder = weights.run_folder(weights.resolve(str(config.weights), raw=True))
    if folder is None or (seen := SeenImages.read(folder)) is None:
        return (), None
    training = store.read(folder).training if (folder / FILE_NAME).exists() else None
    return ((*training.earlier, *training.data) if training else ()), seen
