"""Stress tests as tables: a row for each probe, a column for each model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vgbench.core.grid import Grid, GridCell, Heading, text_row
from vgbench.core.registry import probes
from vgbench.leaderboard.columns import row_label
from vgbench.leaderboard.tables import folder_names
from vgbench.metrics.tasks import STRESS
from vgbench.probes.names import split_and_probe
from vgbench.records.record import Metric, Record, Result

LEGEND = (
    "a / b: right answers in percent to the changed questions, and to the same expressions unchanged; "
    "±x: half of the 95 % interval of a (bootstrap clustered by image)."
)
JUDGED = {  # by Expectation
    "follow": "must follow",
    "stay": "must stay",
    "move": "must move",
    "reject": "must be rejected",
    "lose": "should be lost",
    "same": "unchanged",
}


class StressSplit(NamedTuple):
    """What probes have to share to stand in one table."""

    embedded: bool
    dataset: str
    split_by: str | None
    split: str

    @property
    def where(self) -> str:
        """Data set and split, and who made the split."""
        return " ".join(part for part in (self.dataset, None if self.embedded else self.split_by, self.split) if part)


@dataclass
class StressTable:
    """All results of probes on one split.

    Attributes:
        labels: of the models, in the order of their records.
        results: probe -> data hash -> label -> result: questions that differ never share a row.
    """

    labels: list[str] = field(default_factory=list)
    results: dict[str, dict[str, dict[str, Result]]] = field(default_factory=dict)


def judged(spec: str) -> str:
    """How the answers of a probe are judged, for a reader; empty if the probe is not installed."""
    if spec.partition(":")[0].partition("@")[0] not in probes:
        return ""
    from vgbench.probes.catalog import parse  # brings numpy along

    return JUDGED[parse(spec)[0].expectation.value]


def probe_order(spec: str) -> tuple[int, str]:
    """Sort key: by what is expected, then by name."""
    texts = list(JUDGED.values())
    text = judged(spec)
    return (texts.index(text) if text in texts else len(texts), spec)


def stress_tables(records: Sequence[Record]) -> dict[StressSplit, StressTable]:
    """The results of probes by split. Equal labels get the name of their run behind them."""
    tables: dict[StressSplit, StressTable] = {}
    names = folder_names(records)
    labels = [row_label(record, result) for record in records for result in stressed(record)[:1]]
    for record, name in zip(records, names, strict=True):
        for result in stressed(record):
            split, spec = split_and_probe(result.split)
            table = tables.setdefault(
                StressSplit(result.embedded, result.dataset, result.split_by, split), StressTable()
            )
            label = row_label(record, result)
            if labels.count(row_label(record, stressed(record)[0])) > 1:
                label += f" ({name})"
            if label not in table.labels:
                table.labels.append(label)
            table.results.setdefault(spec, {}).setdefault(result.data_hash, {})[label] = result
    return dict(sorted(tables.items(), key=lambda item: str(item[0])))


def stressed(record: Record) -> list[Result]:
    """The results of a run's probes."""
    return [result for result in record.results if result.task == STRESS]


def stress_grids(records: Sequence[Record]) -> list[Grid]:
    """A table for each split that probes asked about."""
    return [_grid(where, table) for where, table in stress_tables(records).items()]


def _grid(where: StressSplit, table: StressTable) -> Grid:
    headings = [Heading("Probe", align="left"), Heading("The answer", align="left"), Heading("n")]
    headings += [Heading(label) for label in table.labels]
    rows, notes = [], []
    for spec in sorted(table.results, key=probe_order):
        for number, (data_hash, by_label) in enumerate(table.results[spec].items()):
            count = max(result.metrics["right"].n for result in by_label.values())
            mark = f" #{number + 1}" if len(table.results[spec]) > 1 else ""
            if mark:
                notes.append(f"{spec}{mark}: questions {data_hash[:8]}, not those of the other rows of this probe")
            cells = [_cell(by_label.get(label)) for label in table.labels]
            rows.append([*text_row(spec + mark, judged(spec), str(count)), *cells])
    data = "embedded (rendered)" if where.embedded else "real"
    return Grid(f"Stress tests on {data} data: {where.where}", headings, rows, [LEGEND], notes)


def _cell(result: Result | None) -> GridCell:
    if result is None:
        return GridCell()
    right, plain = result.metrics["right"], result.metrics.get("plain")
    text = percent(right) if plain is None else f"{percent(right)} / {percent(plain)}"
    spread = None if right.low is None or right.high is None else (right.high - right.low) / 2
    return GridCell(text, spread=spread)


def percent(metric: Metric) -> str:
    """A value with one decimal."""
    return "n/d" if metric.value is None else f"{metric.value:.1f}"
