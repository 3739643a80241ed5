"""Stress tests as tables: a row for each probe, a column for each model; and paired tests between two runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vgbench.core.registry import probes
from vgbench.leaderboard.columns import row_label
from vgbench.leaderboard.grid import Grid, GridCell, Heading, text_row
from vgbench.leaderboard.tables import folder_names
from vgbench.leaderboard.versus import holm
from vgbench.metrics.bootstrap import compare_paired
from vgbench.metrics.tasks import STRESS
from vgbench.probes.base import Expectation
from vgbench.probes.catalog import parse
from vgbench.probes.files import outcomes_file
from vgbench.probes.questions import split_and_probe
from vgbench.probes.scoring import read_outcomes
from vgbench.records.record import Metric, Record, Result

LEGEND = (
    "a / b: right answers in percent to the changed questions, and to the same expressions unchanged; "
    "±x: half of the 95 % interval of a (bootstrap clustered by image)."
)
TESTS = (
    "p: paired permutation test, exchanging the two image by image. *: significant at 5 % after Holm's correction "
    "for all probes."
)
JUDGED = {
    Expectation.FOLLOW: "must follow",
    Expectation.STAY: "must stay",
    Expectation.MOVE: "must move",
    Expectation.REJECT: "must be rejected",
    Expectation.LOSE: "should be lost",
    Expectation.SAME: "unchanged",
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
    name = spec.partition(":")[0].partition("@")[0]
    return JUDGED[parse(spec)[0].expectation] if name in probes else ""


def probe_order(spec: str) -> tuple[int, str]:
    """Sort key: by what is expected, then by name."""
    texts = list(JUDGED.values())
    text = judged(spec)
    return (texts.index(text) if text in texts else len(texts), spec)


def stress_tables(records: Sequence[Record]) -> dict[StressSplit, StressTable]:
    """The results of probes by split. Equal labels get the name of their run behind them."""
    tables: dict[StressSplit, StressTable] = {}
    names = folder_names(records)
    labels = [row_label(record, result) for record in records for result in _stressed(record)[:1]]
    for record, name in zip(records, names, strict=True):
        for result in _stressed(record):
            split, spec = split_and_probe(result.split)
            table = tables.setdefault(
                StressSplit(result.embedded, result.dataset, result.split_by, split), StressTable()
            )
            label = row_label(record, result)
            if labels.count(row_label(record, _stressed(record)[0])) > 1:
                label += f" ({name})"
            if label not in table.labels:
                table.labels.append(label)
            table.results.setdefault(spec, {}).setdefault(result.data_hash, {})[label] = result
    return dict(sorted(tables.items(), key=lambda item: str(item[0])))


def _stressed(record: Record) -> list[Result]:
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
    text = _number(right) if plain is None else f"{_number(right)} / {_number(plain)}"
    spread = None if right.low is None or right.high is None else (right.high - right.low) / 2
    return GridCell(text, spread=spread)


def _number(metric: Metric) -> str:
    return "n/d" if metric.value is None else f"{metric.value:.1f}"


def versus_grids(first: Record, second: Record, resamples: int = 1000) -> list[Grid]:
    """Paired tests between two runs, probe by probe, where both asked the same questions and kept their outcomes."""
    grids = []
    rights = {(result.split, result.data_hash, result.prediction_set): result for result in _stressed(second)}
    tests: dict[str, list[tuple[str, Result, Result]]] = {}
    for left in _stressed(first):
        others = [result for key, result in rights.items() if key[:2] == (left.split, left.data_hash)]
        same = [result for result in others if result.prediction_set == left.prediction_set]
        for right in same or others:
            pair = f"{_label(second, right)} against {_label(first, left)}"
            tests.setdefault(pair, []).append((left.split, left, right))
    for pair, lines in tests.items():
        grid = _test_grid(pair, lines, (first, second), resamples)
        if grid is not None:
            grids.append(grid)
    return grids


def _label(record: Record, result: Result) -> str:
    return f"{row_label(record, result)} ({record.name})"


def _test_grid(
    pair: str, lines: Sequence[tuple[str, Result, Result]], records: tuple[Record, Record], resamples: int
) -> Grid | None:
    """The tests of one pair of outputs; None where the run folders have no outcomes any more."""
    comparisons = []
    for split, left, right in lines:
        files = [
            outcomes_file(record.folder, split, result.prediction_set)
            for record, result in zip(records, (left, right), strict=True)
            if record.folder is not None
        ]
        if len(files) < 2 or not all(file.is_file() for file in files):
            continue
        one, two = (read_outcomes(file) for file in files)
        if one.data_hash == two.data_hash == left.data_hash:
            test = compare_paired(one.outcomes, two.outcomes, "right", one.images, resamples)
            comparisons.append((split, left, right, test))
    if not comparisons:
        return None
    significant = holm([test.p_permutation for *_, test in comparisons])
    headings = [Heading("probe", align="left"), *map(Heading, ("first", "second", "difference"))]
    headings += [Heading("95 % interval", align="centre"), Heading("p"), Heading("n")]
    rows = [
        text_row(
            split,
            _number(left.metrics["right"]),
            _number(right.metrics["right"]),
            f"{test.difference:+.2f}{' *' if mark else ''}",
            f"{test.low:+.2f} to {test.high:+.2f}",
            f"{test.p_permutation:.3f}",
            str(test.n),
        )
        for (split, left, right, test), mark in zip(comparisons, significant, strict=True)
    ]
    return Grid(f"Stress tests: {pair}", headings, rows, [TESTS])
