"""Metrics by kind of expression: length, location words, same category, size, number of targets, and the kinds that the
authors of a benchmark tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vgbench.data.describe import LOCATION
from vgbench.data.table import AnnotationTable
from vgbench.metrics import catalog
from vgbench.metrics.base import Outcomes
from vgbench.metrics.bootstrap import intervals

SMALL, LARGE = 0.05, 0.20  # share of the image that a target covers


@dataclass(frozen=True)
class Buckets:
    """One slicing rule: names of its buckets, and the bucket of each row, int64 [n] (-1: in none)."""

    names: tuple[str, ...]
    index: np.ndarray


class SliceScore(NamedTuple):
    """A metric in one bucket, in percent, on ``n`` expressions; ``low`` and ``high`` are NaN without bootstrap."""

    value: float
    n: int
    low: float
    high: float


def buckets(table: AnnotationTable) -> dict[str, Buckets]:
    """All slicing rules that put the rows of a table into at least two buckets.

    "expression length" in words; "location words" (left, top, second, ...); "same category": other annotated objects
    of the target's category in its image, as far as this table knows (objects that no expression refers to are not in
    it); "target size": share of the image covered by the boxes; "targets": how many, "none" for no target; and the
    kinds that the dataset's reader names (:meth:`vgbench.data.builder.TableBuilder.classify`).
    """
    counts = np.array([len(boxes) // 4 for boxes in table.arrow.column("boxes").to_pylist()], dtype=np.int64)
    texts = table.arrow.column("expression").to_pylist()
    lengths = np.array([len(text.split()) for text in texts], dtype=np.int64)
    location = np.array([LOCATION.search(text.lower()) is not None for text in texts], dtype=np.int64)
    area = _areas(table, counts)
    rules = {
        "expression length": Buckets(("1-2 words", "3-5 words", "6-9 words", "10+ words"), _bin(lengths, (3, 6, 10))),
        "location words": Buckets(("without", "with"), location),
        "same category": Buckets(("alone", "1 other", "2 others", "3+ others"), _others(table)),
        "target size": Buckets(
            ("small (< 5 %)", "medium", "large (>= 20 %)"), np.where(counts > 0, _bin(area, (SMALL, LARGE)), -1)
        ),
        "targets": Buckets(("none", "one", "two", "three or more"), np.minimum(counts, 3)),
        **authors_kinds(table),
    }
    return {name: rule for name, rule in rules.items() if len(np.unique(rule.index[rule.index >= 0])) > 1}


def authors_kinds(table: AnnotationTable) -> dict[str, Buckets]:
    """The kinds of expressions that the authors of a dataset report numbers of, by rule; in alphabetical order."""
    kinds = table.info.get("kinds") or {}
    rows = {key: row for row, key in enumerate(table.column("key"))} if kinds else {}
    rules = {}
    for rule, members in kinds.items():
        index = np.full(len(table), -1, dtype=np.int64)
        for number, kind in enumerate(sorted(members)):
            index[[rows[key] for key in members[kind] if key in rows]] = number  # a part of the split has fewer rows
        rules[rule] = Buckets(tuple(sorted(members)), index)
    return rules


def _bin(values: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    return np.searchsorted(np.asarray(edges), values, side="right")


def _areas(table: AnnotationTable, counts: np.ndarray) -> np.ndarray:
    """Area of all boxes / area of the image, float64 [n]; overlapping boxes count twice."""
    flat = table.arrow.column("boxes").combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)
    area = np.maximum(flat[:, 2:] - flat[:, :2], 0).prod(1)
    total = np.bincount(np.repeat(np.arange(len(table)), counts), weights=area, minlength=len(table))
    return total / (table.column("width").astype(np.float64) * table.column("height"))


def _others(table: AnnotationTable) -> np.ndarray:
    """Other objects of the category of the only target, at most 3, int64 [n]; -1 where that is not known."""
    columns = (table.arrow.column(name).to_pylist() for name in ("image_id", "categories", "ann_ids"))
    rows = list(zip(*columns, strict=True))
    objects: dict[tuple[int, str], set[int]] = {}
    for image, categories, numbers in rows:
        for category, number in zip(categories, numbers, strict=False):
            objects.setdefault((image, category), set()).add(number)
    others = (len(objects[image, names[0]]) - 1 if len(names) == len(ids) == 1 else -1 for image, names, ids in rows)
    return np.minimum(np.fromiter(others, dtype=np.int64, count=len(rows)), 3)


def sliced(
    outcomes: Outcomes, metric: str, table: AnnotationTable, bootstrap: int = 1000
) -> dict[str, dict[str, SliceScore]]:
    """A metric by rule and bucket; buckets that it is not defined in are left out.

    Args:
        outcomes: of all rows of ``table``.
        bootstrap: resamples of the images for each interval; 0: no intervals.
    """
    images = table.column("image_id")[outcomes.rows]
    scores: dict[str, dict[str, SliceScore]] = {}
    for name, rule in buckets(table).items():
        for number, bucket in enumerate(rule.names):
            members = rule.index[outcomes.rows] == number
            ratio = outcomes.take(members).ratios[metric]
            if not members.any() or math.isnan(ratio.value):
                continue
            bounds = intervals({metric: ratio}, images[members], bootstrap) if bootstrap else {}
            low, high = bounds.get(metric, (math.nan, math.nan))
            scores.setdefault(name, {})[bucket] = SliceScore(ratio.value, int((ratio.den > 0).sum()), low, high)
    return scores


def headline(
    outcomes: Outcomes, spec: str, table: AnnotationTable, bootstrap: int = 1000
) -> dict[str, dict[str, dict[str, SliceScore]]]:
    """The headline metrics of a task or of one of its variants (``task/variant``), by metric, rule and bucket (see
    :func:`sliced`)."""
    task, _, variant = spec.partition("/")
    scores = {
        metric: sliced(outcomes, metric, table, bootstrap=bootstrap)
        for metric in catalog.headline(task, variant or "default")
        if metric in outcomes.ratios
    }
    return {metric: rules for metric, rules in scores.items() if rules}
