"""A record for predictions that were made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgbench.core.errors import UserError
from vgbench.predictions.table import Predictions
from vgbench.predictions.writer import PredictionWriter

if TYPE_CHECKING:
    from vgbench.data.dataset import GroundingData
from vgbench.metrics.evaluator import ScoreReport


def register(
    predictions: Mapping[str, Predictions],
    reports: Mapping[str, ScoreReport],
    config: Any,
    data: GroundingData,
    folder: Path,
    label: str,
    notes: Sequence[str] = (),
) -> Path:
    """Write a run folder for predictions that were made elsewhere: leaderboards show it with provenance "external".

    Args:
        predictions: by split.
        reports: by split.
        config: composed configuration; ``config.dataset`` goes into the record.
        data: the dataset.
        folder: run folder to make.
        label: what tables call the model.
        notes: how the predictions were read.

    Returns:
        The path of ``record.json``.
    """
    from omegaconf import OmegaConf

    from vgbench.config.identity import config_hash
    from vgbench.records import store
    from vgbench.records.environment import environment
    from vgbench.records.record import Record
    from vgbench.records.results import ScoredOutput, results_of

    results = []
    for split, report in reports.items():
        file = Path("predictions") / f"{split}.parquet"
        with PredictionWriter(folder / file) as writer:
            writer.write_table(predictions[split])
        results += results_of(ScoredOutput(data, split, data.load(split), report, {}, output="main", predictions=file))
    node = {"dataset": OmegaConf.to_container(config.dataset, resolve=True), "label": label}
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
    from vgbench.records import store
    from vgbench.records.record import FILE_NAME

    if folder.is_file():
        raise UserError(f"--register {folder}: a file; name a run folder to make")
    if (folder / FILE_NAME).is_file() and store.read(folder).provenance != "external":
        raise UserError(f"--register {folder}: holds the record of a run that was made here; name another folder")
