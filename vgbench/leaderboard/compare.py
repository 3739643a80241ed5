"""Records in, the whole leaderboard as text out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from vgbench.core.grid import Grid
from vgbench.core.markdown import markdown
from vgbench.leaderboard.cells import pairs_grid, table_grid
from vgbench.leaderboard.flat import csv_text, flat, flat_pair
from vgbench.leaderboard.latex import latex
from vgbench.leaderboard.pairs import published_pairs
from vgbench.leaderboard.published import PublishedRow
from vgbench.leaderboard.published_rows import add_published, published_tables
from vgbench.leaderboard.stress import stress_grids
from vgbench.leaderboard.tables import tables
from vgbench.records.record import Record

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
    if format in ("csv", "json"):
        pairs = published_pairs(records, published) if published is not None else []
        if format == "csv":
            return csv_text([*flat(records), *map(flat_pair, pairs)])
        return json.dumps({"rows": flat(records), "published": [flat_pair(pair) for pair in pairs]}, indent=1) + "\n"
    grids = leaderboard(records, all_metrics=all_metrics, seeds=seeds, published=published, others=others)
    return latex(grids) if format == "latex" else markdown(grids)


def leaderboard(
    records: Sequence[Record],
    *,
    all_metrics: bool = False,
    seeds: bool = False,
    published: Sequence[PublishedRow] | None = None,
    others: bool = False,
) -> list[Grid]:
    """The tables of :func:`compare` before they are written. Without records: the published numbers alone."""
    if not records and published is not None:
        leaderboards = published_tables(published)
        for table in leaderboards:
            add_published(table, published)
        return [table_grid(table) for table in leaderboards]
    pairs = published_pairs(records, published) if published is not None else []
    leaderboards = tables(records, all_metrics=all_metrics, seeds=seeds)
    if others and published is not None:
        for table in leaderboards:
            add_published(table, published)
    grids = [*map(table_grid, leaderboards), *stress_grids(records)]
    return [*grids, *([pairs_grid(pairs)] if pairs else [])]
