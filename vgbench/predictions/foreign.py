"""Predictions in other people's formats -> :class:`Predictions`.

What cannot be seen in a file is stated by its user and never guessed, least of all from the ground truth: the scale of
the coordinates, the meaning of four numbers, and what the entries' ids refer to.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.data.table import AnnotationTable
from vgbench.predictions.checks import check
from vgbench.predictions.matching import match_rows
from vgbench.predictions.reading import Reading
from vgbench.predictions.styles import Answer
from vgbench.predictions.table import GREC_SCORE_THRESHOLD, Predictions
from vgbench.types import Prediction


def read_foreign(path: str | Path, table: AnnotationTable, reading: Reading) -> tuple[Predictions, list[str]]:
    """Read a file in a foreign format.

    Args:
        path: ``.json`` or ``.jsonl``: a list of entries, an object id -> entry, or one entry per line.
        table: the expressions that were predicted.
        reading: how to read it.

    Returns:
        Predictions in the order of ``table``, and notes for the record (how many answers could not be read, ...).

    Raises:
        UserError: if the file cannot be read, or its ids do not fit the table.
    """
    path = Path(path)
    places, entries = _entries(path)
    answers = _Answers(table, reading)
    for entry, place, row in zip(entries, places, match_rows(entries, places, table, reading), strict=True):
        answers.add(row, reading.style.parse(entry, place, reading.box_form, reading.text), place)
    notes = [
        f"read as {reading.format}, coordinates {reading.scale_words}, matched by {reading.match}",
        *answers.notes(path),
    ]
    generalised = table.info.get("task") == "grec"
    listed = [_prediction(answers.by_row.get(row), generalised) for row in range(len(table))]
    predictions = Predictions.from_list(table.column("key").tolist(), listed)
    check(predictions, str(path), "expression")
    return predictions, notes


@dataclass
class _Answers:
    """The answers to the expressions of a table, in pixels, and what was wrong with them."""

    table: AnnotationTable
    reading: Reading
    by_row: dict[int, Answer] = field(default_factory=dict)
    unreadable: int = 0
    upside_down: int = 0
    stray: int = 0

    def __post_init__(self) -> None:
        sides = [self.table.column(name).astype(np.float64) for name in ("width", "height")]
        self._sizes = np.stack(sides, axis=1)

    def add(self, row: int, answer: Answer, place: str) -> None:
        """Add what an entry says; of a style with an entry per box there may be several for one expression."""
        style, size = self.reading.style, self._sizes[row]
        if row in self.by_row and not style.entry_per_box:
            raise UserError(f"{place}: the expression {self.table.row(row).key!r} was answered before; keep one entry")
        self.unreadable += style.free_text and not answer.boxes
        boxes = [_to_pixels(box, size, self.reading) for box in answer.boxes]
        good = [index for index, box in enumerate(boxes) if box[2] >= box[0] and box[3] >= box[1]]
        self.upside_down += len(boxes) - len(good)
        self.stray += sum(_stray(boxes[index], size) for index in good)
        whole = self.by_row.setdefault(row, Answer([], [], []))
        whole.boxes += [boxes[index] for index in good]
        whole.scores += [answer.scores[index] for index in good]
        whole.masks += [answer.masks[index] for index in good] if style.entry_per_box else answer.masks
        whole.no_target = answer.no_target

    def notes(self, path: Path) -> list[str]:
        """What a reader of the record has to know.

        Raises:
            UserError: if expressions have no entry although every one should.
        """
        notes = []
        if self.unreadable:
            notes.append(f"{self.unreadable} answers without four numbers count as wrong")
        if self.upside_down:
            notes.append(f"{self.upside_down} boxes with x2 < x1 or y2 < y1 were left out")
        if self.stray:
            notes.append(
                f"{self.stray} boxes lie outside the image or cover less than a pixel: are scale= and boxes= right?"
            )
        absent = [row for row in range(len(self.table)) if row not in self.by_row]
        if absent and not self.reading.style.entry_per_box:
            raise UserError(
                f"{path}: {len(absent)} of {len(self.table)} expressions have no entry, first "
                f"{self.table.row(absent[0]).key!r}; add an entry with an empty answer"
            )
        if absent:
            notes.append(f"{len(absent)} expressions without an entry: nothing was found there")
        return notes


def _entries(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """The objects of a file, and for messages where each of them stands."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if path.suffix == ".jsonl":
        # not splitlines(): a model's words may hold characters that it takes for the end of a line
        parts = {f"{path}: line {number}": line for number, line in enumerate(text.split("\n"), 1) if line.strip()}
        content = [_json(line, place) for place, line in parts.items()]
        places = list(parts)
    else:
        content = _json(text, str(path), "; a file with one object per line is called .jsonl")
        if isinstance(content, dict):  # id -> entry
            content = [{"key": key, **value} if isinstance(value, dict) else value for key, value in content.items()]
        if not isinstance(content, list):
            raise UserError(f"{path}: expected a list of objects; see vgbench/metrics/README.md, foreign predictions")
        places = [f"{path}: entry {number}" for number in range(1, len(content) + 1)]
    for place, entry in zip(places, content, strict=True):
        if not isinstance(entry, dict):
            raise UserError(f"{place}: expected an object; see vgbench/metrics/README.md, foreign predictions")
    return places, content


def _json(text: str, place: str, hint: str = "") -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON ({error}){hint}") from None


def _to_pixels(box: list[float], size: np.ndarray, reading: Reading) -> list[float]:
    if reading.divisor is not None:
        box = [float(value * side / reading.divisor) for value, side in zip(box, [*size, *size], strict=True)]
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]] if reading.box_form == "xywh" else box


def _stray(box: Sequence[float], size: np.ndarray) -> bool:
    """Whether a box cannot be meant: nothing of it is in the image, or it is smaller than a pixel."""
    inside = np.minimum(box[2:], size) - np.maximum(box[:2], 0)
    return bool(inside.min() <= 0 or (box[2] - box[0]) * (box[3] - box[1]) < 1)


def _prediction(answer: Answer | None, generalised: bool) -> Prediction:
    """Boxes by descending score; of several masks the best one, or with several targets all that count as found."""
    if answer is None:
        return Prediction(torch.zeros(0, 4), torch.zeros(0))
    order = sorted(range(len(answer.boxes)), key=lambda index: -answer.scores[index])
    masks = answer.masks
    if len(masks) > 1 and len(masks) == len(answer.scores):
        best = [i for i in order if answer.scores[i] >= GREC_SCORE_THRESHOLD] if generalised else order[:1]
        masks = [masks[index] for index in best]
    return Prediction(
        torch.tensor([answer.boxes[index] for index in order], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([answer.scores[index] for index in order], dtype=torch.float32),
        mask=rle.union([mask for mask in masks if mask is not None]),
        no_target=answer.no_target,
    )
