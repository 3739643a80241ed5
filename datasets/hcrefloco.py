"""HC-RefLoCo: long expressions of people (Wei et al., 2024); the files of their release on the Hub."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgbench.data.builder import ImageRecord, SentenceIds, TableBuilder, Targets
from vgbench.data.checks import check_box, check_name, check_size, take
from vgbench.data.dataset import Counts, GroundingData
from vgbench.data.layouts.parquet import list_or_empty, parquet_columns, read_rows
from vgbench.data.layouts.targets import expression_of, number_in
from vgbench.data.table import AnnotationTable

__all__ = ["HCRefLoCo"]

COLUMNS = ["id", "file_name", "width", "height", "caption", "bbox"]
LABELS = "labels"  # what an expression speaks of: [{category, ...}]; averages by subject need it, nothing else does
SUBJECTS = ("Appearance", "Human-Object Interaction", "Celebrity", "OCR", "Action", "Location")
FOLDERS = (".", "data", "HC-RefLoCo", "HC-RefLoCo/data", "Jinjing713/HC-RefLoCo", "Jinjing713/HC-RefLoCo/data")


class HCRefLoCo(GroundingData):
    """Parquet files of val and test, one row per expression, box xywh in pixels.

    Fields as the authors read them: https://github.com/ZhaoJingjing713/HC-RefLoCo (``hc_refloco``).
    """

    name = "hc-refloco"
    title = "HC-RefLoCo"
    tasks = ("rec",)
    licence = "CC BY-NC 4.0; images: terms of COCO, Objects365, OpenImages and LAION"
    homepage = "https://github.com/ZhaoJingjing713/HC-RefLoCo"
    splits: Mapping[str, Counts] = {"val": Counts(), "test": Counts()}
    disjoint = False  # by expression
    version = 2
    own_metrics = ("rec/macc",)
    image_folders = ("HC-RefLoCo/images", "images/hc-refloco", "images")
    image_names = ()

    def expected_files(self) -> list[str]:
        return ["val-*.parquet and test-*.parquet (also in HC-RefLoCo/, data/ or HC-RefLoCo/data/)"]

    def sources(self, split: str) -> list[Path]:
        self.check_split(split)
        patterns = [f"{split}-*.parquet", f"hc_refloco_{split}*.parquet"]
        return self.first_files(patterns, FOLDERS, f"{split}-*.parquet is not there")

    def read(self, split: str) -> AnnotationTable:
        """The captions of ``split``; those of one image and box are a group. Kinds: "person size" and, of every
        subject, whether the caption speaks of it."""
        builder = TableBuilder(self.name, split, "rec")
        groups: dict[tuple[str, tuple[float, ...]], int] = {}
        for path in self.sources(split):
            labelled = LABELS in parquet_columns(path)
            for index, row in enumerate(read_rows(path, [*COLUMNS, LABELS] if labelled else COLUMNS)):
                with builder.sample(f"{path}: row {index}"):
                    width, height = check_size(take(row, "width", int), take(row, "height", int))
                    box = check_box(take(row, "bbox", list), width, height)
                    image, key = check_name(take(row, "file_name", str)), take(row, "id", str)
                    group = groups.setdefault((image, tuple(box)), len(groups))
                    record = ImageRecord(number_in(image), image, width, height, "hc-refloco")
                    ids = SentenceIds(sent_id=number_in(key))
                    added = builder.add(key, record, expression_of(row["caption"]), Targets([box]), group, ids)
                    builder.classify(added, "person size", _size(box))
                    for subject, mention in _mentions(row[LABELS]).items() if labelled else ():
                        builder.classify(added, f"subject: {subject}", mention)
        return builder.table()


def _size(box: list[float]) -> str:
    """By the side of a square of the same area, as the authors' evaluator has it."""
    side = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    return "small (< 128)" if side < 128 else "medium (< 256)" if side < 256 else "large"


def _mentions(labels: Any) -> dict[str, str]:
    """Subject -> "with" or "without"."""
    named = {label.get("category") for label in list_or_empty(labels) if isinstance(label, dict)}
    return {subject: "with" if subject in named else "without" for subject in SUBJECTS}
