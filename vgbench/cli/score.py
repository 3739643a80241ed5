"""``vgbench score``: a predictions file against the annotations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgbench.core.errors import UserError
from vgbench.predictions.foreign import Reading, read_foreign
from vgbench.predictions.reader import read_predictions
from vgbench.predictions.table import Predictions

if TYPE_CHECKING:
    pass
from vgbench.metrics.evaluator import ScoreReport, evaluate_predictions, format_report
from vgbench.predictions.trivial import trivial_predictions
from vgbench.records.external import ExternalSplit, check_register, register


def main(
    file: str,
    config: Any,
    split: str | None = None,
    variants: Sequence[str] = (),
    json_file: Path | None = None,
    reading: Mapping[str, str] | None = None,
    folder: Path | None = None,
    label: str | None = None,
) -> int:
    """``vgbench score FILE dataset=... split=...``: print the report; ``FILE`` may be "trivial".

    Args:
        file: predictions file, or "trivial" for :func:`trivial_predictions`.
        config: composed configuration; ``config.dataset`` is the dataset, ``config.task`` restricts the metrics.
        split: split of the dataset; "trivial" takes several ("val,testA"); None: every evaluation split.
        variants: ``task/variant``, beside the defaults.
        json_file: where to write the reports too.
        reading: options of :class:`vgbench.predictions.foreign.Reading`, if the file is in a foreign format.
        folder: run folder to write, which puts the result on leaderboards as "external".
        label: name of the model there; None: the file's name.

    Raises:
        UserError: if the file, the split or a variant is wrong, or ``folder`` holds a run that was made here.
    """
    from hydra.utils import instantiate

    from vgbench.core.files import write_atomically

    if label and not folder:
        raise UserError("--label names a row of the leaderboard: add --register DIR")
    if folder:
        check_register(Path(folder))
    data = instantiate(config.dataset)
    trivial = file == "trivial"
    if not trivial and not Path(file).is_file():  # said before any dataset is read or generated
        raise UserError(f"{file}: no such file")
    default = [name for name in data.splits if name not in ("train", "pretrain")]
    splits = data.parse_splits(split or default)
    if not trivial and (split is None or len(splits) != 1):
        raise UserError(f"{file}: say which split was predicted: split=NAME (one of {', '.join(data.splits)})")
    predictions: dict[str, Predictions] = {}
    reports: dict[str, ScoreReport] = {}
    notes = [f"predictions: {'centre box of median size' if trivial else Path(file).name}"]
    for name in splits:
        table = data.load(name)
        if trivial:
            predictions[name] = trivial_predictions(table)
        elif reading:
            predictions[name], how = read_foreign(file, table, Reading.from_options(reading))
            notes += how
        else:
            predictions[name] = read_predictions(file, table)
        tasks = [config.task] if config.task else []
        wanted = [*variants, *config.eval.variants]
        reports[name] = evaluate_predictions(table, predictions[name], tasks, wanted, config.eval.bootstrap)
        print(format_report(reports[name]), end="\n\n")
    for note in notes[1:]:
        print(f"note: {note}")
    if json_file:
        content = [report.as_dict() for report in reports.values()]
        write_atomically(Path(json_file), json.dumps(content, indent=2).encode())
    if folder:
        scored = {name: ExternalSplit(predictions[name], report) for name, report in reports.items()}
        written = register(Path(folder), label or Path(file).stem, scored, data, config.dataset, notes)
        print(f"record: {written} (vgbench compare shows it)")
    return 0
