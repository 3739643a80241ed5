"""Measured against published: a verdict per cell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from vgbench.leaderboard.columns import result_column
from vgbench.leaderboard.pairs import Obstacle, Pair, pair_of
from vgbench.records import store
from vgbench.records.record import FILE_NAME, Metric, Record, Result
from vgbench.reproduce.existing import find_result
from vgbench.reproduce.plan import Cell, Plan, Step

#: What a table states itself: the metric's variant and the split's author are part of its cells.
STATED = (Obstacle.METRIC_VARIANT, Obstacle.SPLIT_AUTHOR)


class Outcome(Enum):
    """What came of a cell."""

    REPRODUCED = "reproduced"
    DIFFERS = "differs"
    NOT_JUDGED = "measured but not judged"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Line:
    """A cell with its outcome.

    Attributes:
        verdict: the outcome for a reader, with the reason where it is not judged or not run.
        reference: published or committed value, in percent.
        difference: ours minus ``reference``.
        run: name of the run that ``ours`` is of.
    """

    cell: Cell
    outcome: Outcome
    verdict: str
    reference: float | None = None
    ours: Metric | None = None
    difference: float | None = None
    run: str = ""


def judge(plan: Plan, cell: Cell, step: Step | None, committed: Path | None = None) -> Line:
    """The verdict on a cell.

    "reproduced": the published value lies in our 95 % interval (give or take its own rounding); where the table states
    a ``tolerance``, our value is that close to the committed one of the same weights on the same data.

    Args:
        committed: folder of committed run folders, the reference of tables without published values.
    """
    if step is None:
        return _not_run(cell, "no run is known to make this cell")
    if step.record is None:
        return _not_run(cell, step.why)
    record = step.record
    scored = find_result(record, cell)
    if scored is None:
        return _not_run(cell, f"{record.name} did not score it", record.name)
    result, metric = scored
    if cell.published is None:
        return _against_committed(plan, cell, record, result, metric, committed)
    if metric.value is None:
        return Line(
            cell, Outcome.NOT_JUDGED, "not defined on this split", cell.published.value, metric, run=record.name
        )
    column = result_column(result, cell.metric, cell.variant)
    return _against_published(cell, pair_of(record, result, column, metric, cell.published))


def _not_run(cell: Cell, why: str, run: str = "") -> Line:
    reference = cell.published.value if cell.published else None
    return Line(cell, Outcome.NOT_RUN, f"not run: {why}", reference, run=run)


def _against_published(cell: Cell, pair: Pair) -> Line:
    """Whether the published value lies in our interval."""
    metric, reference = pair.measured, pair.published.value

    def line(outcome: Outcome, verdict: str) -> Line:
        return Line(cell, outcome, verdict, reference, metric, pair.difference, pair.record.name)

    reasons = [str(reason) for reason in pair.breaking if reason.obstacle not in STATED]
    if reasons:
        return line(Outcome.NOT_JUDGED, f"not comparable: {'; '.join(reasons)}")
    if metric.low is None or metric.high is None:
        return line(Outcome.NOT_JUDGED, "no interval (eval.bootstrap=0): not judged")
    rounding = 0.05 if round(reference * 10) == reference * 10 else 0.005
    inside = metric.low - rounding <= reference <= metric.high + rounding
    outcome = Outcome.REPRODUCED if inside else Outcome.DIFFERS
    return line(outcome, outcome.value)


def _against_committed(
    plan: Plan, cell: Cell, record: Record, result: Result, metric: Metric, committed: Path | None
) -> Line:
    """Whether our value is close enough to the committed one of the same weights on the same data."""
    reference, why = _committed_value(record, result, cell, committed)
    if reference is None or metric.value is None:
        return Line(cell, Outcome.NOT_JUDGED, why, None, metric, run=record.name)
    difference = metric.value - reference
    outcome = Outcome.REPRODUCED if abs(difference) <= (plan.tolerance or 0.0) else Outcome.DIFFERS
    return Line(cell, outcome, outcome.value, reference, metric, difference, record.name)


def _committed_value(record: Record, result: Result, cell: Cell, committed: Path | None) -> tuple[float | None, str]:
    """The committed value of the same weights on the same data, or None and what to say instead."""
    assert cell.job is not None
    if committed is None or not (committed / cell.job.name / FILE_NAME).is_file():
        return None, "measured; nothing published or committed to compare with"
    reference = store.read(committed / cell.job.name)
    if (
        reference.checkpoint is None
        or record.checkpoint is None
        or reference.checkpoint.sha256 != record.checkpoint.sha256
    ):
        return None, "measured; the committed result is of other weights"
    scored = find_result(reference, cell)
    if scored is None or scored[0].data_hash != result.data_hash:
        return None, "measured; the committed result is on other data"
    return scored[1].value, ""
