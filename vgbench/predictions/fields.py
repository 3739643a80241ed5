"""Values in the entries of a foreign predictions file, whatever type of file they come from.

A cell of a table is text: numbers, lists and objects in it are read as such.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from vgbench.core.errors import UserError

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
    "raw_output",
    "raw_response",
    "text",
    "content",
    "resps",
    "answer",
)
SCORE_FIELDS = ("scores", "score", "confidences", "confidence")
BOX_FIELDS = ("boxes", "bboxes", "bbox", "box", "pred_boxes", "pred_bboxes", "pred_bbox", "predicted_boxes")
# Where tools put the id of an expression, in the order in which they are looked for.
ID_FIELDS = ("key", "id", "expression_id", "sent_id", "question_id", "index", "doc_id", "image_id")
SENTENCE_FIELDS = ("expression", "sentence", "caption", "sent", "normal_caption", "phrase")
IMAGE_FIELDS = ("image_id", "file_name", "image", "image_path", "img_name", "image_file")
_LONGEST_CELL = 10_000_000  # characters of a cell that is read as a list or an object


def field(entry: Mapping[str, Any], place: str, names: Iterable[str], what: str) -> Any:
    """The value of the first of some fields that an entry has.

    Raises:
        UserError: if it has none of them.
    """
    return named_field(entry, place, names, what)[1]


def named_field(entry: Mapping[str, Any], place: str, names: Iterable[str], what: str) -> tuple[str, Any]:
    """Name and value of the first of some fields that an entry has; one with a value before one that is empty.

    Raises:
        UserError: if it has none of them.
    """
    names = tuple(names)
    there = [name for name in names if has(entry, name)]
    if there:
        name = next((name for name in there if inner(entry, name) is not None), there[0])
        return name, inner(entry, name)
    option = re.search(r"\((\w+)=\)", what)
    raise UserError(
        f"{place}: no field with the {what}: looked for {', '.join(names)}; the entry has {names_of(entry)}"
        + (f"; name the right one: {option[1]}=FIELD" if option else "")
    )


def has(entry: Mapping[str, Any], name: str) -> bool:
    """Whether an entry has a field; ``doc.image_id`` is a field of a field, ``resps.0`` an element."""
    return name in entry or inner(entry, name) is not None


def inner(entry: Mapping[str, Any], name: str) -> Any:
    """The value of a field, of a field of a field or of an element of a list; None: there is none."""
    if name in entry:
        return entry[name]
    value: Any = entry
    for part in name.split("."):
        value = structure(value)  # a cell of a table
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def names_of(entry: Mapping[str, Any]) -> str:
    """The fields of an entry for a message."""
    names = [str(name)[:40] for name in entry]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "no field"


def number(value: Any) -> float | None:
    """A finite number, also as text ("0.9"); None: it is none."""
    if isinstance(value, str) and len(value) < 64:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def structure(value: Any) -> Any:
    """A list or an object that is written as text, in JSON or as Python prints it; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{", "(") and len(value) <= _LONGEST_CELL:
        for parse in (json.loads, ast.literal_eval):
            try:
                return _as_lists(parse(value))
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return value


def _as_lists(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, list | tuple):
        return [_as_lists(item) for item in value]
    return value


def shown(value: Any) -> str:
    """A value as it stands in a message, cut to a few words."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
