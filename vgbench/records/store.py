"""Records on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file, write_atomically
from vgbench.records.record import FILE_NAME, Record
from vgbench.records.schema import from_dict, to_dict


def read(path: Path | str) -> Record:
    """The record of a run folder (or of a record file).

    Raises:
        UserError: as :func:`from_dict`, or if there is no such file or it is no JSON.
    """
    file = Path(path)
    if file.is_dir():
        file = file / FILE_NAME
    try:
        value = json.loads(ordinary_file(file).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; a run folder with a {FILE_NAME} is made by `vgbench run`") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not readable as JSON ({error})") from error
    record = from_dict(value, str(file))
    record.folder = file.parent
    return record


def find(paths: Iterable[Path | str]) -> list[Record]:
    """All records in run folders, record files, and folders of run folders at any depth; sorted by path.

    Raises:
        UserError: if a path does not exist, holds no record, or holds a bad one.
    """
    files: dict[Path, Path] = {}  # by what they are in the end: a record that two paths lead to counts once
    for path in map(Path, paths):
        record_files = [path] if path.is_file() else sorted(walk(path)) if path.is_dir() else None
        if record_files is None:
            raise UserError(f"{path}: no such file or folder")
        if not record_files:
            raise UserError(f"{path}: no {FILE_NAME} in it or below; `vgbench run` and `vgbench score` write one")
        for file in record_files:
            files.setdefault(Path(os.path.realpath(file)), file)  # Path.resolve raises on links in a circle
    records = [read(file) for file in files.values()]  # a message names what the user knows, not where a link ends
    for record, place in zip(records, files, strict=True):
        record.folder = place.parent
    return records


def walk(folder: Path) -> Iterable[Path]:
    """Record files below ``folder``. A run folder is not searched further: its checkpoints and pictures are many."""
    below = []
    for entry in os.scandir(folder):
        if entry.name == FILE_NAME:
            yield Path(entry.path)
            return
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            below.append(entry.path)
    for path in below:
        yield from walk(Path(path))


def write(record: Record, folder: Path | str) -> Path:
    """Write ``record.json`` into a run folder, atomically, after the same validation as on reading.

    Raises:
        UserError: if the record would not be read back.
    """
    folder = Path(folder)
    file = folder / FILE_NAME
    if not record.created:
        record.created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    value = to_dict(record)
    from_dict(value, str(file))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")
    record.folder = folder
    return file
