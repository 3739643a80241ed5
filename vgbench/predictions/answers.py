"""The answers of a foreign predictions file: gathered by expression, in pixels, with what was wrong or doubtful."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.data.table import AnnotationTable
from vgbench.predictions.coordinates import Size, to_pixels
from vgbench.predictions.formats import Answer, Terms
from vgbench.predictions.numbers import Box
from vgbench.predictions.reading import Reading
from vgbench.predictions.table import GREC_SCORE_THRESHOLD
from vgbench.predictions.tally import SEVERAL_BOXES, Tally
from vgbench.predictions.words import LONGEST
from vgbench.types import Geometry, Prediction


@dataclass
class Answers:
    """The answers to the expressions of a table, in pixels, and what was wrong with them."""

    table: AnnotationTable
    reading: Reading
    by_row: dict[int, Answer] = field(default_factory=dict)
    fields: Counter[str] = field(default_factory=Counter)
    upside_down: int = 0
    stray: int = 0
    repeated: int = 0

    def __post_init__(self) -> None:
        sides = [self.table.column(name).astype(np.float64) for name in ("width", "height")]
        self._sizes = np.stack(sides, axis=1)
        self._generalised = self.table.info.get("task") == "grec"
        self._style = self.reading.answer_style
        self._whole = None if self.reading.divisor is None else (self.reading.divisor, self.reading.divisor)
        self._seen: dict[int, Size] = {}
        self._read: dict[int, Answer] = {}
        self.tally = Tally([len(boxes) for boxes in self.table.arrow.column("boxes")])

    def add(self, row: int, entry: Mapping[str, Any], place: str) -> None:
        """Add what an entry says; of a style with an entry per box there may be several for one expression.

        Raises:
            UserError: if the entry is damaged, or the expression was answered before.
        """
        reading, form, size = self.reading, self.reading.entry_format, self._sizes[row]
        seen = reading.seen(entry, place)
        terms = Terms(reading.coordinates.form, (int(size[0]), int(size[1])), reading.text, reading.box)
        answer = form.parse(dict(entry), place, replace(terms, cells=reading.cells, style=self._style, seen=seen))
        if row in self.by_row and not form.entry_per_box:
            self._check_same(row, answer, place)
            return
        self._read[row] = answer
        boxes = answer.boxes
        if not answer.in_pixels:
            whole = self._whole if seen is None else seen
            boxes = [to_pixels(box, (size[0], size[1]), whole, reading.coordinates.frame) for box in boxes]
        if form.free_text:
            self._count(row, answer, place)
        if seen is not None:
            self._seen[row] = seen
        self._keep(row, answer, boxes)

    def _check_same(self, row: int, answer: Answer, place: str) -> None:
        """An expression may occur twice with the same answer: samplers fill the last batch of several processes up."""
        if answer != self._read[row]:
            raise UserError(f"{place}: the expression {self.table.row(row).key!r} was answered before; keep one entry")
        self.repeated += 1

    def _count(self, row: int, answer: Answer, place: str) -> None:
        doubts = list(answer.doubts)
        if len(answer.boxes) > 1 and not self._generalised and self.reading.several is None:
            doubts.append(SEVERAL_BOXES)
        self.fields[answer.field] += 1
        self.tally.add(
            row, answer.words, place.rpartition(": ")[2], bool(answer.boxes or answer.points), answer.silence, doubts
        )

    def _keep(self, row: int, answer: Answer, boxes: Sequence[list[float]]) -> None:
        good = [index for index, box in enumerate(boxes) if box[2] >= box[0] and box[3] >= box[1]]
        self.upside_down += len(boxes) - len(good)
        self.stray += sum(_stray(boxes[index], self._sizes[row]) for index in good)
        gathered = self.by_row.setdefault(row, Answer([], []))
        gathered.boxes += [boxes[index] for index in good]
        gathered.scores += [answer.scores[index] for index in good]
        gathered.masks += answer.masks
        gathered.mask_scores += answer.mask_scores
        gathered.no_target, gathered.words, gathered.points = answer.no_target, answer.words, answer.points

    def predictions(self) -> list[Prediction]:
        """One for each expression of the table, with the model's words where it answered in words."""
        rule = self.reading.several or "all"
        predictions = [_prediction(self.by_row.get(row), self._generalised, rule) for row in range(len(self.table))]
        if self.reading.entry_format.free_text:
            for row, answer in self.by_row.items():
                predictions[row].answer = answer.words[:LONGEST]
                predictions[row].geometry = seen_geometry(self._sizes[row], self._seen.get(row))
        return predictions

    def notes(self, path: Path) -> list[str]:
        """What a reader of the record has to know.

        Raises:
            UserError: if expressions have no entry although every one should, or hardly any answer holds a box.
        """
        absent = [row for row in range(len(self.table)) if row not in self.by_row]
        if absent and not self.reading.entry_format.entry_per_box:
            raise UserError(
                f"{path}: {len(absent)} of {len(self.table)} expressions have no entry, first "
                f"{self.table.row(absent[0]).key!r}; add an entry with an empty answer"
            )
        self._check_readable(path)
        notes = [f"the answers were read from {', '.join(map(repr, self.fields))}"] if self.fields else []
        notes += self.tally.notes()
        if self.upside_down:
            notes.append(f"{self.upside_down} boxes with x2 < x1 or y2 < y1 were left out")
        if self.stray:
            notes.append(
                f"{self.stray} boxes lie outside the image or cover less than a pixel: are scale= and boxes= right?"
            )
        if self.repeated:
            notes.append(f"{self.repeated} entries repeat the answer of an earlier one")
        if absent:
            notes.append(f"{len(absent)} expressions without an entry: nothing was found there")
        return notes

    def _check_readable(self, path: Path) -> None:
        if self.reading.entry_format.free_text and self.tally.hardly_read:
            style = f" as {self.reading.style}" if self.reading.style else ""
            raise UserError(
                f"{path}: {len(self.tally.holding)} of {self.tally.answers} answers hold a box; they were read{style} "
                f"from {', '.join(map(repr, self.fields))}, e.g. {self.tally.example}; name the field with the model's "
                f"words: text=FIELD{', or another style=' if style else ''}"
            )


def seen_geometry(size: Sequence[float], seen: Size | None) -> Geometry | None:
    """How the image lay in what the model saw; None: it is not known. Sizes are (width, height)."""
    if seen is None:
        return None
    width, height = int(size[0]), int(size[1])
    canvas = (round(seen[1]), round(seen[0]))
    return Geometry((seen[0] / width, seen[1] / height), (0.0, 0.0), (height, width), canvas)


def _stray(box: Sequence[float], size: np.ndarray) -> bool:
    """Whether a box cannot be meant: nothing of it is in the image, or it is smaller than a pixel."""
    inside = np.minimum(box[2:], size) - np.maximum(box[:2], 0)
    return bool(inside.min() <= 0 or (box[2] - box[0]) * (box[3] - box[1]) < 1)


def _prediction(answer: Answer | None, generalised: bool, rule: str) -> Prediction:
    """Boxes by descending score; of several masks the best one, or with several targets all that count as found."""
    if answer is None:
        return Prediction(np.zeros((0, 4)), np.zeros(0))
    boxes, scores = by_rule(answer.boxes, answer.scores, rule)
    ranked = sorted(range(len(answer.masks)), key=lambda index: -answer.mask_scores[index])
    if len(ranked) > 1:
        ranked = [i for i in ranked if answer.mask_scores[i] >= GREC_SCORE_THRESHOLD] if generalised else ranked[:1]
    return Prediction(
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(scores, dtype=np.float64),  # as the file has them: thresholds are decimal fractions
        mask=rle.union([answer.masks[index] for index in ranked]),
        no_target=answer.no_target,
        point=None if not answer.points else (int(answer.points[0][0]), int(answer.points[0][1])),
    )


def by_rule(boxes: list[Box], scores: list[float], rule: str) -> tuple[list[Box], list[float]]:
    """Boxes and scores, best first, after one of the rules for several boxes (:data:`SEVERAL` of the reading)."""
    order = sorted(range(len(boxes)), key=lambda index: -scores[index])
    if len(order) > 1 and rule == "union":
        corners = np.array(boxes)
        return [[*corners[:, :2].min(0).tolist(), *corners[:, 2:].max(0).tolist()]], [max(scores)]
    if rule == "first":
        order = order[:1]
    elif rule == "last":
        order = [len(boxes) - 1] if order else []
    return [boxes[index] for index in order], [scores[index] for index in order]
