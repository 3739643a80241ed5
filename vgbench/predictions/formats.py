"""Formats: what the entries of a foreign predictions file look like.

A format is one small object: its name, what it takes for granted, and ``parse``, which reads one entry.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, ClassVar

from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.predictions.coordinates import Size
from vgbench.predictions.fields import (
    BOX_FIELDS,
    SCORE_FIELDS,
    TEXT_FIELDS,
    field,
    has,
    named_field,
    names_of,
    number,
    shown,
    structure,
)
from vgbench.predictions.masks import box_around, segmentation
from vgbench.predictions.numbers import PATCH_CELLS, corners, named
from vgbench.predictions.styles.base import AnswerStyle
from vgbench.predictions.styles.denials import Silence, silence
from vgbench.predictions.words import answer_text, read_words

Entry = dict[str, Any]

_DECISIONS = {"true": True, "false": False, "1": True, "0": False, "": None}  # in cells of tables


@dataclass(frozen=True)
class Terms:
    """What the user states of the entries, and the image that an entry is about.

    Attributes:
        form: order of four numbers, one of :data:`vgbench.predictions.numbers.FORMS`.
        size: (width, height) of the image in pixels.
        text: field with the model's words, None: the first of :data:`TEXT_FIELDS`.
        box: field with the boxes, None: the first of :data:`BOX_FIELDS`.
        cells: the coordinates are cells of Kosmos-2's grid.
        style: the reader of the model's words; None: any four numbers are a box.
        seen: the size of the image as the model saw it, where the entry says it.
    """

    form: str
    size: tuple[int, int]
    text: str | None = None
    box: str | None = None
    cells: bool = False
    style: AnswerStyle | None = None
    seen: Size | None = None


@dataclass
class Answer:
    """What an entry says of its expression.

    Attributes:
        boxes: corners x1, y1, x2, y2 each, in the scale of the file.
        scores: one for each box.
        masks: of the entry or the expression, empty ones too.
        mask_scores: one for each mask.
        no_target: the model's decision, None if it makes none.
        points: x, y each, in pixels of the image.
        silence: of words without a box, what they say (see :func:`~vgbench.predictions.styles.denials.silence`).
        in_pixels: the boxes are pixels of the image, whatever the scale of the file: drawn around masks, or read by a
            style.
        doubts: kinds of doubt about how it was read.
        field: the field that was read.
        words: what stood there, for messages.
    """

    boxes: list[list[float]]
    scores: list[float]
    masks: list[rle.RLE] = dataclass_field(default_factory=list)
    mask_scores: list[float] = dataclass_field(default_factory=list)
    no_target: bool | None = None
    points: list[list[float]] = dataclass_field(default_factory=list)
    silence: Silence | None = None
    in_pixels: bool = False
    doubts: list[str] = dataclass_field(default_factory=list)
    field: str = ""
    words: str = ""


class Format(ABC):
    """What the entries of a file look like.

    Attributes:
        option: how it is typed, e.g. "format=text".
        boxes: what four numbers are unless the user says otherwise.
        scale: of the coordinates unless the user says otherwise; None: the user must say.
        entry_per_box: an expression may have many entries, or none where nothing was found.
        free_text: an answer without four numbers may be one that could not be read.
    """

    option: ClassVar[str]
    boxes: ClassVar[str] = "xyxy"
    scale: ClassVar[str | None] = "pixels"
    entry_per_box: ClassVar[bool] = False
    free_text: ClassVar[bool] = False

    @abstractmethod
    def parse(self, entry: Entry, place: str, terms: Terms) -> Answer:
        """Read an entry; ``place``: where it stands, for messages.

        Raises:
            UserError: if something is missing or no number.
        """


class CocoResults(Format):
    """COCO's results list: one entry per box."""

    option = "format=coco"
    boxes = "xywh"
    entry_per_box = True

    def parse(self, entry: Entry, place: str, terms: Terms) -> Answer:
        mask = segmentation(entry.get("segmentation"), place, terms.size)
        box = field(entry, place, (terms.box,), "box (box=)") if terms.box else entry.get("bbox")
        if box is None and mask is None:
            raise UserError(
                f"{place}: neither bbox nor segmentation, the entry has {names_of(entry)}; add one, or name the field: "
                "box=FIELD"
            )
        score = _score(entry, place)
        if box is None:
            return around(mask, score)
        numbers = _corners(_unwrapped(structure(box)), place, terms.form)
        return Answer([numbers], [score], [] if mask is None else [mask], [] if mask is None else [score])


class ExpressionLists(Format):
    """One entry per expression, with lists of boxes and scores; one box need not be in a list."""

    option = "format=grefcoco"

    def parse(self, entry: Entry, place: str, terms: Terms) -> Answer:
        mask = segmentation(entry.get("segmentation", entry.get("mask")), place, terms.size)
        decision = entry.get("no_target", entry.get("pred_nt"))
        decision = _DECISIONS.get(decision.strip().lower(), decision) if isinstance(decision, str) else decision
        if decision not in (None, False, True):  # 0 and 1 are equal to them
            raise UserError(f"{place}: no_target is {shown(decision)}, expected true or false")
        names = (terms.box,) if terms.box else BOX_FIELDS
        if mask is not None and not any(has(entry, name) for name in names):
            answer = around(mask, _score(entry, place))
        else:
            answer = self._boxes(entry, place, terms, names)
            answer.masks, answer.mask_scores = ([], []) if mask is None else ([mask], [1.0])
        answer.no_target = None if decision is None else bool(decision)
        return answer

    @staticmethod
    def _boxes(entry: Entry, place: str, terms: Terms, names: Sequence[str]) -> Answer:
        listed = _list(field(entry, place, names, "boxes (box=)"), place, "boxes")
        boxes: list[Any] = [listed] if _is_box(listed) else listed
        if boxes and all(isinstance(box, dict) for box in boxes):  # {"bbox": [...], "score": 0.9} each, or x1, y1, ...
            scores = [_score(box, place) for box in boxes]
            boxes = [next((box[name] for name in BOX_FIELDS if name in box), box) for box in boxes]
        else:
            stored: Any = next((entry[name] for name in SCORE_FIELDS if name in entry), [1.0] * len(boxes))
            if number(stored) is not None:  # one score is that of the one box, else of the whole entry
                stored = [stored] if len(boxes) == 1 else [1.0] * len(boxes)
            scores = [_score({"score": value}, place) for value in _list(stored, place, "scores")]
        if len(scores) != len(boxes):
            raise UserError(f"{place}: {len(boxes)} boxes, {len(scores)} scores; give one score per box")
        return Answer([_corners(structure(box), place, terms.form) for box in boxes], scores)


class FreeText(Format):
    """One entry per expression, with the model's words; every four numbers in them are a box."""

    option = "format=text"
    scale = None
    free_text = True

    def parse(self, entry: Entry, place: str, terms: Terms) -> Answer:
        names = (terms.text,) if terms.text else TEXT_FIELDS
        name, words = named_field(entry, place, names, "answer (text=)")
        text, doubts = _text_of(words)
        if terms.style is not None:
            answer = terms.style.read(text, terms.size, terms.seen)
            scores = [1.0] * len(answer.boxes)
            parsed = Answer(answer.boxes, scores, points=answer.points, in_pixels=True, silence=answer.silence)
            parsed.no_target, parsed.doubts = answer.no_target, answer.doubts
        else:
            parsed = _any_numbers(text, place, terms)
        parsed.field, parsed.words, parsed.doubts = name, text, doubts + parsed.doubts
        return parsed


def _text_of(words: Any) -> tuple[str, list[str]]:
    """A model's words as one text (the first of several answers, lists and objects as JSON), and doubts about that."""
    doubts = []
    while isinstance(words, list) and words and isinstance(words[0], str | list) and not _is_box(words[0]):
        if _is_box(words):
            words = [number(side) for side in words]  # ["10", "20", "30", "40"]
            break
        if len(words) > 1 and isinstance(words[0], str):
            doubts = ["entries hold several answers, of which the first was read"]
        words = words[0]  # one answer wrapped in lists, as evaluation tools log it
    try:
        nothing = words is None or words != words  # a missing cell of a table is not a number
        return words if isinstance(words, str) else "" if nothing else json.dumps(words), doubts
    except (RecursionError, TypeError, ValueError):
        return "", doubts


def _any_numbers(text: str, place: str, terms: Terms) -> Answer:
    """Every four numbers in a model's words are a box."""
    reading = read_words(text, terms.form)
    if reading.cells and not terms.cells:
        raise UserError(f"{place}: <patch_index_...> are cells of a grid of {PATCH_CELLS}; use scale={PATCH_CELLS}")
    boxes = [corners(box, reading.form or terms.form) for box in reading.boxes]
    quiet = None if boxes else silence(answer_text(text)[0])
    decision = False if boxes else True if quiet == "denial" else None
    return Answer(boxes, [1.0] * len(boxes), no_target=decision, doubts=reading.doubts, silence=quiet)


FORMATS = {form.option.partition("=")[2]: form for form in (CocoResults(), ExpressionLists(), FreeText())}


def around(mask: rle.RLE | None, score: float) -> Answer:
    """A mask and the box around it; an empty one has no box."""
    box = box_around(mask)
    masks = [] if mask is None else [mask]
    return Answer([] if box is None else [box], [] if box is None else [score], masks, [score], in_pixels=True)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(number(side) is not None for side in value)


def _corners(value: Any, place: str, form: str) -> list[float]:
    """Corners from four numbers in an order, or from numbers with names: ``{"x1": 1, "y1": ...}``."""
    if isinstance(value, dict):
        boxes = named(json.dumps(value), form).boxes
        if len(boxes) == 1:
            return boxes[0]
    sides = [number(side) for side in value] if isinstance(value, list) else []
    if len(sides) != 4 or None in sides:
        fifth = "; a score stands in scores" if len(sides) == 5 else ""
        raise UserError(
            f"{place}: a box is {shown(value)}, expected four numbers (boxes= says which){fifth}; name another field: "
            "box=FIELD"
        )
    return corners([side for side in sides if side is not None], form)


def _score(entry: Mapping[str, Any], place: str) -> float:
    """The score of an entry for one box; 1 where it has none."""
    value = next((entry[name] for name in SCORE_FIELDS if name in entry), 1.0)
    score = number(value[0] if isinstance(value, list) and len(value) == 1 else value)
    if score is None:
        raise UserError(f"{place}: a score is {shown(value)}, expected a number; leave scores out if there are none")
    return score


def _unwrapped(value: Any) -> Any:
    """One box that stands in a list of its own."""
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) else value


def _list(value: Any, place: str, what: str) -> list[Any]:
    listed = structure(value)
    if not isinstance(listed, list):
        remedy = "name another field: box=FIELD" if what == "boxes" else "give one number per box"
        raise UserError(f"{place}: {what}: {shown(value)}, expected a list; {remedy}")
    return listed
