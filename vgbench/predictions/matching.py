"""Which expression an entry of a foreign predictions file answers."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from vgbench.core.errors import UserError
from vgbench.data.table import AnnotationTable
from vgbench.predictions.reading import Reading
from vgbench.predictions.styles import field

# Where tools put the id of an expression, in the order in which they are looked for.
ID_FIELDS = ("key", "id", "expression_id", "sent_id", "question_id", "index", "doc_id", "image_id")
SENTENCE_FIELDS = ("expression", "sentence", "caption", "sent")


def match_rows(
    entries: Sequence[dict[str, Any]], places: Sequence[str], table: AnnotationTable, reading: Reading
) -> list[int]:
    """Row of the table for every entry; ``places``: where each stands, for messages.

    Raises:
        UserError: if an id is missing or is none of the table.
    """
    names = (reading.id,) if reading.id else tuple(dict.fromkeys((reading.match, *ID_FIELDS)))
    if reading.match == "sentence":
        return _match_sentences(entries, places, table, reading)
    if reading.match == "row":
        row_of: dict[str, int] = {str(row): row for row in range(len(table))}
    else:
        column = [value for value in table.arrow.column(reading.match).to_pylist() if value is not None]
        row_of = {str(value): row for row, value in enumerate(column)}
        if len(row_of) < len(table):
            raise UserError(f"match={reading.match}: this dataset has no unique {reading.match}; use match=key or row")
    rows = []
    for entry, place in zip(entries, places, strict=True):
        value = field(entry, place, names, "id of the expression (id=)")
        row = row_of.get(str(value))
        if row is None:
            raise UserError(
                f"{place}: {value!r} is no {reading.match} of {table.info.get('dataset')} {table.info.get('split')}, "
                f"which look like {next(iter(row_of), '')!r}; state match= or id="
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
        image = field(entry, place, (reading.id,) if reading.id else ("image_id", "file_name", "image"), "image (id=)")
        digits = re.search(r"\d{12}", str(image)) or re.search(r"\d+", str(image))
        words = field(
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
