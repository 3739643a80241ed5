"""What the page shows, as plain JSON values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from vgbench import __version__
from vgbench.core.files import file_inside
from vgbench.leaderboard.columns import (
    Column,
    headlines,
    inference_rate,
    numbers,
    price_per_1000,
    provenance,
    row_label,
    task_title,
    tokens_per_answer,
)
from vgbench.leaderboard.leading import LEGEND, Span, leading
from vgbench.leaderboard.page_examples import RowKey, collect_examples
from vgbench.leaderboard.page_stress import collect_stress
from vgbench.leaderboard.pairs import Pair, published_pairs
from vgbench.leaderboard.published import PublishedRow
from vgbench.leaderboard.published_rows import page_row, published_tables, rows_by_model
from vgbench.leaderboard.tables import folder_names, second_definitions
from vgbench.leaderboard.versions import Versions
from vgbench.metrics.tasks import STRESS, task_of
from vgbench.records.curves import read_curves
from vgbench.records.record import Record

POINTS = 240  # of a curve; more cannot be told apart on a screen


@dataclass
class Numbers:
    """Metrics and slices by the numbers of their rows and columns, as lists for the page.

    Attributes:
        columns: number of each column, in the order in which they were met.
        row_columns: the columns that each row has a value in.
        cells: row, column, value, low, high, n, part; last whether the value leads its column.
        slices: row, column, rule, bucket, value, low, high, n.
    """

    columns: dict[Column, int] = field(default_factory=dict)
    row_columns: list[set[Column]] = field(default_factory=list)
    cells: list[list[Any]] = field(default_factory=list)
    slices: list[list[Any]] = field(default_factory=list)


def collect(records: Sequence[Record], published: Sequence[PublishedRow], others: bool = False) -> dict[str, Any]:
    """Rows by number, columns by number, and cells that refer to both; pairs, curves and examples refer to rows.

    Args:
        others: published numbers of all methods are rows too.

    Raises:
        UserError: if a log or an examples file is damaged.
    """
    rows = _rows(records)
    row_numbers = {key: number for number, key in enumerate(rows)}
    gathered = _numbers(records, row_numbers)
    published_rows = _add_published(gathered, len(rows), published) if others else []
    _mark_leading(gathered)
    order = sorted(gathered.columns, key=Column.sort_key)
    runs = {id(record): run for run, record in enumerate(records)}
    versions = Versions(records)
    pairs = []
    for pair in published_pairs(records, published):
        row = row_numbers[RowKey(runs[id(pair.record)], pair.result.prediction_set)]
        pairs.append(_pair(pair, row, gathered.columns[versions.joined(pair.column)]))
    examples, images = collect_examples(records, row_numbers)
    return {
        "version": __version__,
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "rows": [*rows.values(), *published_rows],
        "columns": _columns(gathered),
        "order": [gathered.columns[column] for column in order],
        "cells": gathered.cells,
        "bold": LEGEND,
        "slices": gathered.slices,
        "published": pairs,
        "curves": _curves(records),
        "examples": examples,
        "images": images,
        "stress": collect_stress(records, row_numbers, [row["label"] for row in rows.values()]),
    }


def _add_published(gathered: Numbers, first: int, published: Sequence[PublishedRow]) -> list[dict[str, Any]]:
    """Rows of published models, numbered from ``first``, with cells in the columns of the runs; without any run in the
    columns of the published headline numbers."""
    columns = list(gathered.columns) or [column for table in published_tables(published) for column in table.columns]
    models = rows_by_model(columns, published)
    for row, values in enumerate(models.values(), start=first):
        for column, value in values.items():
            number = gathered.columns.setdefault(column, len(gathered.columns))
            gathered.cells.append([row, number, value, None, None, None, None])
        gathered.row_columns.append(set(values))
    return [page_row(model) for model in models]


def _rows(records: Sequence[Record]) -> dict[RowKey, dict[str, Any]]:
    """A row for every prediction set of every run; equal labels get the name of their run behind them."""
    names = folder_names(records)
    rows: dict[RowKey, dict[str, Any]] = {}
    for run, record in enumerate(records):
        for result in record.results:
            key = RowKey(run, result.prediction_set)
            if key not in rows:
                rows[key] = {
                    **_row(record, names[run]),
                    "label": row_label(record, result),
                    "run_id": run,
                    "infer_rate": inference_rate(record, result.prediction_set),
                    "tokens": tokens_per_answer(record),
                    "answer_s": record.cost.answer_s,
                    "price": price_per_1000(record),
                }
    labels = Counter(row["label"] for row in rows.values())
    for row in rows.values():
        if labels[row["label"]] > 1:
            row["label"] += f" ({row['run']})"
    return rows


def _row(record: Record, name: str) -> dict[str, Any]:
    """What a row says about its run, whose folder is called ``name``."""
    cost, code, hardware = record.cost, record.environment.code, record.environment.hardware
    training = ""
    if record.training is not None:
        stages = (*record.training.earlier, *record.training.data)
        data = " + ".join(dict.fromkeys(f"{part.dataset} {part.split}" for part in stages))
        amount = f"{record.training.epochs:g} epochs" if record.training.epochs is not None else ""
        training = ", ".join(part for part in (data, amount, record.training.precision) if part)
    return {
        "run": name,
        "method": record.label or record.method,
        "variant": record.variant,
        "provenance": provenance(record),
        "seed": record.seed,
        "parameters": cost.parameters,
        "train_rate": cost.train_samples_per_s,
        "latency": cost.latency_s,
        "memory": cost.peak_memory_bytes,
        "flops": cost.flops,
        "hours": cost.wall_s and cost.wall_s / 3600,
        "device": hardware.gpu or f"{hardware.cpu}, {hardware.cores} cores",
        "config": record.config_hash,
        "commit": (code.commit or "")[:10] + (" + changes" if code.dirty else ""),
        "created": record.created,
        "training": training,
        "notes": [*record.notes, *_part_notes(record)],
    }


def _part_notes(record: Record) -> list[str]:
    """Which splits the run was scored on in part, one line each."""
    notes = {
        f"part of {result.dataset} {result.split}: {result.part} expressions scored; not comparable with whole splits"
        for result in record.results
        if result.part is not None
    }
    return sorted(notes)


def _numbers(records: Sequence[Record], row_numbers: Mapping[RowKey, int]) -> Numbers:
    gathered = Numbers(row_columns=[set() for _ in row_numbers])
    versions = Versions(records)
    for run, record in enumerate(records):
        for result in record.results:
            row = row_numbers[RowKey(run, result.prediction_set)]
            if result.task == STRESS:
                continue  # shown by probe, see :mod:`.page_stress`
            for own_column, metric in numbers(result):
                column = versions.joined(own_column)
                number = gathered.columns.setdefault(column, len(gathered.columns))
                gathered.row_columns[row].add(column)
                gathered.cells.append([row, number, metric.value, metric.low, metric.high, metric.n, result.part])
                rules = {} if column.control else result.slices.get(column.metric, {})
                gathered.slices += [
                    [row, number, rule, bucket, part.value, part.low, part.high, part.n]
                    for rule, buckets in rules.items()
                    for bucket, part in buckets.items()
                    if part.variant == column.variant
                ]
    return gathered


def _mark_leading(gathered: Numbers) -> None:
    """Add to every cell whether it leads its column: among all rows, whichever of them a reader looks at."""
    spans: dict[Column, dict[int, Span]] = {column: {} for column in gathered.columns}
    columns = list(gathered.columns)
    for row, number, value, low, high, _, part in gathered.cells:
        if value is not None and part is None and not columns[number].control:
            known = low is not None and high is not None
            spans[columns[number]][row] = Span(value, low, high) if known else Span(value, value, value)
    leaders = {
        column: leading(values, task_of(column.task).lower_is_better) for column, values in spans.items() if values
    }
    for cell in gathered.cells:
        cell.append(cell[6] is None and cell[0] in leaders.get(columns[cell[1]], ()))


def _columns(gathered: Numbers) -> list[dict[str, Any]]:
    headline = {column for column in gathered.columns if column.metric in headlines(column.task, column.variant)}
    headline -= second_definitions(headline, gathered.row_columns)
    return [
        {
            **column._asdict(),
            "where": column.where,
            "title": column.title,
            "task_title": task_title(column.task, column.embedded),
            "headline": column in headline,
            "lower": task_of(column.task).lower_is_better,
        }
        for column in gathered.columns
    ]


def _pair(pair: Pair, row: int, column: int) -> dict[str, Any]:
    published = pair.published
    return {
        "row": row,
        "column": column,
        "value": published.value,
        "as": ", ".join(filter(None, (published.method, published.variant, published.backbone))),
        "measured": pair.measured.value,
        "difference": pair.difference,
        "comparable": pair.comparable,
        "notes": pair.notes,
        "source": f"{published.source_title} {published.source_id}".strip(),
    }


def _curves(records: Sequence[Record]) -> list[dict[str, Any]]:
    curves = []
    for number, record in enumerate(records):
        log = file_inside(record.folder, "logs/metrics.csv") if record.folder else None
        if log is None or not log.is_file():
            continue
        series = {
            name: _thin(points)
            for name, points in read_curves(log).items()
            if name.startswith(("train/", "val/")) and points
        }
        if series:
            curves.append({"run_id": number, "series": series})
    return curves


def _thin(points: list[tuple[float, float]]) -> list[list[float]]:
    """At most :data:`POINTS` of a curve: means of equal stretches, at the step where each ends."""
    stretch = -(-len(points) // POINTS)
    parts = [points[start : start + stretch] for start in range(0, len(points), stretch)]
    return [[part[-1][0], float(f"{sum(value for _, value in part) / len(part):.5g}")] for part in parts]
