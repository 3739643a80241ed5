"""Records in, the whole leaderboard as text out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from vgbench.leaderboard.flat import csv_text, flat, flat_pair
from vgbench.leaderboard.latex import latex
from vgbench.leaderboard.markdown import markdown
from vgbench.leaderboard.published import (
    PublishedRow,
    dataset_of,
    published_dataset,
    published_metric,
    published_pairs,
    published_task,
)
from vgbench.leaderboard.tables import Row, Table, _by_first, tables
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
        all_metrics: every metric, not only :data:`HEADLINE`.
        seeds: runs that differ in the seed alone become mean and standard deviation.
        published: rows of :func:`read_published`; a list of measured against published is added.
        others: published numbers of all methods join the tables of real data as rows of their own.
    """
    pairs = published_pairs(records, published) if published is not None else []
    if format in ("csv", "json"):
        lines = flat(records)
        if format == "csv":
            return csv_text([*lines, *map(flat_pair, pairs)])
        return json.dumps({"rows": lines, "published": [flat_pair(pair) for pair in pairs]}, indent=1) + "\n"
    made = tables(records, all_metrics=all_metrics, seeds=seeds)
    if others and published is not None:
        for table in made:
            _add_published(table, published)
    return (markdown if format == "markdown" else latex)(made, pairs)


def _add_published(table: Table, published: Sequence[PublishedRow]) -> None:
    """Published rows of any method for the columns of a table; other metric variants have no column to go to."""
    cells: dict[tuple[str, ...], Row] = {}
    for column in table.columns:
        if column.embedded or column.control:
            continue
        name = published_dataset(column.dataset, column.split_by)
        for row in published:
            if (dataset_of(row), row.split, published_task(row)) != (name, column.split, column.task):
                continue
            if published_metric(row) != (column.metric, column.variant):
                continue
            key = (row.method, row.variant, row.backbone, row.training_data, row.source_id, row.quoted_by)
            label = ", ".join(part for part in (row.method, row.variant, row.backbone) if part)
            source = f"published, {row.source_id}" + (f", quoted by {row.quoted_by}" if row.quoted_by else "")
            made = cells.setdefault(key, Row(label, False, source))
            made.cells[column] = [Metric(row.value, 0)]
    if cells:
        table.notes.append("published rows: training data differ from row to row, and no interval is known")
    table.rows += sorted(cells.values(), key=_by_first(table.columns))
