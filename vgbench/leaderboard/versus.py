"""Two runs against each other: paired tests, slices, and where they disagree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from vgbench.config.stored import make_dataset
from vgbench.core.errors import UserError
from vgbench.core.files import file_inside
from vgbench.core.lines import one_line
from vgbench.data.dataset import GroundingData
from vgbench.data.table import AnnotationTable
from vgbench.leaderboard.columns import row_label
from vgbench.metrics.base import Outcomes
from vgbench.metrics.bootstrap import Comparison, compare_paired
from vgbench.metrics.evaluator import evaluate_predictions
from vgbench.metrics.slices import buckets
from vgbench.metrics.tasks import task_of
from vgbench.predictions.reader import read_predictions
from vgbench.predictions.table import Predictions
from vgbench.records.record import FILE_NAME, Record, Result


@dataclass(frozen=True)
class Slice:
    """One line of a comparison; ``rule`` is empty for the whole split. ``significant`` at 5 % after Holm."""

    rule: str
    bucket: str
    first: float
    second: float
    test: Comparison
    significant: bool = False


@dataclass(frozen=True)
class Disagreement:
    """An expression that the two runs answer differently; scores in percent. ``row`` counts in the table."""

    row: int
    key: str
    expression: str
    first: float
    second: float


@dataclass(frozen=True)
class Versus:
    """Two results on one split: the same expressions, the same metric. Differences are second minus first."""

    first: str
    second: str
    result: Result
    metric: str
    gradual: str
    slices: list[Slice]
    disagreements: list[Disagreement]
    table: AnnotationTable
    data: GroundingData
    predictions: tuple[Predictions, Predictions]


def load_table(record: Record, result: Result) -> tuple[GroundingData, AnnotationTable]:
    """The dataset of a run, and the split that a result was computed on.

    Raises:
        UserError: if the data are not where the run found them, or are not the same any more.
    """
    node = record.config.get("dataset")
    if node is None:
        raise UserError(f"{record.name}: the record's configuration names no dataset; slices need the annotations")
    data = make_dataset(node, f"{record.folder / FILE_NAME if record.folder else record.name}: config")
    try:
        table = data.load(result.split)
    except OSError as error:  # a path in the record that is none
        raise UserError(f"{record.name}: its data cannot be read ({one_line(error)[:200]})") from None
    options = record.config.get("eval") or {}
    whole = table
    for limit in filter(None, (options.get("limit"), options.get("stress_limit"))):
        if table.hash != result.data_hash:
            table = whole.take(range(min(limit, len(whole))))
    if table.hash != result.data_hash:
        raise UserError(
            f"{record.name}: {result.dataset} {result.split} is not the data that was scored (hash {table.hash[:8]}, "
            f"record {result.data_hash[:8]}); evaluate the run again"
        )
    return data, table


class Side(NamedTuple):
    """One of two results that are compared."""

    record: Record
    result: Result


def versus(
    first: Record, second: Record, *, resamples: int = 1000, worst: int = 12, needed: bool = True
) -> list[Versus]:
    """Compare two runs on every split and task that both were scored on, with the default metrics.

    Args:
        resamples: of bootstrap and permutation tests.
        worst: expressions to list where they disagree most.
        needed: having nothing to compare is an error.

    Raises:
        UserError: if they have no result on the same data, or predictions or annotations are gone.
    """
    comparisons = [
        _versus(Side(first, left), Side(second, right), resamples, worst)
        for left in first.results
        for right in second.results
        if _same(left, right) and (left.prediction_set == right.prediction_set or not _share_a_set(first, second))
    ]
    if not comparisons and needed:
        raise UserError(
            f"{first.name} and {second.name} have no result on the same data, task and split; "
            "vgbench compare prints what they have"
        )
    return comparisons


def _same(left: Result, right: Result) -> bool:
    """Whether two results are of one task on the same data, both with the default metrics alone."""
    if any(metric.variant != "default" for result in (left, right) for metric in result.metrics.values()):
        return False
    if task_of(left.task).on_request:  # no number of a single expression; stress tests: see .stress
        return False
    identity = attrgetter("dataset", "split_by", "split", "task", "data_hash")
    return identity(left) == identity(right)


def _share_a_set(first: Record, second: Record) -> bool:
    """Whether the two runs have a prediction set of the same name: then only equal names are compared."""
    return bool({r.prediction_set for r in first.results} & {r.prediction_set for r in second.results})


def _versus(first: Side, second: Side, resamples: int, worst: int) -> Versus:
    data, table = load_table(*first)
    task = task_of(first.result.task)
    predictions = side_predictions(first, table), side_predictions(second, table)
    left, right = (
        evaluate_predictions(table, answers, tasks=[task.name], bootstrap=0).outcomes[task.name]
        for answers in predictions
    )
    labels = row_label(*first), row_label(*second)
    if labels[0] == labels[1]:
        labels = f"{labels[0]} ({first.record.name})", f"{labels[1]} ({second.record.name})"
    return Versus(
        first=labels[0],
        second=labels[1],
        result=first.result,
        metric=task.headline[0],
        gradual=task.gradual,
        slices=_tests(left, right, task.headline[0], table, resamples),
        disagreements=_disagreements(left, right, task.gradual, table, worst),
        table=table,
        data=data,
        predictions=predictions,
    )


def side_predictions(side: Side, table: AnnotationTable) -> Predictions:
    """What a run predicted on a split; raises UserError if it is gone."""
    record, result = side
    if result.predictions is None or record.folder is None:
        raise UserError(f"{record.name}: its record names no predictions file; evaluate the run again")
    return read_predictions(file_inside(record.folder, result.predictions), table, missing="empty")


def _tests(first: Outcomes, second: Outcomes, metric: str, table: AnnotationTable, resamples: int) -> list[Slice]:
    """The whole split, then every slice that both runs have values in."""
    images = table.column("image_id")
    parts = [("", "all", np.ones(len(table), dtype=bool))]
    for name, rule in buckets(table).items():
        parts += [(name, bucket, rule.index == number) for number, bucket in enumerate(rule.names)]
    lines = []
    for name, bucket, members in parts:
        left, right = first.take(members[first.rows]), second.take(members[second.rows])
        values = left.ratios[metric].value, right.ratios[metric].value
        if len(left.rows) and not any(map(math.isnan, values)):
            test = compare_paired(left, right, metric, images[left.rows], resamples)
            lines.append(Slice(name, bucket, *values, test))
    passed = holm([line.test.p_permutation for line in lines[1:]])
    whole = lines[0].test.p_permutation <= 0.05  # the one question that was asked first needs no correction
    return [
        Slice(line.rule, line.bucket, line.first, line.second, line.test, significant)
        for line, significant in zip(lines, [whole, *passed], strict=True)
    ]


def holm(p_values: Sequence[float], level: float = 0.05) -> list[bool]:
    """Which of several tests are significant when the chance of any false one is to stay below ``level`` (Holm)."""
    passed = [False] * len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] > level / (len(p_values) - rank):
            break
        passed[place] = True
    return passed


def _disagreements(
    first: Outcomes, second: Outcomes, metric: str, table: AnnotationTable, count: int
) -> list[Disagreement]:
    def percent(outcomes: Outcomes) -> np.ndarray:
        ratio = outcomes.ratios[metric]
        return np.divide(100.0 * ratio.num, ratio.den, out=np.zeros(len(ratio.num)), where=ratio.den != 0)

    left, right = percent(first), percent(second)
    order = np.argsort(-np.abs(right - left), kind="stable")[:count]
    disagreements = []
    for place in order[left[order] != right[order]]:
        row = table.row(int(first.rows[place]))
        scores = float(left[place]), float(right[place])
        disagreements.append(Disagreement(int(first.rows[place]), row.key, row.expression, *scores))
    return disagreements
