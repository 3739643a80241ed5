"""The entries of a foreign predictions file, whatever its type: JSON, JSON lines, tables (TSV, CSV, XLSX, Parquet)."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file
from vgbench.predictions.fields import BOX_FIELDS, ID_FIELDS, TEXT_FIELDS, names_of, shown

Entry = dict[str, Any]

# Where tools put the list of answers in an object, in the order in which they are looked for.
LIST_KEYS = ("results", "predictions", "answers", "outputs", "logs", "samples", "annotations", "data", "items")
_FIELDS = frozenset((*TEXT_FIELDS, *BOX_FIELDS, *ID_FIELDS))  # of entries: none of them is an id of an entry
LINES = (".jsonl", ".ndjson")
_SEE = "see vgbench/metrics/README.md, foreign predictions"
MAX_RATIO, MAX_PART = 100, 1 << 20  # unpacked to packed size of a part of a spreadsheet, beyond so many bytes
_XLSX_ERRORS = (  # what zipfile, zlib and numbers out of range raise
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
    *(KeyError, IndexError, ValueError, OverflowError, TypeError, MemoryError),
)
_XLSX = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def read_entries(path: Path, split: frozenset[str] = frozenset()) -> tuple[list[str], list[Entry], list[str]]:
    """Where each entry stands (for messages), the entries, and notes on where they were found.

    Args:
        path: of the file.
        split: what the split may be called where a file has several below keys (:func:`plain_name`).

    Raises:
        UserError: if the file cannot be read or holds no entries.
    """
    notes: list[str] = []
    try:
        if path.suffix in LINES:
            # not splitlines(): a model's words may hold characters that it takes for the end of a line
            lines = enumerate(_text_of(path).split("\n"), 1)
            parts = {f"{path}: line {number}": line for number, line in lines if line.strip()}
            hint = "; a file that is one JSON text is called .json"
            places, content = list(parts), [_json(line, place, hint) for place, line in parts.items()]
        else:
            content, keys = _whole(path, split, notes)
            places = [f"{path}: entry {number}" for number in range(1, len(content) + 1)]
            places = [f"{path}: key {key!r}" for key in keys] or places
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if content and all(isinstance(entry, str | list) for entry in content):
        content = [_bare(entry) for entry in content]
    for place, entry in zip(places, content, strict=True):
        if not isinstance(entry, dict):
            raise UserError(f"{place}: expected an object, found {shown(entry)}; {_SEE}")
    return places, content, notes


def _text_of(path: Path) -> str:
    """A text file in UTF-8, or in UTF-16 with its mark, as Excel writes it.

    Raises:
        UserError: if it is in another encoding.
    """
    raw = ordinary_file(path).read_bytes()
    try:
        return raw.decode("utf-16" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None


def _whole(path: Path, split: frozenset[str], notes: list[str]) -> tuple[list[Any], list[str]]:
    """The entries of a file that is no list of lines, and the keys they stand below, if they stand below one each."""
    if path.suffix in (".tsv", ".csv"):
        return _separated(_text_of(path), "\t" if path.suffix == ".tsv" else ",", path), []
    if path.suffix == ".xlsx":
        return _spreadsheet(path), []
    if path.suffix == ".parquet":
        return _parquet(path), []
    if path.suffix == ".txt":  # an answer per line, in the order of the split
        return [line.rstrip("\r") for line in _text_of(path).rstrip("\n").split("\n")], []
    if path.suffix in (".pkl", ".pickle", ".p", ".pt", ".pth", ".npy", ".npz"):
        raise UserError(f"{path}: a {path.suffix} file is not read; save the answers as .jsonl, one object per line")
    content = _json(_text_of(path), str(path), "; a file with one object per line is called .jsonl")
    keys: list[str] = []
    if isinstance(content, dict):
        content, keys = _below(content, path, split, notes)
    if not isinstance(content, list):
        raise UserError(f"{path}: expected a list of objects, found {shown(content)}; {_SEE}")
    return content, keys


def _bare(value: Any) -> Entry:
    """An answer without any field."""
    return {"answer": value, "boxes": value}


def _below(content: dict[str, Any], path: Path, split: frozenset[str], notes: list[str]) -> tuple[list[Any], list[str]]:
    """The list below a key of an object; a table by columns; or, of an object id -> answer, entries and keys."""
    own = [key for key, value in content.items() if isinstance(value, list | dict) and plain_name(key) in split]
    if len(own) == 1:
        notes.append(f"of several splits the entries below {own[0]!r} were taken")
        below = content[own[0]]
        return _below(below, path, frozenset(), notes) if isinstance(below, dict) else (below, [])
    lists = [key for key, value in content.items() if _is_list_of_entries(value)]
    usual = [key for key in LIST_KEYS if key in lists] or (lists if len(lists) == 1 < len(content) else [])
    if usual:
        notes.append(f"the entries stand below {usual[0]!r}")
        return list(content[usual[0]]), []
    table = _columns(content)
    if table is not None:
        notes.append("the file is a table by columns")
        return table, []
    inside = [key for key in LIST_KEYS if isinstance(content.get(key), dict)]
    if inside:
        notes.append(f"the entries stand below {inside[0]!r}")
        return _below(content[inside[0]], path, split, notes)
    values = list(content.values())
    if values and not all(isinstance(value, str | list | dict) for value in values):
        raise UserError(
            f"{path}: an object with {names_of(content)}, but no list of answers below one of {', '.join(LIST_KEYS)}; "
            "put the answers in a list there"
        )
    if _is_numbered(content):  # a table by rows: the ids stand in the rows
        return values, []
    entries = [{"key": key, **(value if isinstance(value, dict) else _bare(value))} for key, value in content.items()]
    return entries, list(content)


def plain_name(name: str) -> str:
    """The name of a split or dataset without signs: ``refcoco+testa`` for ``RefCOCO+_testA``."""
    return re.sub(r"[^a-z0-9+]", "", name.lower().replace("plus", "+"))


def _columns(content: dict[str, Any]) -> list[Entry] | None:
    """The rows of a table that is written by columns, as pandas and datasets write it; None: it is none."""
    names, rows = content.get("columns"), content.get("data")
    if isinstance(names, list) and isinstance(rows, list) and all(isinstance(row, list) for row in rows):
        return [dict(zip(map(str, names), row, strict=False)) for row in rows]
    columns = list(content.values())
    if not _FIELDS.intersection(content) or not columns:
        return None
    if all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        return [dict(zip(content, row, strict=True)) for row in zip(*columns, strict=True)]
    if all(isinstance(column, dict) and column.keys() == columns[0].keys() for column in columns):
        return [{name: column[row] for name, column in content.items()} for row in columns[0]]
    return None


def _is_numbered(content: dict[str, Any]) -> bool:
    """Whether the keys are 0, 1, 2, ... and every value names its expression itself."""
    return list(content) == [str(row) for row in range(len(content))] and all(
        isinstance(value, dict) and not value.keys().isdisjoint(ID_FIELDS) for value in content.values()
    )


def _is_list_of_entries(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def _json(text: str, place: str, hint: str = "") -> Any:
    try:
        return json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON ({error}){hint}") from None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 400 else float(digits)  # a runaway number must not cost the file


def _separated(text: str, delimiter: str, path: Path) -> list[Any]:
    """Rows of a table; where its head has no such delimiter, another one that it has (Excel's semicolon)."""
    head = text.partition("\n")[0]
    if delimiter not in head:
        delimiter = next((other for other in (";", "\t", ",") if other in head), delimiter)
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [{name: value for name, value in row.items() if name is not None} for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}: no table ({error}); write it as JSON lines") from None


def _parquet(path: Path) -> list[Any]:
    """Rows, without the pictures that datasets of the Hub carry, and numbers as they would be printed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from vgbench.predictions.precision import decimals

    try:
        names = [field.name for field in pq.read_schema(ordinary_file(path)) if not _is_picture(field.type)]
        table = pq.read_table(path, columns=names)
        columns = {name: decimals(column) for name, column in zip(names, table.columns, strict=True)}
        return list(pa.table(columns).to_pylist()) if columns else []
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: no Parquet file ({' '.join(str(error).split())})") from None


def _is_picture(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _spreadsheet(path: Path) -> list[Any]:
    """The first sheet; its first row names the fields."""
    try:
        with zipfile.ZipFile(ordinary_file(path)) as archive:
            names = archive.namelist()
            shared: list[str] = []
            if "xl/sharedStrings.xml" in names:
                shared = [_text(item) for item in _xml(archive, "xl/sharedStrings.xml").iter(f"{_XLSX}si")]
            sheets = sorted(name for name in names if re.fullmatch(r"xl/worksheets/[^/]+\.xml", name))
            rows = list(_rows(_xml(archive, sheets[0]), shared))
    except (*_XLSX_ERRORS, ElementTree.ParseError) as error:
        raise UserError(f"{path}: no spreadsheet ({' '.join(str(error).split())}); save it as .tsv") from None
    if not rows:
        raise UserError(f"{path}: the first sheet is empty; put the field names in its first row")
    head = rows[0]
    return [
        {str(name): row[column] for column, name in head.items() if name and column in row} for row in rows[1:] if row
    ]


def _xml(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    """A part of a spreadsheet.

    Raises:
        ValueError: if it would fill the memory: packed to a hundredth of its size, or with entities of its own.
    """
    member = archive.getinfo(name)
    if member.file_size > MAX_RATIO * member.compress_size + MAX_PART:
        raise ValueError(f"{name} unpacks to {member.file_size:,} bytes")
    content = archive.read(member)
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError(f"{name} has a document type, which no spreadsheet has")
    return ElementTree.fromstring(content)


def _rows(sheet: ElementTree.Element, shared: list[str]) -> Iterator[dict[str, Any]]:
    """Column letters -> value, row by row."""
    for row in sheet.iter(f"{_XLSX}row"):
        cells: dict[str, Any] = {}
        for number, cell in enumerate(row.iter(f"{_XLSX}c")):
            column = re.sub(r"\d", "", cell.get("r", "")) or str(number)
            kind, value = cell.get("t", "n"), cell.findtext(f"{_XLSX}v")
            if kind == "inlineStr":
                cells[column] = _text(cell)
            elif value is not None:
                cells[column] = shared[int(value)] if kind == "s" else _number(value) if kind == "n" else value
        yield cells


def _number(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() else number


def _text(element: ElementTree.Element) -> str:
    return "".join(part.text or "" for part in element.iter(f"{_XLSX}t"))
