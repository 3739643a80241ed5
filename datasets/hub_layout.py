"""The parquet files that jxu124 publishes on the Hugging Face hub: one row per ref, its originals as JSON texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet

from vgbench.dataset import BadSample, check_name, check_size, take
from vgbench.datasets.layout import Layout, LayoutDataset, TargetReader, expression_of, folders
from vgbench.errors import UserError
from vgbench.table import AnnotationTable

_T = TypeVar("_T")

COLUMNS = ["split", "ref_id", "ann_id", "image_id", "sentences", "raw_anns", "raw_image_info"]


class HubLayout(Layout):
    """``<name>/data/*.parquet`` with a column ``split`` (its values are the original names: what the hub calls test
    is testA). Boxes are taken from ``raw_anns``: the card does not say which format the column ``bbox`` has."""

    key = "hub"

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        for folder in folders(data.data_root, data.files.hub) if data.files.hub else ():
            for place in (folder / "data", folder):
                paths = sorted(place.glob("*.parquet"))
                if paths and set(COLUMNS) <= set(_schema(paths[0])):
                    return cls(data, {path.name: path for path in paths})
        return None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        return f"{data.files.hub[0]}/data/*.parquet" if data.files.hub else ""

    def sources(self, split: str) -> list[Path]:
        return list(self.files.values())

    def read(self, split: str) -> AnnotationTable:
        builder = self.data.builder(split, self)
        reader = TargetReader()
        names: set[str] = set()
        number = 0
        for path in self.files.values():
            for index, row in enumerate(self.data.parse_file(path, _read)):
                names.add(str(row["split"]))
                if row["split"] != split:
                    continue
                try:
                    info, annotation = _json(row, "raw_image_info"), _json(row, "raw_anns")
                    width, height = check_size(take(info, "width", int), take(info, "height", int))
                    name = check_name(take(info, "file_name", str))
                    ref_id, image_id = take(row, "ref_id", int), take(row, "image_id", int)
                    target = {
                        "box": take(annotation, "bbox", list),
                        "segmentation": annotation.get("segmentation"),
                        "ann_id": row["ann_id"],
                    }
                    found = reader.gather([target], width, height)
                    sentences = [(expression_of(s), take(s, "sent_id", int)) for s in take(row, "sentences", list)]
                except BadSample as error:
                    builder.skip(f"{path}: row {index}", error, max(len(_list(row["sentences"])), 1))
                    continue
                for text, sent_id in sentences:
                    builder.add(
                        key=f"{ref_id}.{sent_id}",
                        image_id=image_id,
                        image=name,
                        width=width,
                        height=height,
                        expression=text,
                        ref_id=ref_id,
                        sent_id=sent_id,
                        group=number,
                        source=self.data.source,
                        **vars(found),
                    )
                number += 1
        if split not in names:
            there = ", ".join(sorted(names)) or "none"
            raise UserError(f"{next(iter(self.files.values())).parent}: no row of split {split!r}; there are: {there}")
        return builder.table()


def _schema(path: Path) -> list[str]:
    return _parquet(path, lambda: pa.parquet.read_schema(path).names)


def _read(path: Path) -> list[dict[str, Any]]:
    return _parquet(path, lambda: pa.parquet.read_table(path, columns=COLUMNS).to_pylist())


def _parquet(path: Path, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except (OSError, pa.ArrowException, ValueError) as error:
        raise UserError(f"{path}: not a readable parquet file ({' '.join(str(error).split())[:200]})") from None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _json(row: dict[str, Any], key: str) -> Any:
    text = take(row, key, str)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSample(f"{key!r} is not valid JSON", str(error)) from None
