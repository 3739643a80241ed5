"""Styles of answers: what the entries of a foreign predictions file look like.

A style is one small object: its name, what it takes for granted, and ``parse``, which reads one entry.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from vgbench.core.errors import UserError
from vgbench.data import rle

Entry = dict[str, Any]

# Where tools put the model's words, in the order in which they are looked for.
TEXT_FIELDS = ("prediction", "filtered_resps", "pred", "response", "output", "text", "resps", "answer")

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_GAP = r"[\s,;()\[\]<>{}]+"
_FOUR = re.compile(rf"(?<![\w.]){_GAP.join([f'({_NUMBER})'] * 4)}(?!\.?\d)")


@dataclass
class Answer:
    """What an entry says of its expression.

    Attributes:
        boxes: four numbers each, as the entry has them.
        scores: one for each box.
        masks: one for each box, or one for the expression.
        no_target: the model's decision, None if it makes none.
    """

    boxes: list[list[float]]
    scores: list[float]
    masks: list[rle.RLE | None]
    no_target: bool | None = None


class Style(ABC):
    """A style of answers.

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
    def parse(self, entry: Entry, place: str, boxes: str, text_field: str | None) -> Answer:
        """Read an entry.

        Args:
            entry: the object of the file.
            place: where it stands, for messages.
            boxes: what four numbers are, "xyxy" or "xywh".
            text_field: field with the model's words, None: the first of :data:`TEXT_FIELDS`.

        Raises:
            UserError: if something is missing or no number.
        """


class CocoResults(Style):
    """COCO's results list: one entry per box."""

    option = "format=coco"
    boxes = "xywh"
    entry_per_box = True

    def parse(self, entry: Entry, place: str, boxes: str, text_field: str | None) -> Answer:
        mask = _segmentation(entry.get("segmentation"), place)
        box = entry.get("bbox")
        if box is None and mask is None:
            raise UserError(f"{place}: neither bbox nor segmentation; add one")
        if box is None:
            x, y, width, height = (float(v) for v in rle.coco.toBbox(mask))
            box = [x, y, width, height] if boxes == "xywh" else [x, y, x + width, y + height]
        return Answer([_numbers(box, place)], [_score(entry.get("score", 1.0), place)], [mask])


class ExpressionLists(Style):
    """One entry per expression, with lists of boxes and scores."""

    option = "format=grefcoco"

    def parse(self, entry: Entry, place: str, boxes: str, text_field: str | None) -> Answer:
        listed = _list(field(entry, place, ("boxes", "bboxes", "bbox"), "boxes"), place, "boxes")
        numbers = [_numbers(box, place) for box in listed]
        scores = [_score(score, place) for score in _list(entry.get("scores", [1.0] * len(numbers)), place, "scores")]
        if len(scores) != len(numbers):
            raise UserError(f"{place}: {len(numbers)} boxes, {len(scores)} scores; give one score per box")
        mask = _segmentation(entry.get("segmentation", entry.get("mask")), place)
        decision = entry.get("no_target", entry.get("pred_nt"))
        if decision not in (None, False, True):  # 0 and 1 are equal to them
            raise UserError(f"{place}: no_target is {json.dumps(decision)[:60]}, expected true or false")
        return Answer(numbers, scores, [mask], None if decision is None else bool(decision))


class FreeText(Style):
    """One entry per expression, with the model's words; every four numbers in them are a box."""

    option = "format=text"
    scale = None
    free_text = True

    def parse(self, entry: Entry, place: str, boxes: str, text_field: str | None) -> Answer:
        words = field(entry, place, (text_field,) if text_field else TEXT_FIELDS, "answer (text=)")
        while isinstance(words, list) and words and isinstance(words[0], str | list) and not _is_box(words[0]):
            words = words[0]  # one answer wrapped in lists, as evaluation tools log it
        text = words if isinstance(words, str) else json.dumps(words)
        numbers = [[float(value) for value in four] for four in _FOUR.findall(text)]
        return Answer(numbers, [1.0] * len(numbers), [])


STYLES = {style.option.partition("=")[2]: style for style in (CocoResults(), ExpressionLists(), FreeText())}


def field(entry: Mapping[str, Any], place: str, names: Iterable[str], what: str) -> Any:
    """The value of the first of some fields that an entry has.

    Raises:
        UserError: if it has none of them.
    """
    names = tuple(names)
    for name in names:
        if name in entry:
            return entry[name]
    raise UserError(f"{place}: no field with the {what} (looked for {', '.join(names)}); name it on the command line")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _numbers(value: Any, place: str) -> list[float]:
    if not _is_box(value):
        raise UserError(f"{place}: a box is {json.dumps(value)[:60]}, expected four numbers")
    return [float(v) for v in value]


def _score(value: Any, place: str) -> float:
    if not _is_number(value):
        raise UserError(f"{place}: a score is {json.dumps(value)[:60]}, expected a number")
    return float(value)


def _list(value: Any, place: str, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{place}: {what}: {json.dumps(value)[:60]}, expected a list")
    return value


def _segmentation(value: Any, place: str) -> rle.RLE | None:
    if value is None or value == []:
        return None
    if isinstance(value, dict) and isinstance(value.get("counts"), str):
        size = value.get("size")
        if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size):
            height, width = size
            if rle.valid([value["counts"]], np.array([height * width]))[0]:
                return {"size": [height, width], "counts": value["counts"]}
    raise UserError(f"{place}: segmentation is no compressed COCO RLE; encode it with pycocotools.mask.encode")
