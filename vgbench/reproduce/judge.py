"""Measured against published: a verdict per cell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vgbench.leaderboard.columns import result_column
from vgbench.leaderboard.pairs import Obstacle, pair_of
from vgbench.records import store
from vgbench.records.record import FILE_NAME, Metric, Record, Result
from vgbench.reproduce.existing import find_result
from vgbench.reproduce.plan import Cell, Plan, Step


@dataclass(frozen=True)
class Line:
    """A cell with its outcome. ``difference`` is ours minus ``reference``."""

    cell: Cell
    reference: float | None
    ours: Metric | None
    difference: float | None
    verdict: str
    run: str = ""

    @property
    def differs(self) -> bool:
        return self.verdict.startswith("differs")


def judge(plan: Plan, cell: Cell, step: Step | None, committed: Path | None = None) -> Line:
    """The verdict on a cell.

    "reproduced": the published value lies in our 95 % interval (give or take its own rounding); where the table states
    a ``tolerance``, our value is that close to the committed one of the same weights on the same data.

    Args:
        committed: folder of committed run folders, the reference of tables without published values.
    """
    published = cell.published.value if cell.published else None
    if step is None:
        return Line(cell, published, None, None, "not run: no run is known to make this cell")
    if step.record is None:
        return Line(cell, published, None, None, f"not run: {step.why}")
    found = find_result(step.record, cell)
    if found is None:
        return Line(cell, published, None, None, f"not run: {step.record.name} did not score it", step.record.name)
    result, metric = found
    run = step.record.name
    if cell.published is None:
        reference, why = _committed_value(step.record, result, cell, committed)
        if reference is None or metric.value is None:
            return Line(cell, None, metric, None, why, run)
        difference = metric.value - reference
        close = abs(difference) <= (plan.tolerance or 0.0)
        return Line(cell, reference, metric, difference, "reproduced" if close else "differs", run)
    if metric.value is None:
        return Line(cell, published, metric, None, "not defined on this split", run)
    pair = pair_of(step.record, result, result_column(result, cell.metric, cell.variant), metric, cell.published)
    # a table states the metric's variant and the split's author itself
    by_table = (Obstacle.METRIC_VARIANT, Obstacle.SPLIT_AUTHOR)
    against = [str(reason) for reason in pair.breaking if reason.obstacle not in by_table]
    if against:
        return Line(cell, published, metric, pair.difference, f"not comparable: {'; '.join(against)}", run)
    if metric.low is None or metric.high is None:
        return Line(cell, published, metric, pair.difference, "no interval (eval.bootstrap=0): not judged", run)
    half = 0.05 if round(cell.published.value * 10) == cell.published.value * 10 else 0.005
    inside = metric.low - half <= cell.published.value <= metric.high + half
    return Line(cell, published, metric, pair.difference, "reproduced" if inside else "differs", run)


def _committed_value(record: Record, result: Result, cell: Cell, committed: Path | None) -> tuple[float | None, str]:
    """The committed value of the same weights on the same data, or None and what to say instead."""
    assert cell.job is not None
    if committed is None or not (committed / cell.job.name / FILE_NAME).is_file():
        return None, "measured; nothing published or committed to compare with"
    known = store.read(committed / cell.job.name)
    found = find_result(known, cell)
    if known.checkpoint is None or record.checkpoint is None or known.checkpoint.sha256 != record.checkpoint.sha256:
        return None, "measured; the committed result is of other weights"
    if found is None or found[0].data_hash != result.data_hash:
        return None, "measured; the committed result is on other data"
    return found[1].value, ""
