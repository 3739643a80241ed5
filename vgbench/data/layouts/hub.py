"""jxu124's parquet files on the Hugging Face hub: one row per ref, its originals as JSON texts; and his benchmark
files, one row per image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from vgbench.core.errors import UserError
from vgbench.data.builder import ImageRecord
from vgbench.data.checks import BadSample, check_name, check_size, take
from vgbench.data.layouts.base import Layout, LayoutDataset, folders
from vgbench.data.layouts.parquet import list_or_empty, parquet_columns, read_rows
from vgbench.data.layouts.refer import write_refer
from vgbench.data.layouts.targets import TargetReader, add_ref, coco_target, expression_of
from vgbench.data.layouts.writing import Contents, DatasetNames, Tables, Writer
from vgbench.data.table import AnnotationTable

COLUMNS = ["split", "ref_id", "ann_id", "image_id", "sentences", "raw_anns", "raw_image_info"]
BENCHMARK_COLUMNS = ["ref_list", "image_info"]


class HubLayout(Layout):
    """``<name>/data/*.parquet`` with a column ``split`` (its values are the original names: what the hub calls test
    is testA). Boxes are taken from ``raw_anns``: the card does not say which format the column ``bbox`` has. For sets
    with several targets or none, which are not on the hub, ``raw_anns`` is a list (our own extension).
    Names: folders."""

    key = "hub"

    @classmethod
    def folder_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return names

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        names = data.layout_names.get(cls.key, ())
        for folder in folders(data.data_root, names) if names else ():
            for place in (folder / "data", folder):
                paths = sorted(place.glob("*.parquet"))
                if paths and set(COLUMNS) <= set(parquet_columns(paths[0])):
                    return cls(data, {path.name: path for path in paths})
        return None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        names = data.layout_names.get(cls.key)
        return f"{names[0]}/data/*.parquet" if names else ""

    def sources(self, split: str) -> list[Path]:
        return list(self.files.values())

    def read(self, split: str) -> AnnotationTable:
        """The rows of ``split``, each a ref with its sentences."""
        per_image = self.data.multi_target and split == "train"  # as in the refer layout
        builder = self.data.builder(split, self, "image" if per_image else "ref")
        reader = TargetReader()
        splits: set[str] = set()
        number = 0
        for path in self.files.values():
            for index, row in enumerate(self.data.parse_file(path, _read)):
                splits.add(str(row["split"]))
                if row["split"] != split:
                    continue
                with builder.sample(f"{path}: row {index}", len(list_or_empty(row["sentences"]))):
                    info, annotation = _json(row, "raw_image_info"), _json(row, "raw_anns")
                    width, height = check_size(take(info, "width", int), take(info, "height", int))
                    name = check_name(take(info, "file_name", str))
                    ref_id, image_id = take(row, "ref_id", int), take(row, "image_id", int)
                    if self.data.multi_target and isinstance(annotation, list):
                        objects = [coco_target(one) for one in annotation]
                    else:
                        objects = [{**coco_target(annotation), "ann_id": row["ann_id"]}]
                    targets = reader.gather(objects, width, height)
                    image = ImageRecord(image_id, name, width, height, self.data.source)
                    add_ref(builder, ref_id, image, _sentences(row), targets, image_id if per_image else number)
                    number += 1
        if split not in splits:
            folder = next(iter(self.files.values())).parent
            raise UserError(f"{folder}: no row of split {split!r}; there are: {', '.join(sorted(splits)) or 'none'}")
        return builder.table()


class BenchmarkLayout(Layout):
    """jxu124's ``refcoco-benchmark/data/<set>_<split_by>_<split>-*.parquet``, and ``refclef-benchmark``: one row per
    image {ref_list [{ann_info (COCO's annotation), ref_info (the ref)}], image_info, image (embedded, not read)}.
    Evaluation splits only; ids, boxes and masks are those of the refer layout, category names are not there.
    Name: ``<set>_<split_by>``."""

    key = "benchmark"

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        stem: str = data.layout_names.get(cls.key, "")
        names = ("refclef-benchmark" if stem.startswith("refclef") else "refcoco-benchmark",)
        for folder in folders(data.data_root, (*names, *(f"jxu124/{name}" for name in names))) if stem else ():
            for place in (folder / "data", folder):
                paths = [path for split in data.splits for path in sorted(place.glob(f"{stem}_{split}-*.parquet"))]
                if paths and set(BENCHMARK_COLUMNS) <= set(parquet_columns(paths[0])):
                    return cls(data, {path.name: path for path in paths})
        return None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        stem = data.layout_names.get(cls.key)
        return f"data/{stem}_SPLIT-*.parquet (evaluation splits)" if stem else ""

    def sources(self, split: str) -> list[Path]:
        stem = f"{self.data.layout_names[self.key]}_{split}-"
        return [path for name, path in self.files.items() if name.startswith(stem)]

    def read(self, split: str) -> AnnotationTable:
        """The refs in the rows of ``split``, each row an image."""
        builder = self.data.builder(split, self)
        reader = TargetReader()
        group = 0
        for path in self.sources(split):
            for index, row in enumerate(read_rows(path, BENCHMARK_COLUMNS)):
                refs = list_or_empty(row["ref_list"])
                count = sum(map(_sentence_count, refs))
                with builder.sample(f"{path}: row {index}", count):
                    image = self._image(row)
                    take(row, "ref_list", list)
                    for number, entry in enumerate(refs):
                        with builder.sample(f"{path}: row {index}, ref_list[{number}]", _sentence_count(entry)):
                            ref, annotation = _checked_ref(entry, image.id)
                            targets = reader.gather([coco_target(annotation)], image.width, image.height)
                            ref_id = take(ref, "ref_id", int)
                            add_ref(builder, ref_id, image, _sentences(ref), targets, group)
                            group += 1
        return builder.table()

    def _image(self, row: dict[str, Any]) -> ImageRecord:
        info = take(row, "image_info", dict)
        image_id, name = take(info, "id", int), check_name(take(info, "file_name", str))
        width, height = check_size(take(info, "width", int), take(info, "height", int))
        return ImageRecord(image_id, name, width, height, self.data.source)


def _checked_ref(entry: Any, image_id: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(ref, its annotation) of an entry of ``ref_list``, which belong together and to the image."""
    ref, annotation = take(entry, "ref_info", dict), take(entry, "ann_info", dict)
    ann_id = take(ref, "ann_id", (int, str))
    for record, key, expected in (
        (ref, "image_id", image_id),
        (annotation, "image_id", image_id),
        (annotation, "id", ann_id),
    ):
        if take(record, key, (int, str)) != expected:
            raise BadSample(f"{key!r} that is not the ref's", f"{record[key]!r}, not {expected!r}")
    return ref, annotation


def _sentences(ref: Any) -> list[tuple[str, int]]:
    """(text, sent_id) of each sentence of a ref."""
    return [(expression_of(s), take(s, "sent_id", int)) for s in take(ref, "sentences", list)]


def _sentence_count(entry: Any) -> int:
    ref = entry.get("ref_info") if isinstance(entry, dict) else None
    return len(list_or_empty(ref.get("sentences"))) if isinstance(ref, dict) else 0


def _read(path: Path) -> list[dict[str, Any]]:
    return read_rows(path, COLUMNS)


def _json(row: dict[str, Any], key: str) -> Any:
    text = take(row, key, str)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSample(f"{key!r} is not valid JSON", str(error)) from None


def write_hub(tables: Tables, names: DatasetNames) -> Contents:
    """A parquet file per split, with the columns of the hub's files that are read here and by others."""
    (_, instances), (_, refs) = write_refer(tables, names)
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


HUB = Writer("hub", write_hub, single_box=True)
