"""The leaderboard as one static page: everything inside one HTML file, nothing loaded from anywhere.

Python only gathers what is in the run folders (records, curves, examples); sorting, filtering and drawing are done by
the plain JavaScript of ``assets``. The page works from ``file://``, on a phone, by keyboard and in the dark.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any

from vgbench import __version__
from vgbench.core.errors import UserError
from vgbench.core.files import write_atomically
from vgbench.leaderboard.columns import (
    SPLITS,
    Column,
    inference_rate,
    metric_title,
    numbers,
    provenance,
    row_label,
    task_title,
)
from vgbench.leaderboard.pairs import published_pairs
from vgbench.leaderboard.published import PublishedRow, read_published
from vgbench.leaderboard.tables import folder_names, second_definitions
from vgbench.metrics.tasks import task_of
from vgbench.records.curves import read_curves
from vgbench.records.record import Record

POINTS = 240  # of a curve; more cannot be told apart on a screen


def write_page(records: Sequence[Record], out: Path, published: Sequence[PublishedRow] | None = None) -> Path:
    """Write ``out/index.html`` for the records and what lies beside them in their run folders.

    Curves come from ``logs/metrics.csv``, examples from ``examples/<split>/examples.json`` of each run folder; a run
    without them is shown without.

    Args:
        published: rows of :func:`~vgbench.leaderboard.published.read_published` for published against measured; None:
            the ones in the package.

    Raises:
        UserError: if a log or an examples file is damaged.
    """
    assets = files("vgbench.leaderboard") / "assets"
    data = collect(records, read_published() if published is None else published)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    page = (assets / "page.html").read_text(encoding="utf-8")
    for mark, content in (
        ("/*STYLE*/", (assets / "page.css").read_text(encoding="utf-8")),
        ("/*SCRIPT*/", (assets / "page.js").read_text(encoding="utf-8")),
        # inside a script element only "<" could end or disturb it; in JSON it stands in texts alone
        ("/*DATA*/", text.replace("<", "\\u003c")),
    ):
        head, _, tail = page.partition(mark)
        page = head + content + tail
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "index.html", page.encode("utf-8", "replace"))
    return out / "index.html"


def collect(records: Sequence[Record], published: Sequence[PublishedRow]) -> dict[str, Any]:
    """What the page shows, as plain JSON values: rows by number, columns by number, and cells that refer to both."""
    rows: dict[tuple[int, str], int] = {}
    lines: list[dict[str, Any]] = []
    columns: dict[Column, int] = {}
    held: list[set[Column]] = []  # by each row
    cells, slices = [], []
    for number, record in enumerate(records):
        for result in record.results:
            key = (number, result.prediction_set)
            if key not in rows:
                rows[key] = len(lines)
                rate = inference_rate(record, result.prediction_set)
                own = {"label": row_label(record, result), "run_id": number, "infer_rate": rate}
                lines.append({**_row(record), **own})
                held.append(set())
            row = rows[key]
            for column, metric in numbers(result):
                place = columns.setdefault(column, len(columns))
                held[row].add(column)
                cells.append([row, place, metric.value, metric.low, metric.high, metric.n])
                rules = {} if column.control else result.slices.get(column.metric, {})
                for rule, buckets in rules.items():
                    for bucket, part in buckets.items():
                        if part.variant == column.variant:
                            slices.append([row, place, rule, bucket, part.value, part.low, part.high, part.n])
    positions = {id(record): number for number, record in enumerate(records)}
    pairs = [
        {
            "row": rows[positions[id(pair.record)], pair.result.prediction_set],
            "column": columns[pair.column],
            "value": pair.published.value,
            "as": ", ".join(
                part for part in (pair.published.method, pair.published.variant, pair.published.backbone) if part
            ),
            "measured": pair.measured.value,
            "difference": pair.difference,
            "comparable": pair.comparable,
            "notes": pair.notes,
            "source": f"{pair.published.source_title} {pair.published.source_id}".strip(),
        }
        for pair in published_pairs(records, published)
    ]
    _tell_apart(lines, folder_names(records))
    groups, images = _examples(records, rows)
    order = sorted(columns, key=Column.sort_key)
    headline = {column for column in order if column.metric in task_of(column.task).headline}
    headline -= second_definitions(headline, held)
    return {
        "version": __version__,
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "rows": lines,
        "columns": [
            {
                **column._asdict(),
                "where": column.where,
                "title": metric_title(column.task, column.metric, column.variant, column.control),
                "task_title": task_title(column.task, column.embedded),
                "headline": column in headline,
            }
            for column in columns
        ],
        "order": [columns[column] for column in order],
        "cells": cells,
        "slices": slices,
        "published": pairs,
        "curves": _curves(records),
        "examples": groups,
        "images": images,
    }


def _row(record: Record) -> dict[str, Any]:
    cost, code, hardware = record.cost, record.environment.code, record.environment.hardware
    training = ""
    if record.training is not None:
        stages = (*record.training.earlier, *record.training.data)
        data = " + ".join(dict.fromkeys(f"{part.dataset} {part.split}" for part in stages))
        amount = f"{record.training.epochs:g} epochs" if record.training.epochs is not None else ""
        training = ", ".join(part for part in (data, amount, record.training.precision) if part)
    return {
        "run": record.name,
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


def _tell_apart(lines: list[dict[str, Any]], names: Sequence[str]) -> None:
    """Equal labels get the name of their run behind them."""
    labels = Counter(line["label"] for line in lines)
    for line in lines:
        line["run"] = names[line["run_id"]]
        if labels[line["label"]] > 1:
            line["label"] += f" ({line['run']})"


def _curves(records: Sequence[Record]) -> list[dict[str, Any]]:
    found = []
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
            found.append({"run_id": number, "series": series})
    return found


def _thin(points: list[tuple[float, float]]) -> list[list[float]]:
    """At most :data:`POINTS` of a curve: means of equal stretches, at the step where each ends."""
    stretch = -(-len(points) // POINTS)
    parts = [points[start : start + stretch] for start in range(0, len(points), stretch)]
    return [[part[-1][0], float(f"{sum(value for _, value in part) / len(part):.5g}")] for part in parts]


def _examples(records: Sequence[Record], rows: dict[tuple[int, str], int]) -> tuple[list[dict[str, Any]], list[str]]:
    """Examples of all runs joined by data and expression, so that methods stand side by side; images once each."""
    groups: dict[str, dict[str, Any]] = {}
    images: list[str] = []
    for number, record in enumerate(records):
        if record.folder is None:
            continue
        embedded = {result.data_hash: result.embedded for result in record.results}
        for file in sorted(record.folder.glob("examples/*/examples.json")):
            try:
                stored = json.loads(file.read_bytes())
                group = groups.setdefault(
                    stored["data_hash"],
                    {
                        "where": f"{stored['dataset']} {stored['split']}",
                        "split": stored["split"],
                        "embedded": embedded.get(stored["data_hash"], False),
                        "items": {},
                    },
                )
                for example in stored["examples"]:
                    if example["key"] not in group["items"]:
                        picture = base64.b64encode((file.parent / example["image"]).read_bytes()).decode()
                        kept = {name: example[name] for name in ("key", "expression", "width", "height", "truth")}
                        group["items"][example["key"]] = {**kept, "image": len(images), "predictions": {}}
                        images.append(f"data:image/jpeg;base64,{picture}")
                    for name, prediction in example["predictions"].items():
                        if (number, name) in rows:
                            group["items"][example["key"]]["predictions"][rows[number, name]] = prediction
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UserError(f"{file}: damaged ({error}); evaluate the run again or remove the folder") from error
    filled = [{**group, "items": list(group["items"].values())} for group in groups.values() if group["items"]]
    order = SPLITS
    filled.sort(
        key=lambda group: (group["embedded"], order.index(group["split"]) if group["split"] in order else len(order))
    )
    return filled, images
