"""Which expression an entry of a foreign predictions file answers."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from vgbench.core.errors import UserError
from vgbench.data.table import AnnotationTable
from vgbench.predictions.entries import plain_name
from vgbench.predictions.fields import ID_FIELDS, IMAGE_FIELDS, SENTENCE_FIELDS, field, has
from vgbench.predictions.reading import Reading

_WHOLE = re.compile(r"^\s*(\d{1,18})\.0\s*$")
_NUMBERED = re.compile(r"(.*\D)[_-](\d{1,9})")  # RefCOCO_testA_119


def split_names(table: AnnotationTable) -> frozenset[str]:
    """What a file may call the split of a table, without signs: "val", "refcocoval"."""
    return frozenset({plain_name(str(table.info.get("split"))), plain_name(_split(table))})


def of_split(
    entries: Sequence[dict[str, Any]], places: Sequence[str], table: AnnotationTable
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Entries and places of a table's split, and notes: where a file has several splits, a field says which."""
    names = split_names(table)
    splits = [plain_name(entry["split"]) if isinstance(entry.get("split"), str) else "" for entry in entries]
    if not all(splits) or len(set(splits)) < 2 or names.isdisjoint(splits):
        return list(entries), list(places), []
    own = [index for index, split in enumerate(splits) if split in names]
    note = f"{len(entries) - len(own)} entries of other splits were left out (field 'split')"
    return [entries[index] for index in own], [places[index] for index in own], [note]


def match_rows(
    entries: Sequence[dict[str, Any]], places: Sequence[str], table: AnnotationTable, reading: Reading
) -> tuple[list[int | None], list[str]]:
    """Row of the table for every entry (None: it is of another split), and notes for the record.

    Args:
        entries: of the file.
        places: where each stands, for messages.
        table: the expressions that were predicted.
        reading: how to match.

    Raises:
        UserError: if an id is missing or is none of the table.
    """
    names = (reading.id,) if reading.id else tuple(dict.fromkeys((reading.match, *ID_FIELDS)))
    if reading.match == "sentence":
        return _match_sentences(entries, places, table, reading)
    if reading.match == "order" or (reading.match == "row" and not reading.id and not _any_has(entries, names)):
        return _match_order(entries, places, table)
    values = [
        field(entry, place, names, "id of the expression (id=)") for entry, place in zip(entries, places, strict=True)
    ]
    if reading.match == "row":
        numbered = _numbered(values, places, table)
        if numbered is not None:
            return numbered
        row_of: dict[str, int] = {str(row): row for row in range(len(table))}
    else:
        column = [value for value in table.arrow.column(reading.match).to_pylist() if value is not None]
        row_of = {str(value): row for row, value in enumerate(column)}
        if len(row_of) < len(table):
            raise UserError(f"match={reading.match}: this dataset has no unique {reading.match}; use match=key or row")
    rows: list[int | None] = []
    for entry, value, place in zip(entries, values, places, strict=True):
        row = _row(row_of, value)
        if row is None:
            name = next(name for name in names if has(entry, name))
            raise UserError(
                f"{place}: {value!r} is no {reading.match} of {_split(table)}, "
                f"which look like {next(iter(row_of), '')!r} (read from {name!r}); state match= or id="
            )
        rows.append(row)
    return rows, []


def _row(row_of: Mapping[str, int], value: Any) -> int | None:
    """The row of an id, or of 50 for 50.0, as tables with empty cells write it."""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return row_of[text] if text in row_of else row_of.get(_WHOLE.sub(r"\1", text))


def _any_has(entries: Sequence[dict[str, Any]], names: Sequence[str]) -> bool:
    return any(has(entry, name) for entry in entries for name in names)


def _split(table: AnnotationTable) -> str:
    return f"{table.info.get('dataset')} {table.info.get('split')}"


def _match_order(
    entries: Sequence[dict[str, Any]], places: Sequence[str], table: AnnotationTable
) -> tuple[list[int | None], list[str]]:
    """Entries without ids, in the order of the annotation file."""
    if len(entries) != len(table):
        where = places[0].rpartition(": ")[0] if places else "the file"
        raise UserError(
            f"{where}: {len(entries)} entries without ids, but {_split(table)} has {len(table)} expressions; "
            "entries in the order of the annotations must be all of them, otherwise name their id: id=FIELD"
        )
    return list(range(len(table))), ["the entries were taken in the order of the annotation file"]


def _numbered(
    values: Sequence[Any], places: Sequence[str], table: AnnotationTable
) -> tuple[list[int | None], list[str]] | None:
    """Ids like ``RefCOCO_testA_119``: the row of the split that stands before it; None if they are none.

    Raises:
        UserError: if none is of this split, or the split has no such row.
    """
    parts = [_NUMBERED.fullmatch(str(value)) for value in values]
    if not values or not all(parts):
        return None
    own = plain_name(_split(table))
    rows: list[int | None] = []
    for part, place in zip(parts, places, strict=True):
        assert part is not None
        row = int(part[2]) if plain_name(part[1]) == own else None
        if row is not None and row >= len(table):
            raise UserError(
                f"{place}: {part[0]!r}, but {_split(table)} has {len(table)} expressions, from 0 on: "
                "is the file of this split?"
            )
        rows.append(row)
    others = Counter(part[1] for part, row in zip(parts, rows, strict=True) if part is not None and row is None)
    if len(set(rows)) == 1 and rows[0] is None:
        raise UserError(
            f"{places[0].rpartition(': ')[0]}: no entry is of {_split(table)}, they are of {', '.join(others)}; "
            "name the split that was predicted"
        )
    return rows, [f"{sum(others.values())} entries of other splits were left out"] if others else []


def _match_sentences(
    entries: Sequence[dict[str, Any]], places: Sequence[str], table: AnnotationTable, reading: Reading
) -> tuple[list[int | None], list[str]]:
    """By image and expression; the same words for two objects of an image are handed out in file order.

    Punctuation is looked away from where the words do not fit with it: datasets come as typed or normalised.
    """
    image_names = (reading.id,) if reading.id else IMAGE_FIELDS
    names = (reading.sentence,) if reading.sentence else SENTENCE_FIELDS
    asked = []
    for entry, place in zip(entries, places, strict=True):
        image = field(entry, place, image_names, "image (id=)")
        asked.append((_image_number(image), field(entry, place, names, "expression (sentence=)"), image))
    annotated = [(int(i), w) for i, w in zip(table.column("image_id"), table.column("expression"), strict=True)]
    rows: list[int | None] = [None] * len(entries)
    bare = 0
    for simplify in (_plain, _letters):
        free: dict[Hashable, Iterator[int]] = defaultdict(lambda: iter(()))
        taken = set(rows)
        waiting: dict[Hashable, list[int]] = defaultdict(list)
        for place_in_split, (number, words) in enumerate(annotated):
            if place_in_split not in taken:
                waiting[number, simplify(words)].append(place_in_split)
        free.update({key: iter(group) for key, group in waiting.items()})
        for index, (number, words, _) in enumerate(asked):
            if rows[index] is None:
                rows[index] = next(free[number, simplify(words)], None)
                bare += simplify is _letters and rows[index] is not None
    for row, place, (number, words, image) in zip(rows, places, asked, strict=True):
        if row is None:
            there = [text for image_id, text in annotated if image_id == number]
            example = f"; it has {there[0]!r}: is that the field, sentence=?" if there else "; is it of another split?"
            raise UserError(
                f"{place}: image {image!r} has no (further) expression {_plain(words)!r} in this split{example}"
            )
    return rows, [f"{bare} expressions were found by their letters only, without punctuation"] if bare else []


def _image_number(image: Any) -> int:
    text = PurePosixPath(str(image).replace("\\", "/")).stem
    digits = re.findall(r"\d{12}", text)[:1] or re.findall(r"\d{1,18}", text)[-1:]
    return int(digits[0]) if digits else -1


def _plain(words: Any) -> str:
    return " ".join(str(words).lower().split())


def _letters(words: Any) -> str:
    return re.sub(r"[\W_]+", "", str(words).lower())
