"""What the page shows, as plain JSON values."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from vgbench import __version__
from vgbench.core.errors import UserError
from vgbench.leaderboard.columns import (
    SPLITS,
    Column,
    inference_rate,
    numbers,
    place,
    provenance,
    row_label,
    task_title,
)
from vgbench.leaderboard.pairs import Pair, published_pairs
from vgbench.leaderboard.published import PublishedRow
from vgbench.leaderboard.tables import folder_names, second_definitions
from vgbench.metrics.tasks import task_of
from vgbench.records.curves import read_curves
from vgbench.records.record import Record

PICTURE_BYTES, PICTURE_SIDE = 8 << 20, 4096  # limits of an example's picture; ours have 400 pixels
POINTS = 240  # of a curve; more cannot be told apart on a screen


class RowKey(NamedTuple):
    """A prediction set of a run; ``run`` counts the records."""

    run: int
    prediction_set: str


@dataclass
class Numbers:
    """Metrics and slices by the numbers of their rows and columns, as lists for the page.

    Attributes:
        columns: number of each column, in the order in which they were met.
        row_columns: the columns that each row has a value in.
        cells: row, column, value, low, high, n.
        slices: row, column, rule, bucket, value, low, high, n.
    """

    columns: dict[Column, int] = field(default_factory=dict)
    row_columns: list[set[Column]] = field(default_factory=list)
    cells: list[list[Any]] = field(default_factory=list)
    slices: list[list[Any]] = field(default_factory=list)


def collect(records: Sequence[Record], published: Sequence[PublishedRow]) -> dict[str, Any]:
    """Rows by number, columns by number, and cells that refer to both; pairs, curves and examples refer to rows.

    Raises:
        UserError: if a log or an examples file is damaged.
    """
    rows = _rows(records)
    row_numbers = {key: number for number, key in enumerate(rows)}
    gathered = _numbers(records, row_numbers)
    order = sorted(gathered.columns, key=Column.sort_key)
    runs = {id(record): run for run, record in enumerate(records)}
    pairs = [
        _pair(pair, row_numbers[RowKey(runs[id(pair.record)], pair.result.prediction_set)], gathered.columns)
        for pair in published_pairs(records, published)
    ]
    examples, images = _examples(records, row_numbers)
    return {
        "version": __version__,
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "rows": list(rows.values()),
        "columns": _columns(gathered),
        "order": [gathered.columns[column] for column in order],
        "cells": gathered.cells,
        "slices": gathered.slices,
        "published": pairs,
        "curves": _curves(records),
        "examples": examples,
        "images": images,
    }


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
        "device": hardware.gpu or f"{hardware.cpu}, {hardware.cores} cores",
        "config": record.config_hash,
        "commit": (code.commit or "")[:10] + (" + changes" if code.dirty else ""),
        "created": record.created,
        "training": training,
        "notes": record.notes,
    }


def _numbers(records: Sequence[Record], row_numbers: Mapping[RowKey, int]) -> Numbers:
    gathered = Numbers(row_columns=[set() for _ in row_numbers])
    for run, record in enumerate(records):
        for result in record.results:
            row = row_numbers[RowKey(run, result.prediction_set)]
            for column, metric in numbers(result):
                number = gathered.columns.setdefault(column, len(gathered.columns))
                gathered.row_columns[row].add(column)
                gathered.cells.append([row, number, metric.value, metric.low, metric.high, metric.n])
                rules = {} if column.control else result.slices.get(column.metric, {})
                gathered.slices += [
                    [row, number, rule, bucket, part.value, part.low, part.high, part.n]
                    for rule, buckets in rules.items()
                    for bucket, part in buckets.items()
                    if part.variant == column.variant
                ]
    return gathered


def _columns(gathered: Numbers) -> list[dict[str, Any]]:
    headline = {column for column in gathered.columns if column.metric in task_of(column.task).headline}
    headline -= second_definitions(headline, gathered.row_columns)
    return [
        {
            **column._asdict(),
            "where": column.where,
            "title": column.title,
            "task_title": task_title(column.task, column.embedded),
            "headline": column in headline,
        }
        for column in gathered.columns
    ]


def _pair(pair: Pair, row: int, columns: Mapping[Column, int]) -> dict[str, Any]:
    published = pair.published
    return {
        "row": row,
        "column": columns[pair.column],
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
        log = record.folder / "logs" / "metrics.csv" if record.folder else None
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


def _examples(records: Sequence[Record], rows: Mapping[RowKey, int]) -> tuple[list[dict[str, Any]], list[str]]:
    """Examples of all runs joined by data and expression, so that methods stand side by side; images once each."""
    groups: dict[str, dict[str, Any]] = {}
    images: list[str] = []
    for run, record in enumerate(records):
        row_of = {key.prediction_set: row for key, row in rows.items() if key.run == run}
        embedded = {result.data_hash: result.embedded for result in record.results}
        for file in sorted(record.folder.glob("examples/*/examples.json")) if record.folder else ():
            try:
                if not file.is_file():
                    raise ValueError("it is no file")
                stored = json.loads(file.read_bytes())
                group = groups.setdefault(stored["data_hash"], _group(stored, embedded))
                for example in stored["examples"]:
                    if example["key"] not in group["items"]:
                        group["items"][example["key"]] = _item(example, len(images))
                        images.append(_data_url(file.parent, example["image"]))
                    predictions = group["items"][example["key"]]["predictions"]
                    for name, prediction in example["predictions"].items():
                        if name in row_of:
                            predictions[row_of[name]] = prediction
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise UserError(f"{file}: damaged ({error}); evaluate the run again or remove the folder") from error
    filled = [{**group, "items": list(group["items"].values())} for group in groups.values() if group["items"]]
    filled.sort(key=lambda group: (group["embedded"], place(group["split"], SPLITS)[0]))
    return filled, images


def _group(stored: Mapping[str, Any], embedded: Mapping[str, bool]) -> dict[str, Any]:
    """The examples of one split; ``embedded``: by data hash, of the run's results."""
    return {
        "where": f"{stored['dataset']} {stored['split']}",
        "split": stored["split"],
        "embedded": embedded.get(stored["data_hash"], False),
        "items": {},
    }


def _item(example: Mapping[str, Any], image: int) -> dict[str, Any]:
    """An expression without predictions; ``image``: number of its picture."""
    fields = {name: example[name] for name in ("key", "expression", "width", "height", "truth")}
    return {**fields, "image": image, "predictions": {}}


def _data_url(folder: Path, name: object) -> str:
    """A picture of a run folder, decoded and encoded again: nothing else of a file gets into the page.

    Raises:
        ValueError: if the name leaves the folder, or it is no picture of an example's size.
    """
    from PIL import Image

    picture = folder / str(name)
    if not picture.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"the picture {str(name)[:80]!r} lies outside the folder")
    if not picture.is_file() or picture.stat().st_size > PICTURE_BYTES:
        raise ValueError(f"{picture.name} is no file, or larger than {PICTURE_BYTES >> 20} MiB")
    content = io.BytesIO()
    try:
        with Image.open(picture, formats=("JPEG", "PNG")) as opened:
            if max(opened.size) > PICTURE_SIDE:
                raise ValueError(f"it is larger than {PICTURE_SIDE} pixels")
            opened.convert("RGB").save(content, "JPEG", quality=90)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{picture.name} is no picture of an example: {error}") from None
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
