"""A probe asked about a whole split: the changed table, the images, and what had to be left out."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from vgbench.data.table import AnnotationTable, Row
from vgbench.probes.annotations import Annotations, LeftOut
from vgbench.probes.base import Probe
from vgbench.probes.names import probed


def generator(seed: int, probe: Probe, row: Row, purpose: str) -> np.random.Generator:
    """The random numbers of one question: they depend on nothing else."""
    texts = (probe.spec, row.key, purpose)
    return np.random.default_rng([seed, *(zlib.crc32(text.encode()) for text in texts)])


@dataclass(frozen=True)
class Questions:
    """The questions of one probe.

    Attributes:
        split: "val [mirror]": what results and leaderboards call it.
        annotations: of the plain split.
        rows: int64 [n], rows of the plain table that are asked about.
        table: the questions, with their right answers; the keys are those of the plain rows.
        left_out: reason -> how many expressions have no question because of it.
        seed: of all random choices.
    """

    probe: Probe
    split: str
    annotations: Annotations
    rows: np.ndarray
    table: AnnotationTable
    left_out: Mapping[str, int]
    seed: int

    @cached_property
    def plain(self) -> AnnotationTable:
        """The rows that are asked about, unchanged."""
        return self.annotations.table.take(self.rows)

    @property
    def hash(self) -> str:
        """SHA-256 of the questions, images included: the identity of the data that a result was computed on."""
        if not self.probe.changes_images:
            return self.table.hash
        return hashlib.sha256(f"{self.table.hash}|{self.probe.spec}|{self.seed}".encode()).hexdigest()

    def picture(self, index: int, image: Tensor) -> Tensor:
        """The image of question ``index``, uint8 RGB [3, H', W'], from the original one [3, H, W]."""
        if not self.probe.changes_images:
            return image
        row = self.annotations.table.row(int(self.rows[index]))
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        random = generator(self.seed, self.probe, row, "picture")
        changed = self.probe.picture(pixels, row, self.annotations, random)
        return torch.from_numpy(np.ascontiguousarray(changed)).permute(2, 0, 1)

    def carried(self, boxes: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Boxes [n, 4] of the plain images where they lie in those of the questions; ``valid`` [n]: there is one."""
        moved = boxes.copy()
        if type(self.probe).carried is Probe.carried:
            return moved
        for index in np.flatnonzero(valid).tolist():
            moved[index] = self.probe.carried(boxes[index], self.plain.row(index), self.table.row(index))
        return moved

    @property
    def note(self) -> str:
        """How many expressions are asked about, and why the others are not; one line for the record."""
        total = len(self.annotations.table)
        reasons = "; ".join(f"{count} {reason}" for reason, count in Counter(self.left_out).most_common())
        return f"{self.split}: {len(self.rows)} of {total} expressions asked" + (
            f"; left out: {reasons}" if reasons else ""
        )


def ask(probe: Probe, annotations: Annotations, split: str, seed: int = 0) -> Questions:
    """The questions of a probe about every expression whose effect it can prove.

    Args:
        annotations: of the split.
        split: its name.
        seed: of all random choices; each depends on it, the probe and the expression's key alone.
    """
    rows: list[int] = []
    changed: list[dict[str, object]] = []
    left_out: Counter[str] = Counter()
    for index, row in enumerate(annotations.table):
        try:
            question = probe.question(row, annotations, generator(seed, probe, row, "question"))
        except LeftOut as error:
            left_out[str(error)] += 1
            continue
        rows.append(index)
        changed.append(_as_columns(question))
    name = probed(split, probe.spec)
    info = {**annotations.table.info, "split": name, "notes": [], "warnings": []}
    table = AnnotationTable.from_rows(changed, info)
    return Questions(probe, name, annotations, np.array(rows, dtype=np.int64), table, dict(left_out), seed)


def _as_columns(row: Row) -> dict[str, object]:
    return {**vars(row), "masks": [mask["counts"] for mask in row.masks]}
