"""Leaderboards: records in, tables out. Nothing is computed here but differences, means over seeds and roundings.

Three rules cannot be switched off. Embedded and real data never share a table. Two numbers share a column only if data
set, split, metric, metric variant and data hash agree. A published number that is not comparable says why, from what
the records know.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vgbench.leaderboard.columns import (
    Column,
    Split,
    headlines,
    metric_title,
    numbers,
    provenance,
    row_label,
    task_title,
)
from vgbench.leaderboard.training_data import NOT_KNOWN, statement_of
from vgbench.leaderboard.versions import Versions
from vgbench.metrics.tasks import STRESS, task_of
from vgbench.records.record import Metric, Record, Result


class Run(NamedTuple):
    """What tells two runs of one cell apart."""

    config_hash: str
    seed: int | None


class RowKey(NamedTuple):
    """What two results have to share to stand in one row. ``seed`` is None where seeds share a cell; ``on_request``:
    of a task that is scored on request only, whose runs say nothing about the cost of the others."""

    method: str
    label: str
    prediction_set: str
    embedded: bool
    provenance: str
    parameters: int | None
    device: str
    on_request: bool
    seed: int | None


@dataclass(eq=False)
class Row:
    """One line of a leaderboard. A cell holds one metric, or one per seed; ``runs``: where each comes from."""

    label: str
    embedded: bool
    provenance: str
    cells: dict[Column, list[Metric]] = field(default_factory=dict)
    runs: dict[Column, list[Run]] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    prediction_set: str = "main"
    parts: dict[Column, str] = field(default_factory=dict)  # what was scored where it was part of the split

    def add(self, metrics: Mapping[Column, Metric], record: Record, part: str | None = None) -> None:
        """Put a result of a run into its cells; ``part``: what was scored where it is not the whole split."""
        for column, metric in metrics.items():
            if part is not None:
                self.parts[column] = part
            self.cells.setdefault(column, []).append(metric)
            self.runs.setdefault(column, []).append(Run(record.config_hash, record.seed))
        if not any(earlier is record for earlier in self.records):
            self.records.append(record)

    def has_room(self, metrics: Mapping[Column, Metric], run: Run, seeds: bool) -> bool:
        """Whether a result's cells are free, or (``seeds``) hold other seeds of the same configuration."""
        if self.runs.keys().isdisjoint(metrics):  # stops at the first one taken: 1,000 runs ask this a million times
            return True
        if not seeds:
            return False
        return all(
            run not in self.runs[column] and {run.config_hash} == {other.config_hash for other in self.runs[column]}
            for column in metrics
            if column in self.runs
        )


@dataclass
class Table:
    """Rows by columns of one task on one kind of data."""

    title: str
    columns: list[Column]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    marks: dict[Column, str] = field(default_factory=dict)  # printed behind a column's split

    def where(self, column: Column) -> str:
        """Data set and split, with the mark of their version where there are several."""
        return column.where + self.marks.get(column, "")


def tables(records: Iterable[Record], *, all_metrics: bool = False, seeds: bool = False) -> list[Table]:
    """One table per task and kind of data (real, embedded).

    Runs of one label, variant, prediction set, checkpoint origin, size and device fill one row, as in a paper's table,
    until a cell is taken twice: then there is a second row, named by its seed or run folder. With ``seeds``, runs that
    differ in nothing but the seed share the cell, as mean and standard deviation.
    """
    records = list(records)
    versions = Versions(records)
    rows = _rows(records, seeds, versions)
    _tell_apart(rows)
    columns = sorted({column for row in rows for column in row.cells}, key=Column.sort_key)
    hidden: set[Column] = set()
    if not all_metrics:
        columns = [column for column in columns if is_headline(column, columns)]
        hidden = second_definitions(columns, [row.cells for row in rows])
        columns = [column for column in columns if column not in hidden]
    kinds = dict.fromkeys((column.embedded, column.task) for column in columns)
    return [_table(task, embedded, columns, rows, hidden, versions) for embedded, task in kinds]


def _rows(records: Iterable[Record], seeds: bool, versions: Versions) -> list[Row]:
    """Every result in the first row of its key that has room for it."""
    rows_by_key: dict[RowKey, list[Row]] = {}
    for record in records:
        for result in record.results:
            if result.task == STRESS:
                continue
            metrics = {versions.joined(column): metric for column, metric in numbers(result)}
            run = Run(record.config_hash, record.seed)
            key = _row_key(record, result, seeds)
            rows = rows_by_key.setdefault(key, [])
            row = next((row for row in rows if row.has_room(metrics, run, seeds)), None)
            if row is None:
                row = Row(key.label, key.embedded, key.provenance, prediction_set=key.prediction_set)
                rows.append(row)
            row.add(metrics, record, result.part)
    return [row for rows in rows_by_key.values() for row in rows]


def _row_key(record: Record, result: Result, seeds: bool) -> RowKey:
    hardware = record.environment.hardware
    return RowKey(
        record.method,
        row_label(record, result),
        result.prediction_set,
        result.embedded,
        provenance(record),
        record.cost.parameters,
        hardware.gpu or hardware.cpu,
        task_of(result.task).on_request,
        None if seeds else record.seed,
    )


def _table(
    task: str,
    embedded: bool,
    columns: Iterable[Column],
    rows: Iterable[Row],
    hidden: Iterable[Column],
    versions: Versions,
) -> Table:
    """The table of one task on one kind of data; a note names the ``hidden`` columns."""
    task_columns = [column for column in columns if (column.embedded, column.task) == (embedded, task)]
    table = Table(
        task_title(task, embedded), task_columns, [row for row in rows if not row.cells.keys().isdisjoint(task_columns)]
    )
    table.rows.sort(key=by_first(task_columns))
    _mark_data(table, versions)
    table.notes += _part_notes(table)
    if not embedded:
        table.notes += language_model_notes(table.rows)
    hidden_titles = sorted(
        {
            metric_title(column.task, column.metric, column.variant)
            for column in hidden
            if (column.embedded, column.task) == (embedded, task)
        }
    )
    if hidden_titles:
        table.notes.append(f"{', '.join(hidden_titles)}: left out, --all-metrics shows them")
    return table


def language_model_notes(rows: Iterable[Row]) -> list[str]:
    """What one has to know of rows whose answers are words: under which protocol, and after which training."""
    notes: dict[str, None] = {}
    for row in rows:
        record = next((record for record in row.records if record.cost.answer_s is not None), None)
        if record is not None:
            seen = statement_of([record.label or record.method]) or NOT_KNOWN
            notes[f"{row.label}: a language model, asked and read as {record.variant} (see its record); {seen}"] = None
    return list(notes)


def by_first(columns: Sequence[Column]) -> Callable[[Row], float]:
    """Sort key: the value in the first column, best first; parts of a split and empty cells last."""

    def key(row: Row) -> float:
        value = mean_value(row.cells.get(columns[0]))
        if value is None or columns[0] in row.parts:
            return float("inf")
        return value if task_of(columns[0].task).lower_is_better else -value

    return key


def is_headline(column: Column, columns: Sequence[Column]) -> bool:
    """Whether a column is shown unless all are asked for: a headline metric, of the task or of a variant that has some
    of its own, or any where a table has none."""
    named = task_of(column.task).headline
    return column.metric in headlines(column.task, column.variant) or not any(
        other.metric in named for other in columns if (other.task, other.embedded) == (column.task, column.embedded)
    )


def second_definitions(columns: Collection[Column], cells: Sequence[Container[Column]]) -> set[Column]:
    """Columns of a metric variant whose every row (its ``cells``) has the default definition of that metric, too, in
    another of the ``columns``."""
    return {
        column
        for column in columns
        if column.variant != "default"
        and column._replace(variant="default") in columns
        and all(column._replace(variant="default") in row for row in cells if column in row)
    }


class _Look(NamedTuple):
    """What a reader sees of a row in the table of a task."""

    label: str
    provenance: str
    embedded: bool
    task: str


def _tell_apart(rows: Sequence[Row]) -> None:
    """Rows that would look the same in a table get the seed, or else the folder of their run, behind the label."""
    rows_by_look: dict[_Look, list[Row]] = {}
    for row in rows:
        for embedded, task in dict.fromkeys((column.embedded, column.task) for column in row.cells):
            rows_by_look.setdefault(_Look(row.label, row.provenance, embedded, task), []).append(row)
    folders: dict[Row, str] = {}
    same_seed: set[Row] = set()
    for twins in rows_by_look.values():
        if len(twins) > 1:
            folders.update(zip(twins, folder_names([row.records[0] for row in twins]), strict=True))
            if not _differ_in_seed(twins):
                same_seed.update(twins)
    for row, folder in folders.items():
        row.label += f" ({folder})" if row in same_seed else f" (seed {row.records[0].seed})"


def _differ_in_seed(rows: Sequence[Row]) -> bool:
    """Whether every row has one seed that no other has."""
    seeds = [{record.seed for record in row.records} for row in rows]
    return all(len(own) == 1 for own in seeds) and len(set().union(*seeds)) == len(rows)


def folder_names(records: Sequence[Record]) -> list[str]:
    """Names of run folders, with the folder above where two are called the same."""
    names = Counter(record.name for record in records)
    return [
        f"{record.folder.resolve().parent.name}/{record.name}"
        if names[record.name] > 1 and record.folder
        else record.name
        for record in records
    ]


def _mark_data(table: Table, versions: Versions) -> None:
    """A split of which there are several versions has its columns marked, and a note about each version."""
    first_columns: dict[Split, dict[str, Column]] = {}  # by data hash
    for column in table.columns:
        first_columns.setdefault(column.named_split, {}).setdefault(column.data_hash, column)
    notes: dict[tuple[str, str], str] = {}
    for column in table.columns:
        firsts = first_columns[column.named_split]
        layouts = versions.layouts(column)
        if len(firsts) > 1:
            table.marks[column] = f" #{list(firsts).index(column.data_hash) + 1}"
            where = table.where(column)
            expressions = max(metric.n for row in table.rows for metric in row.cells.get(column, ()))
            other = next(other for data_hash, other in firsts.items() if data_hash != column.data_hash)
            difference = versions.difference(column, other)
            note = (
                f"{where}: data {column.data_hash[:8]}, {expressions} expressions; "
                f"not the same data as the other columns of this split{f' ({difference})' if difference else ''}"
            )
            notes.setdefault((where, column.data_hash), note)
        elif len(layouts) > 1:
            where = table.where(column)
            hashes = ", ".join(data_hash[:8] for data_hash in layouts)
            notes.setdefault(
                (where, column.data_hash),
                f"{where}: read from several layouts ({hashes}) that differ in ids only, not in what is measured",
            )
    table.notes += notes.values()


def _part_notes(table: Table) -> list[str]:
    """Which rows were scored on part of a split, one line for each row and split."""
    notes = {
        f"[part] {row.label}: {table.where(column)}, {row.parts[column]} expressions scored, part of the split; not "
        "comparable with whole ones, and in no order with them": None
        for row in table.rows
        for column in table.columns
        if column in row.parts
    }
    return list(notes)


def mean_value(metrics: Sequence[Metric] | None) -> float | None:
    """The mean over those that are defined, in percent."""
    values = [metric.value for metric in metrics or () if metric.value is not None]
    return statistics.fmean(values) if values else None


def spread(metrics: Sequence[Metric]) -> tuple[float | None, int]:
    """Half the width of the interval, or the standard deviation over several seeds; and the number of seeds."""
    values = [metric.value for metric in metrics if metric.value is not None]
    if len(values) > 1:
        return statistics.stdev(values), len(values)
    only = metrics[0]
    return ((only.high - only.low) / 2 if only.low is not None and only.high is not None else None), 1
