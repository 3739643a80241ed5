"""The entries of a foreign predictions file, whatever its type: JSON, JSON lines, tables (TSV, CSV, XLSX, Parquet)."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from vgbench.core.errors import UserError

Entry = dict[str, Any]

# Where tools put the list of answers in an object, in the order in which they are looked for.
LIST_KEYS = ("results", "predictions", "answers", "outputs", "logs", "samples", "annotations", "data", "items")
LINES = (".jsonl", ".ndjson")
_SEE = "see vgbench/metrics/README.md, foreign predictions"
_XLSX = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def read_entries(path: Path) -> tuple[list[str], list[Entry], list[str]]:
    """Where each entry stands (for messages), the entries, and notes on where they were found.

    Raises:
        UserError: if the file cannot be read or holds no entries.
    """
    notes: list[str] = []
    try:
        if path.suffix in LINES:
            # not splitlines(): a model's words may hold characters that it takes for the end of a line
            lines = enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1)
            parts = {f"{path}: line {number}": line for number, line in lines if line.strip()}
            places, content = list(parts), [_json(line, place) for place, line in parts.items()]
        else:
            content = _whole(path, notes)
            places = [f"{path}: entry {number}" for number in range(1, len(content) + 1)]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if content and all(isinstance(entry, str | list) for entry in content):
        content = [_bare(entry) for entry in content]
    for place, entry in zip(places, content, strict=True):
        if not isinstance(entry, dict):
            raise UserError(f"{place}: expected an object; {_SEE}")
    return places, content, notes


def _whole(path: Path, notes: list[str]) -> list[Any]:
    if path.suffix in (".tsv", ".csv"):
        return _separated(path.read_text(encoding="utf-8-sig"), "\t" if path.suffix == ".tsv" else ",", path)
    if path.suffix == ".xlsx":
        return _spreadsheet(path)
    if path.suffix == ".parquet":
        return _parquet(path)
    content = _json(
        path.read_text(encoding="utf-8-sig"), str(path), "; a file with one object per line is called .jsonl"
    )
    if isinstance(content, dict):
        content = _below(content, path, notes)
    if not isinstance(content, list):
        raise UserError(f"{path}: expected a list of objects; {_SEE}")
    return content


def _bare(value: Any) -> Entry:
    """An answer without any field."""
    return {"answer": value, "boxes": value}


def _below(content: dict[str, Any], path: Path, notes: list[str]) -> list[Any]:
    """The list below a key of an object; or, of an object id -> answer, its entries."""
    lists = [key for key, value in content.items() if _is_list_of_entries(value)]
    usual = [key for key in LIST_KEYS if key in lists] or (lists if len(lists) == 1 < len(content) else [])
    if usual:
        notes.append(f"the entries stand below {usual[0]!r}")
        return list(content[usual[0]])
    inner = [key for key in LIST_KEYS if isinstance(content.get(key), dict)]
    if inner:
        notes.append(f"the entries stand below {inner[0]!r}")
        return _below(content[inner[0]], path, notes)
    values = list(content.values())
    if values and not all(isinstance(value, str | list | dict) for value in values):
        raise UserError(
            f"{path}: an object with {', '.join(map(str, list(content)[:8]))}, but no list of answers below one of "
            f"{', '.join(LIST_KEYS)}; put the answers in a list there"
        )
    return [{"key": key, **(value if isinstance(value, dict) else _bare(value))} for key, value in content.items()]


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
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [{name: value for name, value in row.items() if name is not None} for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}: no table ({error}); write it as JSON lines") from None


def _parquet(path: Path) -> list[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_table(path).to_pylist())
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: no Parquet file ({' '.join(str(error).split())})") from None


def _spreadsheet(path: Path) -> list[Any]:
    """The first sheet; its first row names the fields."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            shared: list[str] = []
            if "xl/sharedStrings.xml" in names:
                root = ElementTree.fromstring(archive.read("xl/sharedStrings.xml"))
                shared = [_text(item) for item in root.iter(f"{_XLSX}si")]
            sheets = sorted(name for name in names if re.fullmatch(r"xl/worksheets/[^/]+\.xml", name))
            rows = list(_rows(ElementTree.fromstring(archive.read(sheets[0])), shared))
    except (zipfile.BadZipFile, KeyError, IndexError, ValueError, ElementTree.ParseError) as error:
        raise UserError(f"{path}: no spreadsheet ({error}); save it as .tsv") from None
    if not rows:
        raise UserError(f"{path}: the first sheet is empty; put the field names in its first row")
    head = rows[0]
    return [
        {str(name): row[column] for column, name in head.items() if name and column in row} for row in rows[1:] if row
    ]


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
