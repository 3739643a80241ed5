"""The answers of a foreign predictions file: gathered by expression, in pixels, with what was wrong or doubtful."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.data.table import AnnotationTable
from vgbench.predictions.formats import Answer, Terms
from vgbench.predictions.reading import Reading
from vgbench.predictions.table import GREC_SCORE_THRESHOLD
from vgbench.types import Prediction

READABLE = 0.05  # share of the answers to expressions with a target that hold a box, at least
_FEW = 3  # of fewer answers the share says nothing
_SEVERAL = "answers hold several boxes: the first one is judged, or state several=first, last, union or any"


@dataclass
class Answers:
    """The answers to the expressions of a table, in pixels, and what was wrong with them."""

    table: AnnotationTable
    reading: Reading
    by_row: dict[int, Answer] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)
    doubts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    fields: Counter[str] = field(default_factory=Counter)
    upside_down: int = 0
    stray: int = 0

    def __post_init__(self) -> None:
        sides = [self.table.column(name).astype(np.float64) for name in ("width", "height")]
        self._sizes = np.stack(sides, axis=1)
        self._generalised = self.table.info.get("task") == "grec"

    def add(self, row: int, entry: Mapping[str, Any], place: str) -> None:
        """Add what an entry says; of a style with an entry per box there may be several for one expression.

        Raises:
            UserError: if the entry is damaged, or the expression was answered before.
        """
        reading, form, size = self.reading, self.reading.entry_format, self._sizes[row]
        if row in self.by_row and not form.entry_per_box:
            raise UserError(f"{place}: the expression {self.table.row(row).key!r} was answered before; keep one entry")
        terms = Terms(reading.box_form, (int(size[0]), int(size[1])), reading.text, reading.box, cells=reading.cells)
        answer = form.parse(dict(entry), place, terms)
        example = f"{place.rpartition(': ')[2]}: {_short(answer.words)}"
        if answer.field:
            self.fields[answer.field] += 1
        if form.free_text and not answer.boxes:
            self.unreadable[row] = example
        doubts = list(answer.doubts)
        if form.free_text and len(answer.boxes) > 1 and not self._generalised and reading.several is None:
            doubts.append(_SEVERAL)
        for doubt in doubts:
            self.doubts[doubt] += 1
            self.examples.setdefault(doubt, example)
        boxes = answer.boxes
        if not answer.in_pixels:
            whole = reading.whole(entry, place)
            boxes = [_to_pixels(box, size, whole, reading.frame or "image") for box in boxes]
        self._keep(row, answer, boxes)

    def _keep(self, row: int, answer: Answer, boxes: Sequence[list[float]]) -> None:
        good = [index for index, box in enumerate(boxes) if box[2] >= box[0] and box[3] >= box[1]]
        self.upside_down += len(boxes) - len(good)
        self.stray += sum(_stray(boxes[index], self._sizes[row]) for index in good)
        gathered = self.by_row.setdefault(row, Answer([], []))
        gathered.boxes += [boxes[index] for index in good]
        gathered.scores += [answer.scores[index] for index in good]
        gathered.masks += answer.masks
        gathered.mask_scores += answer.mask_scores
        gathered.no_target = answer.no_target

    def predictions(self) -> list[Prediction]:
        """One for each expression of the table."""
        rule = self.reading.several or "all"
        return [_prediction(self.by_row.get(row), self._generalised, rule) for row in range(len(self.table))]

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
        if self.unreadable:
            notes += self._unreadable_notes()
        notes += [f"{count} {doubt}; e.g. {self.examples[doubt]}" for doubt, count in self.doubts.items()]
        if self.upside_down:
            notes.append(f"{self.upside_down} boxes with x2 < x1 or y2 < y1 were left out")
        if self.stray:
            notes.append(
                f"{self.stray} boxes lie outside the image or cover less than a pixel: are scale= and boxes= right?"
            )
        if absent:
            notes.append(f"{len(absent)} expressions without an entry: nothing was found there")
        return notes

    def _unreadable_notes(self) -> list[str]:
        counts = [len(boxes) for boxes in self.table.arrow.column("boxes")]
        wrong = [example for row, example in self.unreadable.items() if counts[row]]
        right = len(self.unreadable) - len(wrong)
        notes = [f"{right} answers without four numbers are rejections, and nothing is meant there"] if right else []
        if wrong:
            notes.append(f"{len(wrong)} answers without four numbers count as wrong")
            notes.append(f"an answer without four numbers: {wrong[0]}")
        return notes

    def _check_readable(self, path: Path) -> None:
        targets = sum(bool(len(boxes)) for boxes in self.table.arrow.column("boxes"))
        readable = len(self.by_row) - len(self.unreadable)
        example = next(iter(self.unreadable.values()), "")
        if self.unreadable and len(self.by_row) >= _FEW and targets and readable < READABLE * targets:
            raise UserError(
                f"{path}: {readable} of {len(self.by_row)} answers hold a box; they were read from "
                f"{', '.join(map(repr, self.fields))}, e.g. {example}; name the field with the model's "
                "words: text=FIELD"
            )


def _short(words: str) -> str:
    text = " ".join(words[:400].split())
    return repr(text if len(text) <= 80 else f"{text[:40]} ... {' '.join(words[-60:].split())[-36:]}")


def _to_pixels(box: list[float], size: np.ndarray, whole: tuple[float, float] | None, frame: str) -> list[float]:
    """Corners in pixels of the image; ``whole``: what stands for width and height of the frame (None: pixels)."""
    width, height = float(size[0]), float(size[1])
    side = max(width, height)
    frame_size = (width, height) if frame == "image" else (side, side)
    offset = ((side - width) // 2, (side - height) // 2) if frame == "square" else (0, 0)
    scale = (1.0, 1.0) if whole is None else (frame_size[0] / whole[0], frame_size[1] / whole[1])
    return [value * scale[axis % 2] - offset[axis % 2] for axis, value in enumerate(box)]


def _stray(box: Sequence[float], size: np.ndarray) -> bool:
    """Whether a box cannot be meant: nothing of it is in the image, or it is smaller than a pixel."""
    inside = np.minimum(box[2:], size) - np.maximum(box[:2], 0)
    return bool(inside.min() <= 0 or (box[2] - box[0]) * (box[3] - box[1]) < 1)


def _prediction(answer: Answer | None, generalised: bool, rule: str) -> Prediction:
    """Boxes by descending score; of several masks the best one, or with several targets all that count as found."""
    if answer is None:
        return Prediction(torch.zeros(0, 4), torch.zeros(0))
    boxes, scores = _chosen(answer, rule)
    ranked = sorted(range(len(answer.masks)), key=lambda index: -answer.mask_scores[index])
    if len(ranked) > 1:
        ranked = [i for i in ranked if answer.mask_scores[i] >= GREC_SCORE_THRESHOLD] if generalised else ranked[:1]
    return Prediction(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float64),  # as the file has them: thresholds are decimal fractions
        mask=rle.union([answer.masks[index] for index in ranked]),
        no_target=answer.no_target,
    )


def _chosen(answer: Answer, rule: str) -> tuple[list[list[float]], list[float]]:
    """Boxes and scores, best first, after the rule for several boxes."""
    order = sorted(range(len(answer.boxes)), key=lambda index: -answer.scores[index])
    if len(order) > 1 and rule == "union":
        corners = np.array(answer.boxes)
        return [[*corners[:, :2].min(0).tolist(), *corners[:, 2:].max(0).tolist()]], [max(answer.scores)]
    if rule == "first":
        order = order[:1]
    elif rule == "last":
        order = [len(answer.boxes) - 1] if order else []
    return [answer.boxes[index] for index in order], [answer.scores[index] for index in order]
