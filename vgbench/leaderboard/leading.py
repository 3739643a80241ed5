"""Which values of a column are shown as the best: all that their intervals cannot tell from the highest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from vgbench.leaderboard.columns import Column
from vgbench.leaderboard.tables import Table, mean_value, spread
from vgbench.metrics.tasks import task_of
from vgbench.records.record import Metric

LEGEND = (
    "Bold: the best of its column and every value whose ± overlaps with its (compare --slices tests two runs on the "
    "same images)."
)

Key = TypeVar("Key")


class Span(NamedTuple):
    """A value with the ends of its interval; without an interval both are the value itself."""

    value: float
    low: float
    high: float


def span(metrics: Sequence[Metric] | None) -> Span | None:
    """What a cell's metrics (one, or one per seed) say: the 95 % interval of one, of several seeds the mean with its
    standard deviation to both sides; None if nothing is defined."""
    value = mean_value(metrics)
    if value is None or not metrics:
        return None
    half, seeds = spread(metrics)
    if half is None:
        return Span(value, value, value)
    if seeds > 1:
        return Span(value, value - half, value + half)
    low, high = metrics[0].low, metrics[0].high
    return Span(value, value if low is None else low, value if high is None else high)


def leading(spans: Mapping[Key, Span], lower_is_better: bool = False) -> set[Key]:
    """The keys of the best value, of those that are printed alike, and of those whose intervals overlap with its; none
    where there is nothing to be better than."""
    if len(spans) < 2:
        return set()
    best = (min if lower_is_better else max)(spans.values(), key=lambda one: one.value)
    return {
        key
        for key, one in spans.items()
        if round(one.value, 2) == round(best.value, 2) or (one.high > best.low and one.low < best.high)
    }


def leading_rows(table: Table) -> dict[Column, set[int]]:
    """The places of the leading rows in each column; controls, and parts of a split, never lead."""
    rows: dict[Column, set[int]] = {}
    for column in table.columns:
        if column.control:
            continue
        spans = {
            place: one
            for place, row in enumerate(table.rows)
            if column not in row.parts and (one := span(row.cells.get(column))) is not None
        }
        rows[column] = leading(spans, task_of(column.task).lower_is_better)
    return rows
