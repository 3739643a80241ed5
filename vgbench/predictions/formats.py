"""Formats: what the entries of a foreign predictions file look like.

A format is one small object: its name, what it takes for granted, and ``parse``, which reads one entry.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, ClassVar

import numpy as np

from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.predictions.numbers import PATCH_CELLS, corners
from vgbench.predictions.words import read_words

Entry = dict[str, Any]

# Where tools put the model's words, in the order in which they are looked for.
TEXT_FIELDS = (
    "prediction",
    "filtered_resps",
    "pred",
    "response",
    "output",
    "model_output",
    "model_response",
    "model_answer",
    "generated_text",
    "completion",
    "text",
    "resps",
    "answer",
)
BOX_FIELDS = ("boxes", "bboxes", "bbox", "box", "pred_boxes", "pred_bboxes", "pred_bbox", "predicted_boxes")


@dataclass(frozen=True)
class Terms:
    """What the user states of the entries, and the image that an entry is about.

    Attributes:
        form: order of four numbers, one of :data:`vgbench.predictions.words.FORMS`.
        size: (width, height) of the image in pixels.
        text: field with the model's words, None: the first of :data:`TEXT_FIELDS`.
        box: field with the boxes, None: the first of :data:`BOX_FIELDS`.
        cells: the coordinates are cells of Kosmos-2's grid.
    """

    form: str
    size: tuple[int, int]
    text: str | None = None
    box: str | None = None
    cells: bool = False


@dataclass
class Answer:
    """What an entry says of its expression.

    Attributes:
        boxes: corners x1, y1, x2, y2 each, in the scale of the file.
        scores: one for each box.
        masks: of the entry or the expression, empty ones too.
        mask_scores: one for each mask.
        no_target: the model's decision, None if it makes none.
        in_pixels: the boxes are drawn around masks: pixels, whatever the scale of the file.
        doubts: kinds of doubt about how it was read.
        field: the field that was read.
        words: what stood there, for messages.
    """

    boxes: list[list[float]]
    scores: list[float]
    masks: list[rle.RLE] = dataclass_field(default_factory=list)
    mask_scores: list[float] = dataclass_field(default_factory=list)
    no_target: bool | None = None
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
        mask = _segmentation(entry.get("segmentation"), place, terms.size)
        box = field(entry, place, (terms.box,), "box (box=)") if terms.box else entry.get("bbox")
        if box is None and mask is None:
            raise UserError(f"{place}: neither bbox nor segmentation; add one, or name the field: box=FIELD")
        score = _score(entry.get("score", 1.0), place)
        if box is None:
            return _around(mask, score)
        numbers = corners(_numbers(_unwrapped(box), place), terms.form)
        return Answer([numbers], [score], [] if mask is None else [mask], [] if mask is None else [score])


class ExpressionLists(Format):
    """One entry per expression, with lists of boxes and scores; one box need not be in a list."""

    option = "format=grefcoco"

    def parse(self, entry: Entry, place: str, terms: Terms) -> Answer:
        mask = _segmentation(entry.get("segmentation", entry.get("mask")), place, terms.size)
        decision = entry.get("no_target", entry.get("pred_nt"))
        if decision not in (None, False, True):  # 0 and 1 are equal to them
            raise UserError(f"{place}: no_target is {json.dumps(decision)[:60]}, expected true or false")
        names = (terms.box,) if terms.box else BOX_FIELDS
        if mask is not None and not any(has(entry, name) for name in names):
            answer = _around(mask, _score(entry.get("score", 1.0), place))
        else:
            answer = self._boxes(entry, place, terms, names)
            answer.masks, answer.mask_scores = ([], []) if mask is None else ([mask], [1.0])
        answer.no_target = None if decision is None else bool(decision)
        return answer

    @staticmethod
    def _boxes(entry: Entry, place: str, terms: Terms, names: Sequence[str]) -> Answer:
        listed = _list(field(entry, place, names, "boxes (box=)"), place, "boxes")
        numbers = [_numbers(box, place) for box in ([listed] if _is_box(listed) else listed)]
        if "scores" in entry:
            scores = [_score(score, place) for score in _list(entry["scores"], place, "scores")]
        else:
            scores = [_score(entry.get("score", 1.0), place) if len(numbers) == 1 else 1.0] * len(numbers)
        if len(scores) != len(numbers):
            raise UserError(f"{place}: {len(numbers)} boxes, {len(scores)} scores; give one score per box")
        return Answer([corners(box, terms.form) for box in numbers], scores)


class FreeText(Format):
    """One entry per expression, with the model's words; every four numbers in them are a box."""

    option = "format=text"
    scale = None
    free_text = True

    def parse(self, entry: Entry, place: str, terms: Terms) -> Answer:
        names = (terms.text,) if terms.text else TEXT_FIELDS
        words = field(entry, place, names, "answer (text=)")
        name = next(name for name in names if has(entry, name))
        while isinstance(words, list) and words and isinstance(words[0], str | list) and not _is_box(words[0]):
            words = words[0]  # one answer wrapped in lists, as evaluation tools log it
        try:
            text = words if isinstance(words, str) else json.dumps(words)
        except RecursionError:
            text = ""
        reading = read_words(text, terms.form)
        if reading.cells and not terms.cells:
            raise UserError(f"{place}: <patch_index_...> are cells of a grid of {PATCH_CELLS}; use scale={PATCH_CELLS}")
        boxes = [corners(box, reading.form or terms.form) for box in reading.boxes]
        return Answer(boxes, [1.0] * len(boxes), doubts=reading.doubts, field=name, words=text)


FORMATS = {form.option.partition("=")[2]: form for form in (CocoResults(), ExpressionLists(), FreeText())}


def field(entry: Mapping[str, Any], place: str, names: Iterable[str], what: str) -> Any:
    """The value of the first of some fields that an entry has.

    Raises:
        UserError: if it has none of them.
    """
    names = tuple(names)
    for name in names:
        if has(entry, name):
            return inner(entry, name)
    option = re.search(r"\((\w+)=\)", what)
    raise UserError(
        f"{place}: no field with the {what}: looked for {', '.join(names)}; the entry has {_names(entry)}"
        + (f"; name the right one: {option[1]}=FIELD" if option else "")
    )


def has(entry: Mapping[str, Any], name: str) -> bool:
    """Whether an entry has a field; ``doc.image_id`` is a field of a field, ``resps.0`` an element."""
    return name in entry or inner(entry, name) is not None


def inner(entry: Mapping[str, Any], name: str) -> Any:
    if name in entry:
        return entry[name]
    value: Any = entry
    for part in name.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _names(entry: Mapping[str, Any]) -> str:
    names = [str(name)[:40] for name in entry]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "no field"


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


def _unwrapped(value: Any) -> Any:
    """One box that stands in a list of its own."""
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) else value


def _list(value: Any, place: str, what: str) -> list[Any]:
    if isinstance(value, str) and value.lstrip().startswith("["):  # a cell of a spreadsheet
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    if not isinstance(value, list):
        raise UserError(f"{place}: {what}: {json.dumps(value)[:60]}, expected a list")
    return value


def _around(mask: rle.RLE | None, score: float) -> Answer:
    """A mask and the box around it; an empty one has no box."""
    x, y, width, height = (float(v) for v in rle.coco.toBbox(mask))
    boxes = [[x, y, x + width, y + height]] if width > 0 and height > 0 else []
    return Answer(boxes, [score] * len(boxes), [mask] if mask is not None else [], [score], in_pixels=True)


def _segmentation(value: Any, place: str, size: tuple[int, int]) -> rle.RLE | None:
    """A mask as compressed or uncompressed RLE, or as polygons in pixels of the image (width, height)."""
    if value is None or value == []:
        return None
    width, height = size
    if isinstance(value, list):
        polygons = value if isinstance(value[0], list) else [value]
        if all(len(one) >= 6 and len(one) % 2 == 0 and all(map(_is_number, one)) for one in polygons):
            return _as_text(rle.coco.merge(rle.coco.frPyObjects(polygons, height, width)))
        raise UserError(f"{place}: segmentation is no polygon; give lists of x1, y1, x2, y2, x3, y3, ...")
    sides, counts = (value.get("size"), value.get("counts")) if isinstance(value, dict) else (None, None)
    if isinstance(sides, list) and len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides):
        height, width = sides
        if isinstance(counts, list):
            whole = all(isinstance(run, int) and run >= 0 for run in counts) and sum(counts) == height * width
            if whole:
                return _as_text(rle.coco.frPyObjects({"size": sides, "counts": counts}, height, width))
            raise UserError(f"{place}: segmentation: the runs do not add up to {height} x {width} pixels; correct them")
        if isinstance(counts, str):
            counts = _without_bytes_marks(counts)
            if rle.valid([counts], np.array([height * width]))[0]:
                return {"size": [height, width], "counts": counts}
    raise UserError(f"{place}: segmentation is no compressed COCO RLE; encode it with pycocotools.mask.encode")


def _as_text(mask: rle.RLE) -> rle.RLE:
    return {"size": [int(side) for side in mask["size"]], "counts": mask["counts"].decode("ascii")}


def _without_bytes_marks(counts: str) -> str:
    """``b'...'``, as ``str(bytes)`` writes it, as the text it stands for."""
    if re.fullmatch(r"b'.*'|b\".*\"", counts, re.S):
        try:
            return bytes(ast.literal_eval(counts)).decode("ascii")
        except (ValueError, SyntaxError, UnicodeDecodeError):
            return counts
    return counts
