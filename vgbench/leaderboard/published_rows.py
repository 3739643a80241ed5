"""Published numbers as rows of tables and of the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from vgbench.leaderboard.columns import Column, headlines, task_title
from vgbench.leaderboard.published import PublishedRow, published_metric, published_names, published_task
from vgbench.leaderboard.tables import Row, Table, by_first
from vgbench.records.record import Metric


def published_tables(published: Sequence[PublishedRow]) -> list[Table]:
    """Empty tables with a column for every headline number that was published, one table per task."""
    columns = {_published_column(row) for row in published}
    columns = {column for column in columns if column.metric in headlines(column.task, column.variant)}
    by_task: dict[str, list[Column]] = {}
    for column in sorted(columns, key=Column.sort_key):
        by_task.setdefault(column.task, []).append(column)
    return [Table(task_title(task, embedded=False), columns, []) for task, columns in by_task.items()]


def _published_column(row: PublishedRow) -> Column:
    metric, variant = published_metric(row)
    return Column(False, published_task(row), row.dataset, None, row.split, "", metric, variant, "")


class Model(NamedTuple):
    """What two published numbers have to share to stand in one row."""

    method: str
    variant: str
    backbone: str
    training_data: str
    source_id: str
    quoted_by: str

    @classmethod
    def of(cls, row: PublishedRow) -> Model:
        return cls(row.method, row.variant, row.backbone, row.training_data, row.source_id, row.quoted_by)

    def row(self) -> Row:
        """An empty row of the leaderboard."""
        label = ", ".join(filter(None, (self.method, self.variant, self.backbone)))
        quoted = f", quoted by {self.quoted_by}" if self.quoted_by else ""
        return Row(label, embedded=False, provenance=f"published, {self.source_id}{quoted}")


def add_published(table: Table, published: Sequence[PublishedRow]) -> None:
    """Published rows of any method for the columns of a table; other metric variants have no column to go to."""
    rows: dict[Model, Row] = {}
    for model, values in rows_by_model(table.columns, published).items():
        row = rows.setdefault(model, model.row())
        row.cells.update({column: [Metric(value, 0)] for column, value in values.items()})
    if rows:
        table.notes.append("published rows: training data differ from row to row, and no interval is known")
        if any(record.cost.answer_s is not None for row in table.rows for record in row.records):
            table.notes.append(
                "published rows of language models: each with a prompt, a frame and a resolution of its own, and "
                "these decide the number"
            )
    table.rows += sorted(rows.values(), key=by_first(table.columns))
    table.rows.sort(key=lambda row: table.columns[0] in row.parts)  # of part of a split: behind all whole ones


def _published_in(column: Column, published: Sequence[PublishedRow]) -> list[PublishedRow]:
    """The published numbers of a column's task, split, metric and variant."""
    names = published_names(column.dataset, column.split_by)
    return [
        row
        for row in published
        if row.dataset in names
        and (row.split, published_task(row)) == (column.split, column.task)
        and published_metric(row) == (column.metric, column.variant)
    ]


def rows_by_model(columns: Iterable[Column], published: Sequence[PublishedRow]) -> dict[Model, dict[Column, float]]:
    """Every published model with its numbers in columns of real data, controls left out."""
    models: dict[Model, dict[Column, float]] = {}
    for column in columns:
        if column.embedded or column.control:
            continue
        for row in _published_in(column, published):
            models.setdefault(Model.of(row), {})[column] = row.value
    return models


def page_row(model: Model) -> dict[str, Any]:
    """A published model as a row of the page (:mod:`vgbench.leaderboard.page_data`), which belongs to no run."""
    row = model.row()
    return {
        "run": model.source_id,
        "run_id": -1,
        "label": row.label,
        "method": model.method,
        "variant": model.variant,
        "provenance": row.provenance,
        "training": model.training_data,
        "notes": [],
        **dict.fromkeys(("seed", "parameters", "train_rate", "infer_rate", "latency", "flops", "memory", "hours")),
        **dict.fromkeys(("tokens", "answer_s", "price")),
        **dict.fromkeys(("device", "config", "commit", "created"), ""),
    }
