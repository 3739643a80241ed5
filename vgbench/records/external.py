"""A record for predictions that were made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from vgbench.config.identity import config_hash
from vgbench.core.errors import UserError
from vgbench.data.dataset import GroundingData
from vgbench.metrics.evaluator import ScoreReport
from vgbench.predictions.table import Predictions
from vgbench.predictions.writer import PredictionWriter
from vgbench.records import store
from vgbench.records.environment import environment
from vgbench.records.record import FILE_NAME, Record
from vgbench.records.results import ScoredOutput, results_of


class ExternalSplit(NamedTuple):
    """Predictions of a split that were made elsewhere, and what they score."""

    predictions: Predictions
    report: ScoreReport


def register(
    folder: Path,
    label: str,
    splits: Mapping[str, ExternalSplit],
    data: GroundingData,
    dataset_config: Any,
    notes: Sequence[str] = (),
) -> Path:
    """Write a run folder for predictions that were made elsewhere: leaderboards show it with provenance "external".

    Args:
        folder: run folder to make.
        label: what tables call the model.
        splits: by name of the split.
        data: the dataset.
        dataset_config: the configuration it was built from, for the record.
        notes: how the predictions were read.

    Returns:
        The path of ``record.json``.
    """
    results = []
    for split, (predictions, report) in splits.items():
        file = Path("predictions") / f"{split}.parquet"
        with PredictionWriter(folder / file) as writer:
            writer.write_table(predictions)
        results += results_of(ScoredOutput(data, split, data.load(split), report, {}, output="main", predictions=file))
    node = {"dataset": OmegaConf.to_container(dataset_config, resolve=True), "label": label}
    entry = Record(
        method=label,
        label=label,
        config=node,
        config_hash=config_hash(node),
        environment=environment(),
        results=results,
        provenance="external",
        notes=list(notes),
    )
    return store.write(entry, folder)


def check_register(folder: Path) -> None:
    """Refuse to write over a run that was made here; an external row may be registered again.

    Raises:
        UserError: if ``folder`` is a file, or holds the record of a run.
    """
    if folder.is_file():
        raise UserError(f"--register {folder}: a file; name a run folder to make")
    if (folder / FILE_NAME).is_file() and store.read(folder).provenance != "external":
        raise UserError(f"--register {folder}: holds the record of a run that was made here; name another folder")
