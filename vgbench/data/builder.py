"""Collecting the rows of one split."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vgbench.data.checks import BadSample
from vgbench.data.images import BadImage
from vgbench.data.table import AnnotationTable


@dataclass(frozen=True)
class ImageRecord:
    """An image as annotations describe it: ``file`` is its path below the image root, ``width`` and ``height`` are in
    pixels, ``source`` is the collection in which ``id`` is its number ("coco", "vg", ...)."""

    id: int
    file: str
    width: int
    height: int
    source: str


@dataclass(frozen=True)
class Targets:
    """What one expression refers to: n ``boxes`` xyxy in pixels (n = 0: nothing in the image), and for each box, or for
    none at all, its COCO RLE counts, the number of polygons they were made from (0: none), annotation id, category."""

    boxes: Sequence[Sequence[float]]
    masks: Sequence[str] = ()
    polygons: Sequence[int] = ()
    ann_ids: Sequence[int] = ()
    categories: Sequence[str] = ()


@dataclass(frozen=True)
class SentenceIds:
    """What the original files call a ref (all expressions of one object) and one of its sentences; None: nothing."""

    ref_id: int | None = None
    sent_id: int | None = None


class TableBuilder:
    """Collects the rows of one split; :meth:`skip` counts what cannot be used.

    Attributes:
        notes: remarks about the split (logged when the table is loaded).
        warnings: remarks that change how results are to be read (logged as warnings).
        volatile: the table depends on more than its sources (:class:`BadImage`) and must not be cached.
        group_unit: what ``group`` stands for: "ref" (all expressions of one referred object), "image", "expression".
    """

    def __init__(self, dataset: str, split: str, task: str, group_unit: str = "ref") -> None:
        self.info: dict[str, Any] = {"dataset": dataset, "split": split, "task": task}
        self.split = split
        self.group_unit = group_unit
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.volatile = False
        self.skipped: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self._kinds: dict[str, dict[str, list[str]]] = {}
        self._rows: list[dict[str, Any]] = []
        self._batches: list[pa.Table] = []
        self._keys: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._rows) + sum(batch.num_rows for batch in self._batches)

    def add(
        self,
        key: str,
        image: ImageRecord,
        expression: str,
        targets: Targets,
        group: int,
        ids: SentenceIds = SentenceIds(),
    ) -> str:
        """Add one expression.

        Args:
            key: its name in predictions; one that is already there gets a suffix ``#2``, ``#3``, ... and is counted.
            image: the image it is about.
            expression: the text as written.
            targets: what it refers to.
            group: number of the sampling unit it belongs to (``group_unit``).
            ids: what its ref and sentence are called in the original files, where they are.

        Returns:
            the key that it got.
        """
        self._keys[key] += 1
        if self._keys[key] > 1:
            key = f"{key}#{self._keys[key]}"
        columns = {"image": image.file, "image_id": image.id, "width": image.width, "height": image.height}
        columns |= {"source": image.source, **vars(targets), **vars(ids)}
        self._rows.append({**columns, "key": key, "expression": expression, "group": group, "split": self.split})
        if len(self._rows) >= 250_000:  # millions of expressions as Python objects would not fit into memory
            self._flush()
        return key

    def classify(self, key: str, rule: str, kind: str) -> None:
        """Say that an expression is of a kind that its authors report numbers of, e.g. rule "level", kind "level 2".
        Slices are made of it (:func:`vgbench.metrics.slices.buckets`); one kind per rule."""
        self._kinds.setdefault(rule, {}).setdefault(kind, []).append(key)

    def _flush(self) -> None:
        self._batches.append(AnnotationTable.from_rows(self._rows, {}).arrow)
        self._rows = []

    def skip(self, where: str, error: BadSample, count: int = 1) -> None:
        """Leave out ``count`` expressions because of ``error`` at ``where`` (file and entry)."""
        self.skipped[error.reason] += count
        self.volatile |= isinstance(error, BadImage)
        self.examples.setdefault(error.reason, f"{where}: {error}")

    @contextlib.contextmanager
    def sample(self, where: str, count: int = 1) -> Iterator[None]:
        """What is parsed and added inside is left out (:meth:`skip`) if it turns out that it cannot be used; parse all
        of it before adding anything."""
        try:
            yield
        except BadSample as error:
            self.skip(where, error, max(count, 1))

    def table(self) -> AnnotationTable:
        """The finished table. ``info`` gets ``skipped``, ``skipped_examples``, ``notes``, ``warnings``,
        ``volatile``, ``group_unit``, ``duplicate_keys`` and, where there are any, ``kinds``: rule -> kind -> keys."""
        self._flush()
        info = {
            **self.info,
            "skipped": dict(self.skipped),
            "skipped_examples": self.examples,
            "notes": self.notes,
            "warnings": self.warnings,
            "group_unit": self.group_unit,
            "volatile": self.volatile,
            "duplicate_keys": sum(count - 1 for count in self._keys.values()),
            **({"kinds": self._kinds} if self._kinds else {}),
        }
        return AnnotationTable(pa.concat_tables(self._batches).combine_chunks(), info)
