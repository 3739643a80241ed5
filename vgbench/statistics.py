"""What is in a dataset: numbers per split, and evaluation images that a training set contains."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from vgbench.table import AnnotationTable

__all__ = ["Leakage", "Statistics", "leakage", "statistics"]

LOCATION = re.compile(
    r"\b(left|right|top|bottom|middle|center|centre|front|back|behind|upper|lower|above|below|closest|nearest|farthest"
    r"|corner|first|second|third|last)\b"
)


@dataclass(frozen=True)
class Statistics:
    """Numbers of one split.

    Attributes:
        words: mean number of words per expression (separated by white space).
        vocabulary: number of different lower-case words.
        location: share of expressions with a location word.
        targets: how many expressions have 0, 1, 2, ... targets.
        same_category: mean number of other annotated targets of the same category in the image of a target; None
            where categories are not known. Objects that no expression refers to are not in the table.
        area: quantiles 0.05, 0.25, 0.5, 0.75, 0.95 of box area / image area.
        duplicates: expressions that repeat image, boxes and text of an earlier one.
        ambiguous: texts that occur in one image for different targets.
        length: how many expressions have so many words.
        common: the 20 most frequent words.
    """

    images: int
    expressions: int
    words: float
    vocabulary: int
    location: float
    targets: dict[int, int]
    same_category: float | None
    area: tuple[float, ...]
    duplicates: int
    ambiguous: int
    length: dict[int, int] = field(repr=False)
    common: tuple[tuple[str, int], ...] = field(repr=False)


def statistics(table: AnnotationTable) -> Statistics:
    """Count through a table once."""
    lengths: Counter[int] = Counter()
    vocabulary: Counter[str] = Counter()
    targets: Counter[int] = Counter()
    seen: set[tuple[str, tuple[float, ...], str]] = set()
    meanings: dict[tuple[str, str], set[tuple[float, ...]]] = {}
    objects: dict[tuple[str, str], set[tuple[float, ...]]] = {}
    areas: list[float] = []
    location = 0
    for row in table:
        words = row.expression.lower().split()
        lengths[len(words)] += 1
        vocabulary.update(words)
        targets[len(row.boxes)] += 1
        location += LOCATION.search(row.expression.lower()) is not None
        boxes = tuple(row.boxes.reshape(-1).tolist())
        seen.add((row.image, boxes, row.expression))
        meanings.setdefault((row.image, row.expression), set()).add(boxes)
        sides = row.boxes[:, 2:] - row.boxes[:, :2]
        areas.extend((sides.prod(1) / (row.width * row.height)).tolist())
        for box, category in zip(row.boxes.tolist(), row.categories, strict=False):
            objects.setdefault((row.image, category), set()).add(tuple(box))
    sizes = [len(group) for group in objects.values()]
    return Statistics(
        images=len(np.unique(table.column("image"))),
        expressions=len(table),
        words=sum(length * count for length, count in lengths.items()) / max(len(table), 1),
        vocabulary=len(vocabulary),
        location=location / max(len(table), 1),
        targets=dict(sorted(targets.items())),
        same_category=sum(size * (size - 1) for size in sizes) / sum(sizes) if sizes else None,
        area=tuple(np.quantile(areas, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist()) if areas else (),
        duplicates=len(table) - len(seen),
        ambiguous=sum(len(boxes) > 1 for boxes in meanings.values()),
        length=dict(sorted(lengths.items())),
        common=tuple(vocabulary.most_common(20)),
    )


@dataclass(frozen=True)
class Leakage:
    """Overlap of one training table with one evaluation table.

    Attributes:
        images: evaluation images that the training table contains.
        evaluation_images: all evaluation images.
        training_expressions: training expressions on those images.
    """

    images: int
    evaluation_images: int
    training_expressions: int


def image_keys(table: AnnotationTable, coco_of_vg: Mapping[int, int] | None = None) -> np.ndarray:
    """One text per row that names the image whatever the data set calls it: "coco:581857".

    Args:
        table: any annotation table.
        coco_of_vg: Visual Genome's image id -> COCO id (``coco_id`` of its ``image_data.json``), for those of its
            images that are COCO images.
    """
    known = coco_of_vg or {}
    ids, sources = table.column("image_id").tolist(), table.arrow.column("source").to_pylist()
    pairs = [
        ("coco", known[number]) if source == "vg" and number in known else (source, number)
        for number, source in zip(ids, sources, strict=True)
    ]
    return np.array([f"{source}:{number}" for source, number in pairs])


def leakage(
    train: AnnotationTable, evaluation: AnnotationTable, coco_of_vg: Mapping[int, int] | None = None
) -> Leakage:
    """How many images of ``evaluation`` are in ``train`` (see :func:`image_keys` for ``coco_of_vg``)."""
    training, evaluated = image_keys(train, coco_of_vg), np.unique(image_keys(evaluation, coco_of_vg))
    shared = np.intersect1d(np.unique(training), evaluated)
    return Leakage(len(shared), len(evaluated), int(np.isin(training, shared).sum()))


def without_images(
    train: AnnotationTable, evaluations: list[AnnotationTable], coco_of_vg: Mapping[int, int] | None = None
) -> AnnotationTable:
    """``train`` without the images of ``evaluations``; ``info["excluded_images"]`` says how many were left out."""
    training = image_keys(train, coco_of_vg)
    unwanted = np.unique(np.concatenate([image_keys(table, coco_of_vg) for table in evaluations]))
    leaked = np.isin(training, unwanted)
    kept = train.take(np.flatnonzero(~leaked))
    before = train.info.get("excluded_images", 0)
    kept.info = {**train.info, "excluded_images": before + len(np.unique(training[leaked]))}
    return kept
