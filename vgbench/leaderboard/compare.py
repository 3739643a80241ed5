"""Records in, the whole leaderboard as text out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal, NamedTuple

from vgbench.leaderboard.cells import pairs_grid, table_grid
from vgbench.leaderboard.columns import Column
from vgbench.leaderboard.flat import csv_text, flat, flat_pair
from vgbench.leaderboard.latex import latex
from vgbench.leaderboard.markdown import markdown
from vgbench.leaderboard.pairs import published_pairs
from vgbench.leaderboard.published import PublishedRow, published_metric, published_names, published_task
from vgbench.leaderboard.tables import Row, Table, by_first, tables
from vgbench.records.record import Metric, Record

Format = Literal["markdown", "csv", "json", "latex"]


def compare(
    records: Sequence[Record],
    format: Format = "markdown",
    *,
    all_metrics: bool = False,
    seeds: bool = False,
    published: Sequence[PublishedRow] | None = None,
    others: bool = False,
) -> str:
    """The leaderboard of records.

    Args:
        format: "markdown" and "latex" are tables for readers; "csv" and "json" hold every number of every record.
        all_metrics: every metric, not only the headlines of the tasks.
        seeds: runs that differ in the seed alone become mean and standard deviation.
        published: rows of :func:`read_published`; a list of measured against published is added.
        others: published numbers of all methods join the tables of real data as rows of their own.
    """
    pairs = published_pairs(records, published) if published is not None else []
    if format == "csv":
        return csv_text([*flat(records), *map(flat_pair, pairs)])
    if format == "json":
        return json.dumps({"rows": flat(records), "published": [flat_pair(pair) for pair in pairs]}, indent=1) + "\n"
    leaderboards = tables(records, all_metrics=all_metrics, seeds=seeds)
    if others and published is not None:
        for table in leaderboards:
            _add_published(table, published)
    grids = [table_grid(table) for table in leaderboards]
    if pairs:
        grids.append(pairs_grid(pairs))
    return latex(grids) if format == "latex" else markdown(grids)


class _Model(NamedTuple):
    """What two published numbers have to share to stand in one row."""

    method: str
    variant: str
    backbone: str
    training_data: str
    source_id: str
    quoted_by: str

    @classmethod
    def of(cls, row: PublishedRow) -> _Model:
        return cls(row.method, row.variant, row.backbone, row.training_data, row.source_id, row.quoted_by)

    def row(self) -> Row:
        """An empty row of the leaderboard."""
        label = ", ".join(filter(None, (self.method, self.variant, self.backbone)))
        quoted = f", quoted by {self.quoted_by}" if self.quoted_by else ""
        return Row(label, embedded=False, provenance=f"published, {self.source_id}{quoted}")


def _add_published(table: Table, published: Sequence[PublishedRow]) -> None:
    """Published rows of any method for the columns of a table; other metric variants have no column to go to."""
    rows: dict[_Model, Row] = {}
    for column in table.columns:
        if column.embedded or column.control:
            continue
        for row in _published_in(column, published):
            model = _Model.of(row)
            rows.setdefault(model, model.row()).cells[column] = [Metric(row.value, 0)]
    if rows:
        table.notes.append("published rows: training data differ from row to row, and no interval is known")
        if any(record.cost.answer_s is not None for row in table.rows for record in row.records):
            table.notes.append(
                "published rows of language models: each with a prompt, a frame and a resolution of its own, and "
                "these decide the number"
            )
    table.rows += sorted(rows.values(), key=by_first(table.columns))


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
