"""Published numbers, and what makes a measured one comparable with them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from vgbench.core.errors import UserError
from vgbench.leaderboard.columns import Column, result_column, row_label
from vgbench.records.record import Metric, Record, Result


class PublishedRow(NamedTuple):
    """One line of published.csv."""

    method: str
    variant: str
    backbone: str
    training_data: str
    task: str
    dataset: str
    split: str
    metric: str
    value: float
    source_title: str
    source_id: str
    source_place: str
    source_kind: str
    quoted_by: str


class Pair(NamedTuple):
    """A measured number beside a published one. ``notes`` say why they are not the same experiment, if they are not."""

    record: Record
    result: Result
    column: Column
    measured: Metric
    published: PublishedRow
    difference: float | None
    comparable: bool
    notes: tuple[str, ...]
    breaking: tuple[str, ...] = ()  # those of the notes that make the numbers incomparable

    @property
    def row(self) -> str:
        return row_label(self.record, self.result)


#: Metric names of published.csv that say how they were computed -> metric and variant of the records.
_PUBLISHED_METRICS = {
    "prec@0.5_giou": ("prec@0.5", "giou"),
    "prec@0.5_top1": ("prec@0.5", "topk"),
    "miou_as_listed": ("miou", "as listed"),
    "pr@f1_mmdet": ("pr@f1", "first_box"),
    "n_acc_mmdet": ("n_acc", "first_box"),
    **{f"recall@{k}_any": (f"recall@{k}", "default") for k in (1, 5, 10)},
    **{f"recall@{k}_merged": (f"recall@{k}", "merged") for k in (1, 5, 10)},
}


_SIZES = {"tiny": "T", "small": "S", "base": "B", "large": "L", "huge": "H"}


def read_published(path: Path | None = None) -> list[PublishedRow]:
    """The rows of a published.csv (None: the one in the package).

    Raises:
        UserError: naming file, line and column, if one is missing, is no number, or has no source.
    """
    place = path or files("vgbench.leaderboards") / "published.csv"
    try:
        text = place.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{place}: {error.strerror or error}") from error
    rows = []
    for number, line in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        for name in PublishedRow._fields:
            if line.get(name) is None:
                raise UserError(f"{place}:{number}: no column {name!r}")
        if not line["source_id"] and not line["source_title"]:
            raise UserError(f"{place}:{number}: a published number needs a source_title and a source_id")
        try:
            value = float(line["value"])
        except ValueError:
            raise UserError(f"{place}:{number}: value {line['value']!r} is no number") from None
        cells: dict[str, Any] = {name: line[name] for name in PublishedRow._fields}
        rows.append(PublishedRow(**{**cells, "value": value}))
    return rows


def plain_name(name: str) -> str:
    """A method's name for looking up: VG-LAW, vglaw and VGLAW are one."""
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def published_dataset(dataset: str, split_by: str | None) -> str:
    """The name in published.csv; RefCOCO and RefCOCO+ are split by unc there, ReferIt by berkeley; RefCOCOg says by
    whom."""
    usual = "berkeley" if dataset == "referit" else "unc"
    return dataset if split_by in (None, usual) else f"{dataset}_{split_by}"


def dataset_of(row: PublishedRow) -> str:
    """The data set of a published row under one name: VG-LAW calls ReferIt refclef."""
    return "referit" if row.dataset == "refclef" else row.dataset


def published_metric(row: PublishedRow) -> tuple[str, str]:
    return _PUBLISHED_METRICS.get(row.metric, (row.metric, "default"))


def published_task(row: PublishedRow) -> str:
    return "phrase" if row.task == "phrase grounding" else row.task.lower()


def published_pairs(records: Iterable[Record], published: Sequence[PublishedRow]) -> list[Pair]:
    """Every measured number on real data beside the published numbers of the same method, task, split and metric.

    Where no number of the same split author exists, those of another author are listed (and marked). A run that states
    its ``published_variant`` meets only that one; a prediction set does not meet rows that name another one.
    """
    by_cell: dict[tuple[str, ...], list[PublishedRow]] = {}
    for row in published:
        key = (plain_name(row.method), published_task(row), row.split, published_metric(row)[0])
        by_cell.setdefault(key, []).append(row)
    pairs = []
    for record in records:
        sets = {result.prediction_set for result in record.results}
        names = dict.fromkeys(map(plain_name, (record.method, record.label or record.method)))
        for result in record.results:
            if result.embedded:
                continue
            rivals = sets - {result.prediction_set}
            for name, metric in result.metrics.items():
                column = result_column(result, name, metric.variant)
                candidates = [
                    row
                    for ours in names
                    for row in by_cell.get((ours, result.task, result.split, column.metric), ())
                    if (record.published_variant is None or row.variant == record.published_variant)
                    and not any(rival in row.variant.lower() for rival in rivals)
                ]
                name_there = published_dataset(result.dataset, result.split_by)
                exact = [row for row in candidates if dataset_of(row) == name_there]
                near = [row for row in candidates if dataset_of(row).split("_")[0] == result.dataset]
                pairs += [pair_of(record, result, column, metric, row) for row in exact or near]
    return pairs


def pair_of(record: Record, result: Result, column: Column, metric: Metric, row: PublishedRow) -> Pair:
    """A measured number beside a published one.

    The notes: first what makes the two numbers incomparable, then what one should know."""
    breaking, other = [], []
    published_variant = published_metric(row)[1]
    if metric.variant != published_variant:
        breaking.append(f"metric variant: measured {metric.variant}, published {published_variant}")
    if dataset_of(row) != published_dataset(result.dataset, result.split_by):
        breaking.append(f"split author: measured {result.split_by}, published {row.dataset}")
    size = _SIZES.get(record.variant.lower())
    sizes = set(re.findall(r"(?:ViT|BEiT-?3)-(?:Det-)?([TSBLH])\b", f"{row.variant} {row.backbone}"))
    if size and sizes and size not in sizes:
        breaking.append(f"model size: measured {record.variant}, published {'/'.join(sorted(sizes))}")
    if result.leaked_images:
        breaking.append(f"leaked data: {result.leaked_images} images of the split were trained on")
    if result.resolution != "original":
        breaking.append(f"resolution: scored at {result.resolution}")
    if result.expected_expressions not in (None, result.expressions):
        breaking.append(f"incomplete: {result.expressions} of {result.expected_expressions} expressions scored")
    if result.leaked_images is None:
        other.append("not known whether images of the split were trained on")
    if record.training is not None:
        trained = sorted({data.dataset for data in (*record.training.earlier, *record.training.data)})
        if len(trained) != 1 or not row.training_data.startswith("single dataset"):
            other.append(f"training data: measured {' + '.join(trained) or 'unknown'}, published {row.training_data!r}")
    if row.quoted_by:
        other.append(f"published number quoted by {row.quoted_by}")
    difference = None if metric.value is None else metric.value - row.value
    notes = (*breaking, *other)
    return Pair(record, result, column, metric, row, difference, not breaking, notes, tuple(breaking))
