"""Scores of predictions, however they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vgbench.api.answer import Answer
from vgbench.api.data import Split
from vgbench.core.errors import UserError, require_extra
from vgbench.metrics.evaluator import (
    ScoreReport,
    authors_metrics,
    default_tasks,
    evaluate_predictions,
    format_report,
)
from vgbench.predictions.reader import read_predictions
from vgbench.predictions.table import Predictions
from vgbench.types import Prediction

if TYPE_CHECKING:
    import pandas as pd

    Answers = str | Path | Predictions | Mapping[str, Answer | Prediction] | Sequence[Answer | Prediction]


class Report(ScoreReport):
    """Every number with its 95 % interval; in a notebook, a table."""

    def frame(self) -> pd.DataFrame:
        """A row per metric: value, low and high in percent, n.

        Raises:
            UserError: if pandas is not installed.
        """
        pandas = require_extra("pandas", "notebook", "frame()")
        columns = ("task", "variant", "metric", "value", "low", "high", "n")
        rows = [{name: getattr(score, name) for name in columns} for score in self.scores.values()]
        return pandas.DataFrame(rows, index=list(self.scores), columns=list(columns))

    def __str__(self) -> str:
        return format_report(self)

    def _repr_markdown_(self) -> str:
        return format_report(self)


def evaluate(
    predictions: Answers,
    dataset: Split,
    tasks: Sequence[str] = (),
    variants: Sequence[str] = (),
    bootstrap: int = 1000,
    seed: int = 0,
) -> Report:
    """Score predictions of a split.

    Args:
        predictions: a predictions file (.parquet, .jsonl), :class:`Predictions`, answers by key, or answers in the
            order of the split.
        dataset: of :func:`vgbench.dataset`; a part of a split is ``split[:100]``.
        tasks: "rec", "res", "grec", ...; none: those that data and predictions allow.
        variants: named metric variants besides, "rec/giou".
        bootstrap: resamples over images for the intervals; 0: none.
        seed: of the bootstrap.

    Raises:
        UserError: if keys do not fit the split, a value is damaged, or a metric cannot be computed on this data.
    """
    table = dataset.table
    if isinstance(predictions, (str, Path)):
        read = read_predictions(predictions, table)
    elif isinstance(predictions, Predictions):
        read = predictions
    else:
        if isinstance(predictions, Mapping):
            keys, answers = list(map(str, predictions)), list(predictions.values())
        else:
            keys, answers = table.column("key").tolist(), list(predictions)
        if len(answers) != len(keys):
            raise UserError(f"{len(answers)} answers for {len(keys)} expressions; give one for each, or answers by key")
        read = Predictions.from_list(keys, [one.prediction if isinstance(one, Answer) else one for one in answers])
    own = [] if tasks else authors_metrics(dataset.data.own_metrics, default_tasks(table, read))
    return Report(**vars(evaluate_predictions(table, read, tasks, [*variants, *own], bootstrap, seed)))
