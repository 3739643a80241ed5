"""Writing annotation tables in the layouts of other code: every loader of the field can then read every dataset.

Boxes, texts and masks come back unchanged when the result is read again. Masks become RLE, because the table holds no
polygons; ids that the original layout did not have are numbered from 1.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from vgbench.datasets.layout import Files
from vgbench.errors import UserError
from vgbench.files import atomic
from vgbench.table import AnnotationTable, Row

__all__ = ["WRITERS", "convert"]

Tables = Mapping[str, AnnotationTable]


@dataclass(frozen=True)
class _Names:
    """The dataset's name, the author of its split, and its folders in the layouts that have their own names for it.
    ``multi``: expressions have several targets or none."""

    name: str
    split_by: str
    multi: bool
    refer: str
    seqtr: str


def convert(
    tables: Tables,
    layout: str,
    folder: Path,
    name: str,
    split_by: str = "unc",
    files: Files | None = None,
    sources: Collection[Path] = (),
) -> list[Path]:
    """Write the splits of one dataset.

    Args:
        tables: split -> table.
        layout: a key of :data:`WRITERS`.
        folder: where to write; the names below it are those of the layout.
        name: what the dataset is called in file and folder names, e.g. "refcoco".
        split_by: the author of the split, where the layout's file names have it.
        files: what the dataset is called in the layouts that know it; None or empty there: made from ``name``.
        sources: files that must not be written over, those that the tables were read from.

    Returns:
        The files written (atomically each).

    Raises:
        UserError: if the layout is not known or cannot hold the dataset, or a file would replace one of ``sources``.
    """
    if layout not in WRITERS:
        raise UserError(f"convert: no layout {layout!r}; there are: {', '.join(WRITERS)}")
    if layout in ("refer", "refer_json", "seqtr", "hub"):
        for split, table in tables.items():
            if table.info["task"] != "grec" and any(len(row.boxes) > 1 for row in table):
                raise UserError(
                    f"convert: {name} {split} has expressions with several boxes, any of which is right; the {layout} "
                    "layout holds one; use layout=mdetr, coco or parquet"
                )
    multi = any(table.info["task"] == "grec" for table in tables.values())
    known = files or Files()
    refer = known.refer or (name,)
    seqtr = known.seqtr or (name if multi else f"{name.replace('+', 'plus')}-{split_by}",)
    names = _Names(name, split_by, multi, refer[0], seqtr[0])
    originals = {path.resolve() for path in sources}
    written = []
    for path, content in WRITERS[layout](tables, names):
        target = folder / path
        if target.resolve() in originals:
            raise UserError(f"{target}: is a file of the dataset that is read; set out= to another folder")
        written.append(_write(target, content))
    return written


def _write(path: Path, content: Any) -> Path:
    with atomic(path) as temporary, temporary.open("wb") as file:
        if isinstance(content, pa.Table):
            pa.parquet.write_table(content, file)
        elif path.suffix == ".p":
            pickle.dump(content, file, protocol=2)  # Python 2 code reads these too
        else:
            file.write(json.dumps(content, ensure_ascii=False).encode())
    return path


Contents = Iterator[tuple[str, Any]]
NO_TARGET = {"area": -1, "iscrowd": -1, "bbox": [0, 0, 0, 0], "category_id": -1, "original_id": -1, "empty": True}


class _Ids:
    """Annotation and category ids for targets, the original ones where they are known."""

    def __init__(self, tables: Tables) -> None:
        known = [row_ids for table in tables.values() for row_ids in table.arrow.column("ann_ids").to_pylist()]
        self._next = max((number for ids in known for number in ids), default=0) + 1
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
                "bbox": _xywh(box),
                "area": (box[2] - box[0]) * (box[3] - box[1]),
                "iscrowd": 0,
                **({} if mask is None else {"segmentation": mask}),
            }
        return number

    def category_records(self) -> list[dict[str, Any]]:
        return [{"id": number, "name": name, "supercategory": ""} for name, number in self.categories.items()]


def _xywh(box: list[float]) -> list[float]:
    """Width and height that give the same corners again when they are added."""
    x1, y1, x2, y2 = box
    return [x1, y1, _difference(x1, x2), _difference(y1, y2)]


def _difference(low: float, high: float) -> float:
    for digits in (2, 3, 6, 9):  # annotations have two decimals: prefer 13.75 to 13.750000000000004
        if low + round(high - low, digits) == high:
            return round(high - low, digits)
    return high - low


def _image(row: Row) -> dict[str, Any]:
    return {"id": row.image_id, "file_name": row.image, "width": row.width, "height": row.height}


def _add_image(images: dict[int, dict[str, Any]], row: Row) -> None:
    """Where images are known by their id alone; a merged set's come from several collections."""
    known = images.setdefault(row.image_id, _image(row))
    if known["file_name"] != row.image:
        raise UserError(
            f"convert: two images have the id {row.image_id} ({known['file_name']}, {row.image}), and this layout "
            "tells images by their id; use layout=seqtr, mdetr or parquet"
        )


def _words(text: str) -> str:
    """The ``sent`` of the refer layout: lower case, without punctuation."""
    return " ".join(re.sub(r"[^\w\s]|_", "", text.lower()).split())


def _grouped(table: AnnotationTable) -> Iterator[list[Row]]:
    """Rows that refer to the same targets by the same ref (or object), in order of first appearance."""
    groups: dict[Any, list[Row]] = {}
    for row in table:
        known = row.key if row.ref_id is None and row.no_target else row.ref_id
        groups.setdefault((known, row.group, row.image_id, *row.boxes.reshape(-1).tolist()), []).append(row)
    yield from groups.values()


def _refer(tables: Tables, names: _Names) -> Contents:
    multi = names.multi
    ids, sent_id = _Ids(tables), 0
    images: dict[int, dict[str, Any]] = {}
    refs: list[dict[str, Any]] = []
    old_ids = [row.ref_id for table in tables.values() for row in table]
    keep_ids = None not in old_ids
    for split, table in tables.items():
        for rows in _grouped(table):
            first = rows[0]
            _add_image(images, first)
            ann_ids = ids.of(first)
            sentences = []
            for row in rows:
                number = sent_id if row.sent_id is None else row.sent_id
                sent = _words(row.expression)
                sentences.append({"sent_id": number, "sent": sent, "raw": row.expression, "tokens": sent.split()})
                sent_id += 1
            categories = [ids.annotations[ann]["category_id"] for ann in ann_ids]
            refs.append(
                {
                    "ref_id": first.ref_id if keep_ids else len(refs),
                    "ann_id": (ann_ids or [-1]) if multi else ann_ids[0],
                    "image_id": first.image_id,
                    "category_id": (categories or [-1]) if multi else categories[0],
                    "split": split,
                    "file_name": first.image,
                    "sent_ids": [sentence["sent_id"] for sentence in sentences],
                    "sentences": sentences,
                }
            )
    annotations = []
    for record in ids.annotations.values():  # the refer API takes the first element to see what a segmentation is
        part = {"segmentation": [record["segmentation"]]} if "segmentation" in record else {"segmentation": []}
        annotations.append({**record, **part})
    yield (
        f"{names.refer}/instances.json",
        {
            "info": {"description": names.name},
            "licenses": [],
            "images": list(images.values()),
            "annotations": annotations,
            "categories": ids.category_records(),
        },
    )
    yield f"{names.refer}/" + (f"grefs({names.split_by}).json" if multi else f"refs({names.split_by}).p"), refs


def _refer_json(tables: Tables, names: _Names) -> Contents:
    for path, content in _refer(tables, names):
        yield str(Path(path).with_suffix(".json")), content


def _seqtr(tables: Tables, names: _Names) -> Contents:
    content: dict[str, list[dict[str, Any]]] = {}
    multi = names.multi
    ids = _Ids(tables)
    for split, table in tables.items():
        groups: dict[Any, list[Row]] = {}
        for row in table:
            groups.setdefault((row.image_id if multi else row.group) if split == "train" else row.key, []).append(row)
        entries = content.setdefault(split, [])
        for rows in groups.values():
            first = rows[0]
            entry: dict[str, Any] = {"image_id": first.image_id, "height": first.height, "width": first.width}
            entry["data_source"] = first.source  # tells the images of a merged set apart; others ignore it
            entry["expressions"] = [row.expression for row in rows]
            if multi:
                found = [[ids.annotations[number] for number in ids.of(row)] for row in rows]
                entry["bbox"] = [[a["bbox"] for a in part] or [[0, 0, 0, 0]] for part in found]
                entry["annotations"] = [[_mdetr_annotation(a) for a in part] or [NO_TARGET] for part in found]
                entry["segmentation"] = [[a.get("segmentation") for a in part] for part in found]
            else:
                entry["bbox"] = _xywh(first.boxes[0].tolist())
                if first.masks:
                    entry["mask"] = first.masks[0]
            entries.append(entry)
    yield f"annotations/{names.seqtr}/instances.json", content


def _mdetr_annotation(annotation: dict[str, Any]) -> dict[str, Any]:
    known = {key: value for key, value in annotation.items() if key != "segmentation"}
    return {**known, "original_id": annotation["id"], "empty": False}


def _mdetr(tables: Tables, names: _Names) -> Contents:
    ids = _Ids(tables)
    for split, table in tables.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index, row in enumerate(table):
            images.append(
                {
                    **_image(row),
                    "id": index,
                    "original_id": row.image_id,
                    "caption": row.expression,
                    "dataset_name": names.name,
                    "tokens_negative": [],
                }
            )
            found = [{**ids.annotations[n], "original_id": n, "empty": False} for n in ids.of(row)] or [NO_TARGET]
            for annotation in found:
                positive = [] if annotation["empty"] else [[0, len(row.expression)]]
                annotations.append(
                    {**annotation, "id": len(annotations), "image_id": index, "tokens_positive": positive}
                )
        categories = ids.category_records()
        content = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
        yield f"finetune_{names.name}_{split}.json", content


def _coco(tables: Tables, names: _Names) -> Contents:
    for split, table in tables.items():
        ids, expressions = _Ids(tables), []
        images: dict[int, dict[str, Any]] = {}
        for index, row in enumerate(table):
            _add_image(images, row)
            expressions.append(
                {"id": index, "image_id": row.image_id, "caption": row.expression, "annotation_ids": ids.of(row)}
            )
        yield (
            f"{names.name}_{split}.json",
            {
                "info": {"description": f"{names.name} {split}"},
                "licenses": [],
                "images": list(images.values()),
                "annotations": list(ids.annotations.values()),
                "categories": ids.category_records(),
                "expressions": expressions,
            },
        )


def _hub(tables: Tables, names: _Names) -> Contents:
    (_, instances), (_, refs) = _refer(tables, names)
    annotations = {record["id"]: record for record in instances["annotations"]}
    images = {record["id"]: record for record in instances["images"]}
    for split in tables:
        rows = [
            {
                **ref,
                "raw_anns": json.dumps(
                    [annotations[key] for key in ref["ann_id"] if key in annotations]
                    if names.multi
                    else annotations[ref["ann_id"]]
                ),
                "raw_image_info": json.dumps(images[ref["image_id"]]),
                "raw_sentences": json.dumps(ref["sentences"]),
            }
            for ref in refs
            if ref["split"] == split
        ]
        yield f"{names.name.replace('+', 'plus')}/data/{split}-00000-of-00001.parquet", pa.Table.from_pylist(rows)


def _parquet(tables: Tables, names: _Names) -> Contents:
    for split, table in tables.items():
        info = {"vgbench": json.dumps({**table.info, "hash": table.hash})}
        yield f"{names.name}_{split}.parquet", table.arrow.replace_schema_metadata(info)


WRITERS: dict[str, Callable[[Tables, _Names], Contents]] = {
    "parquet": _parquet,
    "refer": _refer,
    "refer_json": _refer_json,
    "seqtr": _seqtr,
    "mdetr": _mdetr,
    "coco": _coco,
    "hub": _hub,
}
"""Layout -> function giving (file name, content) pairs.

``parquet`` is the annotation table itself; ``refer_json`` is ``refer`` with JSON in place of the pickle; ``coco`` is
detection-style COCO JSON plus a list ``expressions`` of {id, image_id, caption, annotation_ids}; the others are what
:mod:`vgbench.datasets` reads under the same keys.
"""
