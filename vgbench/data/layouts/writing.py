"""What the writers of several layouts share: ids, boxes, words."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from vgbench.core.errors import UserError
from vgbench.core.files import atomic
from vgbench.data.table import AnnotationTable, Row

Tables = Mapping[str, AnnotationTable]


@dataclass(frozen=True)
class DatasetNames:
    """The dataset's name, the author of its split, and what it is called in layouts that have their own names for it
    (:attr:`~vgbench.data.dataset.GroundingData.layout_names`). ``multi``: expressions have several targets or none."""

    name: str
    split_by: str
    multi: bool
    layout_names: Mapping[str, Any]


def write_file(path: Path, content: Any) -> Path:
    """Write one file of a layout atomically: a parquet table, a pickle (``.p``) or JSON."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        if isinstance(content, pa.Table):
            pa.parquet.write_table(content, file)
        elif path.suffix == ".p":
            pickle.dump(content, file, protocol=2)  # Python 2 code reads these too
        else:
            file.write(json.dumps(content, ensure_ascii=False).encode())
    return path


Contents = Iterator[tuple[str, Any]]  # file name, content


@dataclass(frozen=True)
class Writer:
    """A form that tables can be written in.

    Attributes:
        key: its name for the user.
        contents: what gives the files.
        single_box: it holds one box for an expression that has one target, not several of which any is right.
    """

    key: str
    contents: Callable[[Tables, DatasetNames], Contents]
    single_box: bool = False


NO_TARGET = {"area": -1, "iscrowd": -1, "bbox": [0, 0, 0, 0], "category_id": -1, "original_id": -1, "empty": True}


class Ids:
    """Annotation and category ids for targets, the original ones where they are known."""

    def __init__(self, tables: Tables) -> None:
        original_ids = [row_ids for table in tables.values() for row_ids in table.arrow.column("ann_ids").to_pylist()]
        self._next = max((number for ids in original_ids for number in ids), default=0) + 1
        self._given: dict[Any, int] = {}
        self.categories: dict[str, int] = {}
        self.annotations: dict[int, dict[str, Any]] = {}

    def of(self, row: Row) -> list[int]:
        """Ids of the row's targets; their annotations are recorded."""
        return [self._id(row, index) for index in range(len(row.boxes))]

    def _id(self, row: Row, index: int) -> int:
        box = row.boxes[index].tolist()
        mask = row.masks[index] if row.masks else None
        if row.ann_ids:
            number = row.ann_ids[index]
        else:
            identity = (row.image, *box, mask and mask["counts"])
            if identity not in self._given:
                self._given[identity] = self._next
                self._next += 1
            number = self._given[identity]
        if number not in self.annotations:
            category = row.categories[index] if row.categories else "object"
            self.annotations[number] = {
                "id": number,
                "image_id": row.image_id,
                "category_id": self.categories.setdefault(category, len(self.categories) + 1),
                "bbox": xywh(box),
                "area": (box[2] - box[0]) * (box[3] - box[1]),
                "iscrowd": 0,
                **({} if mask is None else {"segmentation": mask}),
            }
        return number

    def category_records(self) -> list[dict[str, Any]]:
        """COCO's list of categories, for those that occurred."""
        return [{"id": number, "name": name, "supercategory": ""} for name, number in self.categories.items()]


def xywh(box: list[float]) -> list[float]:
    """Width and height that give the same corners again when they are added."""
    x1, y1, x2, y2 = box
    return [x1, y1, counts_difference(x1, x2), counts_difference(y1, y2)]


def counts_difference(low: float, high: float) -> float:
    """``high`` - ``low``, rounded as far as adding it to ``low`` still gives ``high``."""
    for digits in (2, 3, 6, 9):  # annotations have two decimals: prefer 13.75 to 13.750000000000004
        if low + round(high - low, digits) == high:
            return round(high - low, digits)
    return high - low


def image_record(row: Row) -> dict[str, Any]:
    """COCO's record of a row's image."""
    return {"id": row.image_id, "file_name": row.image, "width": row.width, "height": row.height}


def add_image(images: dict[int, dict[str, Any]], row: Row) -> None:
    """Where images are known by their id alone; a merged set's come from several collections."""
    record = images.setdefault(row.image_id, image_record(row))
    if record["file_name"] != row.image:
        raise UserError(
            f"convert: two images have the id {row.image_id} ({record['file_name']}, {row.image}), and this layout "
            "tells images by their id; use layout=seqtr, mdetr or parquet"
        )


def word_spans(text: str) -> str:
    """The ``sent`` of the refer layout: lower case, without punctuation."""
    return " ".join(re.sub(r"[^\w\s]|_", "", text.lower()).split())


def grouped(table: AnnotationTable) -> Iterator[list[Row]]:
    """Rows that refer to the same targets by the same ref (or object), in order of first appearance."""
    groups: dict[Any, list[Row]] = {}
    for row in table:
        identity = row.key if row.ref_id is None and row.no_target else row.ref_id
        groups.setdefault((identity, row.group, row.image_id, *row.boxes.reshape(-1).tolist()), []).append(row)
    yield from groups.values()
