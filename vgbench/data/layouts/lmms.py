"""The parquet files of lmms-lab on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError
from vgbench.data.builder import ImageRecord
from vgbench.data.checks import BadSample, check_name, shown, take
from vgbench.data.layouts.base import Layout, LayoutDataset, folders
from vgbench.data.layouts.parquet import embedded_size, list_or_empty, parquet_columns, read_rows
from vgbench.data.layouts.targets import TargetReader, expression_of
from vgbench.data.table import AnnotationTable

LMMS_COLUMNS = ["image", "answer", "bbox", "file_name"]
REF_FILE = re.compile(r"(COCO_train2014_(\d{12}))(?:_(\d{1,18}))?\.jpg")


@dataclass(frozen=True)
class LmmsNames:
    """What a dataset is called at lmms-lab: its folders; and which splits mix its own with those of another author, and
    with how many rows of each (in words)."""

    folders: tuple[str, ...]
    of_two_authors: Mapping[str, str] = field(default_factory=dict)


class LmmsLayout(Layout):
    """lmms-lab's ``<name>/data/<split>-*.parquet``: one row per object, {answer (all sentences), bbox xywh, file_name
    (with suffix), image (embedded)}. Some of its splits mix two authors' splits, and those are refused: a number on
    them is no number of the dataset."""

    key = "lmms"

    @classmethod
    def folder_names(cls, names: LmmsNames) -> tuple[str, ...]:
        return names.folders

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        names: LmmsNames | None = data.layout_names.get(cls.key)
        for folder in () if names is None else folders(data.data_root, names.folders):
            for place in (folder / "data", folder):
                paths = {path.name: path for split in data.splits for path in sorted(place.glob(f"{split}-*.parquet"))}
                if paths and set(LMMS_COLUMNS) <= set(parquet_columns(next(iter(paths.values())))):
                    return cls(data, paths)
        return None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        names: LmmsNames | None = data.layout_names.get(cls.key)
        return "" if names is None else f"{names.folders[0]}/data/SPLIT-*.parquet (evaluation splits, boxes only)"

    def sources(self, split: str) -> list[Path]:
        return [path for name, path in self.files.items() if name.startswith(f"{split}-")]

    def read(self, split: str) -> AnnotationTable:
        """The rows of ``split``, each an object with its expressions; raises UserError if they are of two authors."""
        names: LmmsNames = self.data.layout_names[self.key]
        if split in names.of_two_authors:
            raise UserError(
                f"{self.sources(split)[0]}: lmms-lab's {split} of {self.data.title} mixes splits of two authors "
                f"({names.of_two_authors[split]}), and no column tells which row is whose; take another layout"
            )
        builder = self.data.builder(split, self)
        reader = TargetReader()
        group = 0
        for path in self.sources(split):
            for index, row in enumerate(read_rows(path, LMMS_COLUMNS)):
                with builder.sample(f"{path}: row {index}", len(list_or_empty(row["answer"]))):
                    image, target = self._object(row)
                    targets = reader.gather([target], image.width, image.height)
                    texts = [expression_of(text) for text in take(row, "answer", list)]
                    for number, text in enumerate(texts):
                        builder.add(f"{split}.{group}.{number}", image, text, targets, group)
                    group += 1
        return builder.table()

    def _object(self, row: dict[str, Any]) -> tuple[ImageRecord, dict[str, Any]]:
        """(image, target for :meth:`TargetReader.gather`) of a row."""
        name = check_name(take(row, "file_name", str))
        parts = REF_FILE.fullmatch(name)
        if parts is None:
            raise BadSample("file_name that is not COCO_train2014_<12 digits>[_<n>].jpg", shown(name))
        content = row["image"]
        width, height = embedded_size(content.get("bytes") if isinstance(content, dict) else None)
        target: dict[str, Any] = {"box": take(row, "bbox", list)}
        if self.data.file_suffix_is_ann_id and parts[3] is not None:
            target["ann_id"] = int(parts[3])
        return ImageRecord(int(parts[2]), f"{parts[1]}.jpg", width, height, self.data.source), target
