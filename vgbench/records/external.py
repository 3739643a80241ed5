"""A record for predictions that were made elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from vgbench.config.identity import config_hash
from vgbench.core.errors import UserError
from vgbench.core.files import write_atomically
from vgbench.data.dataset import GroundingData
from vgbench.metrics.evaluator import ScoreReport
from vgbench.predictions.table import Predictions
from vgbench.predictions.writer import PredictionWriter
from vgbench.records import store
from vgbench.records.environment import environment
from vgbench.records.record import FILE_NAME, Record, Result
from vgbench.records.results import ScoredOutput, results_of


class ExternalSplit(NamedTuple):
    """Predictions of a split that were made elsewhere, what they score, and the keys of answers that were not read."""

    predictions: Predictions
    report: ScoreReport
    unreadable: Sequence[str] = ()


def unreadable_file(predictions: Path) -> Path:
    """Beside a predictions file: the keys of answers that were not read, as a JSON list."""
    return predictions.with_suffix(".unreadable.json")


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
    for split, (predictions, report, unreadable) in splits.items():
        file = Path("predictions") / f"{split}.parquet"
        with PredictionWriter(folder / file) as writer:
            writer.write_table(predictions)
        if unreadable:
            write_atomically(folder / unreadable_file(file), json.dumps(list(unreadable)).encode())
        results += results_of(ScoredOutput(data, split, data.load(split), report, {}, output="main", predictions=file))
    return write_external(folder, label, results, dataset_config, notes)


def write_external(
    folder: Path, label: str, results: Sequence[Result], dataset_config: Any, notes: Sequence[str] = ()
) -> Path:
    """Write the record of a model that ran elsewhere; its path. Arguments as of :func:`register`."""
    plain = (
        dict(dataset_config)
        if isinstance(dataset_config, dict)
        else OmegaConf.to_container(dataset_config, resolve=True)
    )
    node = {"dataset": plain, "label": label}
    entry = Record(
        method=label,
        label=label,
        config=node,
        config_hash=config_hash(node),
        environment=environment(),
        results=list(results),
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
