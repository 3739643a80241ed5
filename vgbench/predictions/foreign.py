"""Predictions in other people's formats -> :class:`Predictions`.

What cannot be seen in a file is stated by its user and never guessed, least of all from the ground truth: the scale of
the coordinates, the meaning of four numbers, and what the entries' ids refer to.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.data.table import AnnotationTable
from vgbench.predictions.reader import check
from vgbench.predictions.table import GREC_SCORE_THRESHOLD, Predictions
from vgbench.types import Prediction

__all__ = ["Reading", "read_foreign"]

# Where tools put the id of an expression and the model's words, in the order in which they are looked for.
ID_FIELDS = ("key", "id", "expression_id", "sent_id", "question_id", "index", "doc_id", "image_id")
TEXT_FIELDS = ("prediction", "filtered_resps", "pred", "response", "output", "text", "resps", "answer")
SENTENCE_FIELDS = ("expression", "sentence", "caption", "sent")

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_GAP = r"[\s,;()\[\]<>{}]+"
_FOUR = re.compile(rf"(?<![\w.]){_GAP.join([f'({_NUMBER})'] * 4)}(?!\.?\d)")


@dataclass(frozen=True)
class Reading:
    """How a file is to be read, as its user states it.

    Attributes:
        format: "coco" (results list: one entry per box), "grefcoco" (one entry per expression with lists of boxes and
            scores), "text" (one line per expression with the model's words).
        scale: "pixels" of the original image, or the number that stands for the whole side of the image ("1", "100",
            "1000", ...); "coco" and "grefcoco" default to pixels, "text" must say.
        boxes: "xyxy" or "xywh"; "coco" defaults to xywh, the others to xyxy.
        match: what the id of an entry is: "key" of the annotation table, "sent_id" of the original annotations, "row"
            (running number from 0 in the order of the split), or "sentence" (image id and expression together).
        id: field that holds the id; None: the first of :data:`ID_FIELDS` that the file has.
        text: field that holds the model's words; None: the first of :data:`TEXT_FIELDS` that the file has.
        sentence: field that holds the expression (match "sentence"); None: the first of :data:`SENTENCE_FIELDS`.
    """

    format: Literal["coco", "grefcoco", "text"]
    scale: str | None = None
    boxes: Literal["xyxy", "xywh"] | None = None
    match: Literal["key", "sent_id", "row", "sentence"] = "key"
    id: str | None = None
    text: str | None = None
    sentence: str | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> Reading:
        """From ``key=value`` arguments.

        Raises:
            UserError: for an unknown or missing option or value.
        """
        allowed = {
            "format": ("coco", "grefcoco", "text"),
            "boxes": ("xyxy", "xywh"),
            "match": ("key", "sent_id", "row", "sentence"),
        }
        names = [field.name for field in fields(cls)]
        for name, value in options.items():
            if name not in names:
                raise UserError(f"{name}={value}: no such option; there are: {', '.join(names)}")
            if name in allowed and value not in allowed[name]:
                raise UserError(f"{name}={value}: not known; use one of {', '.join(allowed[name])}")
        if "format" not in options:
            raise UserError(f"{', '.join(options)}: these describe a foreign file; add format=coco, grefcoco or text")
        scale = options.get("scale", "pixels")
        if scale != "pixels" and not (re.fullmatch(r"\d+(\.\d+)?", scale) and float(scale) > 0):
            raise UserError(f"scale={scale}: say pixels, or the number that is the whole side of the image (1, 1000)")
        if options["format"] == "text" and "scale" not in options:
            raise UserError(
                "format=text: say what the numbers mean: scale=pixels, or scale=1, 100 or 1000 for shares of the image"
            )
        return cls(**dict(options))  # type: ignore[arg-type]

    @property
    def divisor(self) -> float | None:
        """The number that stands for a whole side of the image, None for pixels."""
        return None if self.scale in (None, "pixels") else float(str(self.scale))


@dataclass
class _Answer:
    boxes: list[list[float]]
    scores: list[float]
    masks: list[rle.RLE | None]
    no_target: bool | None = None


def read_foreign(path: str | Path, table: AnnotationTable, reading: Reading) -> tuple[Predictions, list[str]]:
    """Read a file in a foreign format.

    Args:
        path: ``.json`` ("coco", "grefcoco") or ``.jsonl`` / ``.json`` list ("text").
        table: the expressions that were predicted.
        reading: how to read it.

    Returns:
        Predictions in the order of ``table``, and notes for the record (how many answers could not be read, ...).

    Raises:
        UserError: if the file cannot be read, or its ids do not fit the table.
    """
    path = Path(path)
    places, entries = _entries(path)
    rows = _match(entries, places, table, reading)
    sizes = np.stack([table.column("width"), table.column("height")], axis=1).astype(np.float64)
    notes = [f"read as {reading.format}, coordinates {_scale_words(reading)}, matched by {reading.match}"]
    answers: dict[int, _Answer] = {}
    unreadable = upside_down = stray = 0
    for entry, place, row in zip(entries, places, rows, strict=True):
        answer = _PARSERS[reading.format](entry, place, reading)
        if row in answers and reading.format != "coco":
            raise UserError(f"{place}: the expression {table.row(row).key!r} was answered before; keep one entry")
        unreadable += reading.format == "text" and not answer.boxes
        answer.boxes = [_to_pixels(box, sizes[row], reading) for box in answer.boxes]
        good = [index for index, box in enumerate(answer.boxes) if box[2] >= box[0] and box[3] >= box[1]]
        upside_down += len(answer.boxes) - len(good)
        stray += sum(_stray(answer.boxes[index], sizes[row]) for index in good)
        old = answers.setdefault(row, _Answer([], [], []))
        old.boxes += [answer.boxes[index] for index in good]
        old.scores += [answer.scores[index] for index in good]
        old.masks += [answer.masks[index] for index in good] if reading.format == "coco" else answer.masks
        old.no_target = answer.no_target
    if unreadable:
        notes.append(f"{unreadable} answers without four numbers count as wrong")
    if upside_down:
        notes.append(f"{upside_down} boxes with x2 < x1 or y2 < y1 were left out")
    if stray:
        notes.append(f"{stray} boxes lie outside the image or cover less than a pixel: are scale= and boxes= right?")
    absent = len(table) - len(answers)
    if absent and reading.format != "coco":
        missing = next(row for row in range(len(table)) if row not in answers)
        raise UserError(
            f"{path}: {absent} of {len(table)} expressions have no entry, first {table.row(missing).key!r}; "
            "add an entry with an empty answer"
        )
    if absent:
        notes.append(f"{absent} expressions without an entry: nothing was found there")
    generalised = table.info.get("task") == "grec"
    found = [_prediction(answers.get(row), generalised) for row in range(len(table))]
    predictions = Predictions.from_list(table.column("key").tolist(), found)
    check(predictions, str(path), "expression")
    return predictions, notes


def _scale_words(reading: Reading) -> str:
    return "in pixels" if reading.divisor is None else f"as shares of {reading.scale}"


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


def _field(entry: Mapping[str, Any], place: str, names: Iterable[str], what: str) -> Any:
    names = tuple(names)
    for name in names:
        if name in entry:
            return entry[name]
    raise UserError(f"{place}: no field with the {what} (looked for {', '.join(names)}); name it on the command line")


def _match(
    entries: Sequence[dict[str, Any]], places: Sequence[str], table: AnnotationTable, reading: Reading
) -> list[int]:
    """Row of the table for every entry."""
    names = (reading.id,) if reading.id else tuple(dict.fromkeys((reading.match, *ID_FIELDS)))
    if reading.match == "sentence":
        return _match_sentences(entries, places, table, reading)
    if reading.match == "row":
        known: dict[str, int] = {str(row): row for row in range(len(table))}
    else:
        column = [value for value in table.arrow.column(reading.match).to_pylist() if value is not None]
        known = {str(value): row for row, value in enumerate(column)}
        if len(known) < len(table):
            raise UserError(f"match={reading.match}: this dataset has no unique {reading.match}; use match=key or row")
    rows = []
    for entry, place in zip(entries, places, strict=True):
        value = _field(entry, place, names, "id of the expression (id=)")
        row = known.get(str(value))
        if row is None:
            raise UserError(
                f"{place}: {value!r} is no {reading.match} of {table.info.get('dataset')} {table.info.get('split')}, "
                f"which look like {next(iter(known), '')!r}; state match= or id="
            )
        rows.append(row)
    return rows


def _match_sentences(
    entries: Sequence[dict[str, Any]], places: Sequence[str], table: AnnotationTable, reading: Reading
) -> list[int]:
    """By image and expression; the same words for two objects of an image are handed out in file order."""
    waiting: dict[tuple[int, str], list[int]] = defaultdict(list)
    for row, (image, words) in enumerate(zip(table.column("image_id"), table.column("expression"), strict=True)):
        waiting[int(image), _plain(words)].append(row)
    rows = []
    used: Counter[tuple[int, str]] = Counter()
    for entry, place in zip(entries, places, strict=True):
        image = _field(entry, place, (reading.id,) if reading.id else ("image_id", "file_name", "image"), "image (id=)")
        digits = re.search(r"\d{12}", str(image)) or re.search(r"\d+", str(image))
        words = _field(
            entry, place, (reading.sentence,) if reading.sentence else SENTENCE_FIELDS, "expression (sentence=)"
        )
        key = (int(digits[0]) if digits else -1, _plain(words))
        if used[key] >= len(waiting.get(key, ())):
            raise UserError(f"{place}: image {image!r} has no (further) expression {key[1]!r} in this split")
        rows.append(waiting[key][used[key]])
        used[key] += 1
    return rows


def _plain(words: Any) -> str:
    return " ".join(str(words).lower().split())


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


def _parse_coco(entry: dict[str, Any], place: str, reading: Reading) -> _Answer:
    masks = [_segmentation(entry.get("segmentation"), place)]
    box = entry.get("bbox")
    if box is None and masks[0] is None:
        raise UserError(f"{place}: neither bbox nor segmentation; add one")
    if box is None:
        x, y, width, height = (float(v) for v in rle.coco.toBbox(masks[0]))
        box = [x, y, width, height] if (reading.boxes or "xywh") == "xywh" else [x, y, x + width, y + height]
    return _Answer([_numbers(box, place)], [_score(entry.get("score", 1.0), place)], masks)


def _parse_grefcoco(entry: dict[str, Any], place: str, reading: Reading) -> _Answer:
    found = _list(_field(entry, place, ("boxes", "bboxes", "bbox"), "boxes"), place, "boxes")
    boxes = [_numbers(box, place) for box in found]
    scores = [_score(score, place) for score in _list(entry.get("scores", [1.0] * len(boxes)), place, "scores")]
    if len(scores) != len(boxes):
        raise UserError(f"{place}: {len(boxes)} boxes, {len(scores)} scores; give one score per box")
    mask = _segmentation(entry.get("segmentation", entry.get("mask")), place)
    decision = entry.get("no_target", entry.get("pred_nt"))
    if decision not in (None, False, True):  # 0 and 1 are equal to them
        raise UserError(f"{place}: no_target is {json.dumps(decision)[:60]}, expected true or false")
    return _Answer(boxes, scores, [mask], None if decision is None else bool(decision))


def _parse_text(entry: dict[str, Any], place: str, reading: Reading) -> _Answer:
    words = _field(entry, place, (reading.text,) if reading.text else TEXT_FIELDS, "answer (text=)")
    while isinstance(words, list) and words and isinstance(words[0], str | list) and not _is_box(words[0]):
        words = words[0]  # one answer wrapped in lists, as evaluation tools log it
    boxes = [
        [float(v) for v in found] for found in _FOUR.findall(words if isinstance(words, str) else json.dumps(words))
    ]
    return _Answer(boxes, [1.0] * len(boxes), [])


_PARSERS: dict[str, Callable[[dict[str, Any], str, Reading], _Answer]] = {
    "coco": _parse_coco,
    "grefcoco": _parse_grefcoco,
    "text": _parse_text,
}


def _to_pixels(box: list[float], size: np.ndarray, reading: Reading) -> list[float]:
    if reading.divisor is not None:
        box = [float(value * side / reading.divisor) for value, side in zip(box, [*size, *size], strict=True)]
    if (reading.boxes or ("xywh" if reading.format == "coco" else "xyxy")) == "xywh":
        box = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    return box


def _stray(box: Sequence[float], size: np.ndarray) -> bool:
    """Whether a box cannot be meant: nothing of it is in the image, or it is smaller than a pixel."""
    inside = np.minimum(box[2:], size) - np.maximum(box[:2], 0)
    return bool(inside.min() <= 0 or (box[2] - box[0]) * (box[3] - box[1]) < 1)


def _prediction(answer: _Answer | None, generalised: bool) -> Prediction:
    """Boxes by descending score; of several masks the best one, or with several targets all that count as found."""
    if answer is None:
        return Prediction(torch.zeros(0, 4), torch.zeros(0))
    order = sorted(range(len(answer.boxes)), key=lambda index: -answer.scores[index])
    masks = answer.masks
    if len(masks) > 1 and len(masks) == len(answer.scores):
        kept = [i for i in order if answer.scores[i] >= GREC_SCORE_THRESHOLD] if generalised else order[:1]
        masks = [masks[index] for index in kept]
    return Prediction(
        torch.tensor([answer.boxes[index] for index in order], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([answer.scores[index] for index in order], dtype=torch.float32),
        mask=rle.union([mask for mask in masks if mask is not None]),
        no_target=answer.no_target,
    )
