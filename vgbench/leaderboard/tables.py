"""Leaderboards: records in, tables out. Nothing is computed here but differences, means over seeds and roundings.

Three rules cannot be switched off. Embedded and real data never share a table. Two numbers share a column only if data
set, split, metric, metric variant and data hash agree. A published number that is not comparable says why, from what
the records know.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vgbench.leaderboard.columns import HEADLINE, Column, metric_title, numbers, provenance, row_label, task_title
from vgbench.records.record import Metric, Record


@dataclass
class Row:
    """One line of a leaderboard. A cell holds one metric, or one per seed; ``runs``: config hash and seed of each."""

    label: str
    embedded: bool
    provenance: str
    cells: dict[Column, list[Metric]] = field(default_factory=dict)
    runs: dict[Column, list[tuple[str, int | None]]] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    prediction_set: str = "main"


@dataclass
class Table:
    """Rows by columns of one task on one kind of data."""

    title: str
    columns: list[Column]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    marks: dict[Column, str] = field(default_factory=dict)  # printed behind a column's title

    def heading(self, column: Column) -> tuple[str, str]:
        """Data set and split, then the metric."""
        return column.where + self.marks.get(column, ""), metric_title(column.metric, column.variant, column.control)


def tables(records: Iterable[Record], *, all_metrics: bool = False, seeds: bool = False) -> list[Table]:
    """One table per task and kind of data (real, embedded).

    Runs of one label, variant, prediction set, checkpoint origin, size and device fill one row, as in a paper's table,
    until a cell is taken twice: then there is a second row, named by its seed or run folder. With ``seeds``, runs that
    differ in nothing but the seed share the cell, as mean and standard deviation.
    """
    by_key: dict[tuple[Any, ...], list[Row]] = {}
    for record in records:
        for result in record.results:
            cells = dict(numbers(result))
            hardware = record.environment.hardware
            key = (
                *(record.method, row_label(record, result), result.prediction_set, result.embedded, provenance(record)),
                *(record.cost.parameters, hardware.gpu or hardware.cpu, None if seeds else record.seed),
            )
            identity = (record.config_hash, record.seed)
            alike = by_key.setdefault(key, [])
            row = next((row for row in alike if _fits(row, cells, identity, seeds)), None)
            if row is None:
                row = Row(row_label(record, result), result.embedded, provenance(record))
                row.prediction_set = result.prediction_set
                alike.append(row)
            for column, metric in cells.items():
                row.cells.setdefault(column, []).append(metric)
                row.runs.setdefault(column, []).append(identity)
            if not any(known is record for known in row.records):
                row.records.append(record)
    rows = [row for alike in by_key.values() for row in alike]
    _tell_apart(rows)

    columns = sorted({column for row in rows for column in row.cells}, key=Column.sort_key)
    left_out: set[Column] = set()
    if not all_metrics:
        columns = [column for column in columns if is_headline(column, columns)]
        left_out = second_definitions(columns, [row.cells for row in rows])
        columns = [column for column in columns if column not in left_out]
    made = []
    for embedded, task in dict.fromkeys((column.embedded, column.task) for column in columns):
        own = [column for column in columns if (column.embedded, column.task) == (embedded, task)]
        table = Table(task_title(task, embedded), own, [row for row in rows if not row.cells.keys().isdisjoint(own)])
        table.rows.sort(key=_by_first(own))
        _mark_data(table)
        hidden = [column for column in left_out if (column.embedded, column.task) == (embedded, task)]
        titles = sorted({metric_title(column.metric, column.variant) for column in hidden})
        table.notes += [f"{', '.join(titles)}: left out, --all-metrics shows them"] if titles else []
        made.append(table)
    return made


def _fits(row: Row, cells: dict[Column, Metric], identity: tuple[str, int | None], seeds: bool) -> bool:
    """Whether a run's cells are free in the row, or (``seeds``) hold other seeds of the same configuration."""
    if row.runs.keys().isdisjoint(cells):  # stops at the first one taken: with 1,000 runs this is asked a million times
        return True
    taken = [row.runs[column] for column in cells if column in row.runs] if seeds else []
    return (
        seeds
        and all({identity[0]} == {hash for hash, _ in runs} for runs in taken)
        and not any(identity in runs for runs in taken)
    )


def _by_first(columns: Sequence[Column]) -> Callable[[Row], float]:
    """Sort key: the value in the first column, best first, empty cells last."""

    def key(row: Row) -> float:
        value = mean_value(row.cells.get(columns[0]))
        return float("inf") if value is None else -value

    return key


def is_headline(column: Column, columns: Sequence[Column]) -> bool:
    shown = HEADLINE.get(column.task, ())
    return column.metric in shown or not any(
        other.metric in shown for other in columns if (other.task, other.embedded) == (column.task, column.embedded)
    )


def second_definitions(columns: Iterable[Column], cells: Sequence[Container[Column]]) -> set[Column]:
    """Columns of a metric variant whose every row (its ``cells``) has the default definition of that metric, too."""
    return {
        column
        for column in columns
        if column.variant != "default"
        and all(column._replace(variant="default") in row for row in cells if column in row)
    }


def _tell_apart(rows: list[Row]) -> None:
    """Rows that would look the same in a table get the seed, or else the folder of their run, behind the label."""
    alike: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        for where in dict.fromkeys((column.embedded, column.task) for column in row.cells):
            alike.setdefault((row.label, row.provenance, *where), []).append(row)
    suffixes: dict[int, str] = {}
    for twins in alike.values():
        seeds = {record.seed for row in twins for record in row.records}
        single = len(seeds) == len(twins) and all(len({record.seed for record in row.records}) == 1 for row in twins)
        places = folder_names([row.records[0] for row in twins])
        for row, place in zip(twins, places, strict=True) if len(twins) > 1 else ():
            named = suffixes.get(id(row), "seed").startswith("seed") and single
            suffixes[id(row)] = f"seed {row.records[0].seed}" if named else place
    for row in rows:
        row.label += f" ({suffixes[id(row)]})" if id(row) in suffixes else ""


def folder_names(records: Sequence[Record]) -> list[str]:
    """Names of run folders, with the folder above where two are called the same."""
    names = Counter(record.name for record in records)
    return [
        f"{record.folder.resolve().parent.name}/{record.name}"
        if names[record.name] > 1 and record.folder
        else record.name
        for record in records
    ]


def _mark_data(table: Table) -> None:
    """A split of which there are several versions has its columns marked, and a note about each version."""
    versions: dict[tuple[Any, ...], list[str]] = {}
    for column in table.columns:
        hashes = versions.setdefault(column[:5], [])
        if column.data_hash not in hashes:
            hashes.append(column.data_hash)
    for column in table.columns:
        hashes = versions[column[:5]]
        if len(hashes) > 1:
            mark = f" #{hashes.index(column.data_hash) + 1}"
            table.marks[column] = mark
            sizes = {metric.n for row in table.rows for metric in row.cells.get(column, ())}
            note = (
                f"{table.heading(column)[0]}: data {column.data_hash[:8]}, {max(sizes)} expressions; "
                "not the same data as the other columns of this split"
            )
            if not any(known.split(",")[0] == note.split(",")[0] for known in table.notes):
                table.notes.append(note)


def mean_value(metrics: Sequence[Metric] | None) -> float | None:
    values = [metric.value for metric in metrics or () if metric.value is not None]
    return statistics.fmean(values) if values else None


def spread(metrics: Sequence[Metric]) -> tuple[float | None, int]:
    """Half the width of the interval, or the standard deviation over several seeds; and the number of seeds."""
    values = [metric.value for metric in metrics if metric.value is not None]
    if len(values) > 1:
        return statistics.stdev(values), len(values)
    only = metrics[0]
    return ((only.high - only.low) / 2 if only.low is not None and only.high is not None else None), 1


def best_values(table: Table) -> dict[Column, float]:
    """The highest value of each column as it is printed; controls have none."""
    values = {
        column: [value for row in table.rows if (value := mean_value(row.cells.get(column))) is not None]
        for column in table.columns
        if not column.control
    }
    return {column: round(max(found), 2) for column, found in values.items() if len(found) > 1}
