"""A trained model, from whichever training: what is scored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from vgbench.checkpoints.names import LoadReport
from vgbench.data.leakage import SeenImages
from vgbench.method import GroundingMethod
from vgbench.records.record import Checkpoint, Origin, Training
from vgbench.training import weights
from vgbench.training.setup import checkpointed_method


@dataclass(frozen=True)
class TrainedModel:
    """A method with trained weights, and what is known of them.

    Attributes:
        method: the method.
        checkpoint: the file that the weights come from; None: a server has them.
        seen: the images that it was trained on, where a run of the suite trained it.
        training: how, if this run did.
        samples_per_s: the speed of that training.
        notes: for a reader of the record.
        earlier_s: seconds of that training before this process took it up.
    """

    method: GroundingMethod
    checkpoint: Checkpoint | None
    seen: SeenImages | None
    training: Training | None = None
    samples_per_s: float | None = None
    notes: tuple[str, ...] = ()
    earlier_s: float = 0.0


def load_model(config: DictConfig) -> tuple[TrainedModel, Path | None, LoadReport]:
    """The model of ``checkpoint``, its file (None: a server has the weights) and what was loaded of it.

    Raises:
        UserError: if there is no checkpoint, or it does not fit.
    """
    method, path, report = checkpointed_method(config)
    if path is None:
        return TrainedModel(method, None, None), None, report
    ours = weights.is_ours(path)
    origin: Origin = "trained here" if ours else "official"
    if weights.is_shipped(config.checkpoint):
        origin = "shipped"
    folder = weights.run_folder(path)
    seen = SeenImages.read(folder) if folder else None
    return TrainedModel(method, Checkpoint(path.name, weights.fingerprint(path), origin), seen), path, report
