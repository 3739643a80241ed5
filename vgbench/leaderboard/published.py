"""Published numbers, as they stand in published.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from vgbench.core import registry
from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file


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


#: Metric names of published.csv that say how they were computed -> metric and variant of the records.
_PUBLISHED_METRICS = {
    "prec@0.5_giou": ("prec@0.5", "giou"),
    "prec@0.5_top1": ("prec@0.5", "topk"),
    "miou_as_listed": ("miou", "as listed"),
    "pr@f1_mmdet": ("pr@f1", "first_box"),
    "n_acc_mmdet": ("n_acc", "first_box"),
    **{f"prec@{threshold}_clamped": (f"prec@{threshold}", "acc") for threshold in ("0.5", "0.75", "0.9")},
} | {
    f"recall@{k}_{published}": (f"recall@{k}", variant)
    for k in (1, 5, 10)
    for published, variant in (("any", "default"), ("merged", "merged"))
}


def read_published(path: Path | None = None) -> list[PublishedRow]:
    """The rows of a published.csv (None: the one in the package).

    Raises:
        UserError: naming file, line and column, if one is missing, is no number, or has no source.
    """
    place = path or Path(str(files("vgbench.leaderboards") / "published.csv"))
    try:
        if path is not None:
            ordinary_file(path)
        text = place.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{place}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    rows = []
    for number, line in _lines(text, place):
        for name in PublishedRow._fields:
            if line.get(name) is None:
                raise UserError(f"{place}:{number}: no column {name!r}")
        if not line["source_id"] and not line["source_title"]:
            raise UserError(f"{place}:{number}: a published number needs a source_title and a source_id")
        try:
            value = float(line["value"])
        except ValueError:
            raise UserError(f"{place}:{number}: value {line['value']!r} is no number") from None
        row = PublishedRow(**{name: line[name] for name in PublishedRow._fields})  # type: ignore[arg-type]
        rows.append(row._replace(value=value))
    return rows


def _lines(text: str, place: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Number and columns of every line after the heading."""
    try:
        yield from enumerate(csv.DictReader(io.StringIO(text)), start=2)
    except csv.Error as error:  # a cell without end; before Python 3.11 a NUL too
        raise UserError(f"{place}: no table of comma-separated values ({error})") from None


def published_names(dataset: str, split_by: str | None) -> tuple[str, ...]:
    """The names in published.csv of a data set with this author of its splits.

    The class of the data set tells whose splits are meant where no author is named, and what else it is called.
    """
    names, plain_split_by = _dataset_names(dataset)
    return names if split_by in (None, plain_split_by) else tuple(f"{name}_{split_by}" for name in names)


@cache
def _dataset_names(dataset: str) -> tuple[tuple[str, ...], str | None]:
    """All names of a data set, and the author of its splits where the name stands alone."""
    if dataset not in registry.datasets:
        return (dataset,), None
    cls = registry.datasets.load(dataset)
    return (dataset, *cls.published_names), cls.published_split_by


def published_metric(row: PublishedRow) -> tuple[str, str]:
    """Metric and variant, as the records name them."""
    return _PUBLISHED_METRICS.get(row.metric, (row.metric, "default"))


def published_task(row: PublishedRow) -> str:
    """The task, as the records name it."""
    return "phrase" if row.task == "phrase grounding" else row.task.lower()
