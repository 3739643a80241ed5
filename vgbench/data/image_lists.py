"""Lists of images that somebody trained on: names line by line, COCO files, or what a run of ours has kept."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vgbench.core.errors import UserError
from vgbench.data.leakage import SEEN_FILE, ImageAliases, SeenImages, image_keys
from vgbench.data.table import AnnotationTable

# fields that name an image in annotation and pre-training files, the first that is there counts
_NAMES = ("file_name", "filename", "image", "image_path", "img_name", "image_name", "image_file", "path", "coco_url")
_NUMBERS = ("image_id", "img_id", "id")
_COCO_NAME = re.compile(r"(?:coco_(?:train|val|test)20\d\d_)?(\d{12})")


@dataclass(frozen=True)
class ImageList:
    """Images by name or number.

    Attributes:
        names: file names without folder and ending, lower case.
        numbers: image numbers of entries that have no name.
        seen: images as :func:`~vgbench.data.leakage.image_keys` calls them, of a run of ours.
    """

    names: frozenset[str]
    numbers: frozenset[int] = frozenset()
    seen: SeenImages | None = None

    def __len__(self) -> int:
        """Images of the list."""
        return len(self.names) + len(self.numbers) + (0 if self.seen is None else len(self.seen.keys))

    @classmethod
    def read(cls, path: Path) -> ImageList:
        """Read a list: one name a line (further columns of a CSV or TSV file do not matter), JSON or JSON lines (a list
        of names, of numbers or of records, or COCO's ``images``), a run folder, or its ``train_images.parquet``.

        Raises:
            UserError: if there is no such file, it cannot be read, or no image is named in it.
        """
        folder = path.parent if path.name == SEEN_FILE else path
        if folder.is_dir():
            seen = SeenImages.read(folder)
            if seen is None:
                raise UserError(f"train={path}: a folder without {SEEN_FILE}; give a run folder, or a list of images")
            return cls(frozenset(), seen=seen)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise UserError(
                f"train={path}: cannot be read ({error.strerror}); give a dataset, a list of image names, or a COCO "
                "instances file"
            ) from None
        except UnicodeDecodeError:
            raise UserError(f"train={path}: is no text; give a list of image names, or a COCO instances file") from None
        names, numbers = set(), set()
        for entry in _entries(text, path):
            if isinstance(entry, str):
                names.add(_stem(entry))
            else:
                numbers.add(entry)
        if not names and not numbers:
            raise UserError(
                f"train={path}: names no image; give one name a line, or JSON records with {', '.join(_NAMES[:3])} or "
                f"{_NUMBERS[0]}"
            )
        return cls(frozenset(names), frozenset(numbers))

    def shared_with(self, table: AnnotationTable, aliases: ImageAliases | None = None) -> tuple[int, int]:
        """(images of ``table`` that are in the list, all of its images).

        An image is in the list if its file's name is, or its number; one of COCO also under COCO's other names
        ("COCO_train2014_000000000101" and "000000000101" are the same picture).
        """
        keys = image_keys(table, aliases)
        if self.seen is not None:
            return len(np.intersect1d(self.seen.keys, keys)), len(np.unique(keys))
        coco = {f"coco:{number}" for name in self.names if (number := _coco_number(name)) is not None}
        rows = zip(table.column("image_id").tolist(), table.arrow.column("image").to_pylist(), keys, strict=True)
        images = {key: (number, _stem(name)) for number, name, key in rows}
        shared = sum(
            name in self.names or number in self.numbers or key in coco for key, (number, name) in images.items()
        )
        return shared, len(images)


def _stem(name: str) -> str:
    return PurePosixPath(name.strip().strip('"').replace("\\", "/")).stem.lower()


def _coco_number(stem: str) -> int | None:
    match = _COCO_NAME.fullmatch(stem)
    return int(match[1]) if match else None


def _entries(text: str, path: Path) -> Iterator[str | int]:
    """Names and numbers in a file, whichever form it has."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            yield from _of_json(json.loads(text))
        except json.JSONDecodeError:
            yield from _of_lines(text, path)
        except RecursionError:
            raise UserError(f"train={path}: is nested too deeply") from None
        return
    delimiter = "\t" if "\t" in text else ","
    for line in _cells(text, delimiter, path):
        first = line[0].strip() if line else ""
        if re.fullmatch(r"\d+", first):
            yield int(first)
        elif first and first.lower() not in (*_NAMES, *_NUMBERS):  # a heading
            yield first


def _cells(text: str, delimiter: str, path: Path) -> Iterator[list[str]]:
    try:
        yield from csv.reader(filter(str.strip, text.splitlines()), delimiter=delimiter)
    except csv.Error as error:  # a cell without end; before Python 3.11 a NUL too
        raise UserError(f"train={path}: no table ({error})") from None


def _of_lines(text: str, path: Path) -> Iterator[str | int]:
    for number, line in enumerate(filter(str.strip, text.splitlines()), 1):
        try:
            yield from _of_json([json.loads(line)])
        except (ValueError, RecursionError) as error:
            raise UserError(f"train={path}: line {number} is no JSON ({error}); the file is damaged or cut") from None


def _of_json(content: Any) -> Iterator[str | int]:
    if isinstance(content, Mapping):
        images = content.get("images", content.get("annotations"))
        # {"name.jpg": ...}: the keys are the images
        content = images if isinstance(images, list) else list(content)
    for entry in content if isinstance(content, Iterable) and not isinstance(content, str) else ():
        image = _image_of(entry)
        if image is not None:
            yield image


def _image_of(entry: Any) -> str | int | None:
    if isinstance(entry, Mapping):
        named = [entry[key] for key in _NAMES if isinstance(entry.get(key), str) and entry[key]]
        numbered = [entry[key] for key in _NUMBERS if key in entry]
        entry = (named or numbered or [None])[0]
    if isinstance(entry, str) and entry.strip():
        return int(entry) if re.fullmatch(r"\d{1,11}", entry.strip()) else entry
    if isinstance(entry, int) and not isinstance(entry, bool):
        return entry
    return None
