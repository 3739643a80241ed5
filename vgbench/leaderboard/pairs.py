"""Measured numbers beside published ones, and what keeps them apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from vgbench.leaderboard.columns import Column, result_column, row_label
from vgbench.leaderboard.names import paper_name, plain_name
from vgbench.leaderboard.published import PublishedRow, published_metric, published_names, published_task
from vgbench.leaderboard.training_data import NOT_KNOWN, statement_of
from vgbench.records.record import Metric, Record, Result

# letters of the sizes, as backbones are named: ViT-B, BEiT-3-L
_SIZES = {"tiny": "T", "small": "S", "base": "B", "large": "L", "huge": "H"}


class Obstacle(Enum):
    """What makes a measured and a published number incomparable."""

    METRIC_VARIANT = "metric variant"
    SPLIT_AUTHOR = "split author"
    MODEL_SIZE = "model size"
    LEAKED_DATA = "leaked data"
    RESOLUTION = "resolution"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class Reason:
    """Why two numbers are not comparable: which obstacle, and the two sides of it in words."""

    obstacle: Obstacle
    detail: str

    def __str__(self) -> str:
        return f"{self.obstacle.value}: {self.detail}"


@dataclass(frozen=True)
class Pair:
    """A measured number beside a published one.

    Attributes:
        breaking: what makes the two incomparable.
        remarks: what else one should know.
    """

    record: Record
    result: Result
    column: Column
    measured: Metric
    published: PublishedRow
    breaking: tuple[Reason, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def row(self) -> str:
        return row_label(self.record, self.result)

    @property
    def difference(self) -> float | None:
        """Measured minus published, in percent; None where the metric is not defined."""
        return None if self.measured.value is None else self.measured.value - self.published.value

    @property
    def comparable(self) -> bool:
        return not self.breaking

    @property
    def notes(self) -> tuple[str, ...]:
        """Reasons and remarks as texts."""
        return (*map(str, self.breaking), *self.remarks)


class _Question(NamedTuple):
    """What a published number and a measured one have to share to be laid side by side."""

    method: str
    task: str
    split: str
    metric: str


def published_pairs(records: Iterable[Record], published: Sequence[PublishedRow]) -> list[Pair]:
    """Every measured number on real data beside the published numbers of the same method, task, split and metric.

    Where no number of the same split author exists, those of another author are listed (and marked). A run that states
    its ``published_variant`` meets only that one; a prediction set does not meet rows that name another one.
    """
    rows_by_question: dict[_Question, list[PublishedRow]] = {}
    for row in published:
        question = _Question(plain_name(row.method), published_task(row), row.split, published_metric(row)[0])
        rows_by_question.setdefault(question, []).append(row)
    pairs = []
    for record in records:
        for result in record.results:
            for name, metric in {} if result.embedded else result.metrics.items():
                column = result_column(result, name, metric.variant)
                rows = _candidates(record, result, column.metric, rows_by_question)
                pairs += [pair_of(record, result, column, metric, row) for row in _nearest(rows, result)]
    return pairs


def _candidates(
    record: Record, result: Result, metric: str, rows_by_question: Mapping[_Question, Sequence[PublishedRow]]
) -> list[PublishedRow]:
    """The published numbers of a run's method and variant for a metric of a result, on whichever data set."""
    other_sets = {other.prediction_set for other in record.results} - {result.prediction_set}
    label = record.label or record.method
    methods = dict.fromkeys(map(plain_name, (record.method, label, paper_name(label))))
    return [
        row
        for method in methods
        for row in rows_by_question.get(_Question(method, result.task, result.split, metric), ())
        if record.published_variant in (None, row.variant)
        and not any(other in row.variant.lower() for other in other_sets)
    ]


def _nearest(rows: Sequence[PublishedRow], result: Result) -> list[PublishedRow]:
    """Those on the data set of a result: with its split author, or else with any."""
    names = published_names(result.dataset, result.split_by)
    same_author = [row for row in rows if row.dataset in names]
    names = published_names(result.dataset, None)
    return same_author or [row for row in rows if row.dataset.partition("_")[0] in names]


def pair_of(record: Record, result: Result, column: Column, metric: Metric, row: PublishedRow) -> Pair:
    """A measured number beside a published one, with what keeps them apart."""
    breaking = (*_other_question(result, metric, row), *_other_experiment(record, result, row))
    return Pair(record, result, column, metric, row, breaking, tuple(_remarks(record, result, row)))


def _other_question(result: Result, metric: Metric, row: PublishedRow) -> Iterator[Reason]:
    """Definitions in which a published number differs from a measured one."""
    variant = published_metric(row)[1]
    if metric.variant != variant:
        yield Reason(Obstacle.METRIC_VARIANT, f"measured {metric.variant}, published {variant}")
    if row.dataset not in published_names(result.dataset, result.split_by):
        yield Reason(Obstacle.SPLIT_AUTHOR, f"measured {result.split_by}, published {row.dataset}")


def _other_experiment(record: Record, result: Result, row: PublishedRow) -> Iterator[Reason]:
    """What was done otherwise than for the published number."""
    size = _SIZES.get(record.variant.lower())
    sizes = set(re.findall(r"(?:ViT|BEiT-?3)-(?:Det-)?([TSBLH])\b", f"{row.variant} {row.backbone}"))
    if size and sizes and size not in sizes:
        yield Reason(Obstacle.MODEL_SIZE, f"measured {record.variant}, published {'/'.join(sorted(sizes))}")
    if result.leaked_images:
        yield Reason(Obstacle.LEAKED_DATA, f"{result.leaked_images} images of the split were trained on")
    if result.resolution != "original":
        yield Reason(Obstacle.RESOLUTION, f"scored at {result.resolution}")
    if result.expected_expressions not in (None, result.expressions):
        scored = f"{result.expressions} of {result.expected_expressions} expressions scored"
        yield Reason(Obstacle.INCOMPLETE, scored)


def _remarks(record: Record, result: Result, row: PublishedRow) -> Iterator[str]:
    """What one should know of two numbers that may well be compared."""
    if result.leaked_images is None:
        yield str(statement_of([record.label or record.method]) or NOT_KNOWN)
    if record.cost.answer_s is not None:
        yield f"a language model: published with a prompt and a resolution of its own, measured as {record.variant}"
    if record.training is not None:
        trained = sorted({data.dataset for data in (*record.training.earlier, *record.training.data)})
        if len(trained) != 1 or not row.training_data.startswith("single dataset"):
            yield f"training data: measured {' + '.join(trained) or 'unknown'}, published {row.training_data!r}"
    if row.quoted_by:
        yield f"published number quoted by {row.quoted_by}"
