"""GroundingME: four kinds of difficulty, one of them that nothing fits (Li et al., arXiv 2512.17495)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgbench.data.builder import ImageRecord, SentenceIds, TableBuilder, Targets
from vgbench.data.checks import BadSample, check_box, check_size, shown, take
from vgbench.data.dataset import Counts
from vgbench.data.layouts.contained import ContainedImages
from vgbench.data.layouts.parquet import read_rows
from vgbench.data.layouts.targets import expression_of
from vgbench.data.table import AnnotationTable

__all__ = ["GroundingME"]

COLUMNS = ["id", "description", "bbox", "subtask_l1", "subtask_l2", "width", "height"]
KINDS = ("Discriminative", "Spatial", "Limited", "Rejection")
FOLDERS = ("data", "GroundingME/data", "lirang04/GroundingME/data", ".", "GroundingME")


class GroundingME(ContainedImages):
    """``test-*.parquet``: {id, description, image, bbox xyxy in pixels, subtask_l1, subtask_l2, width, height}.

    The images are in the files; they are written into the cache folder when the first is asked for. Fields: the card of
    the dataset on the Hub (lirang04/GroundingME) and https://github.com/lirang04/GroundingME (``evaluate.py``, which
    takes ``bbox`` of a rejection for nothing).
    """

    name = "groundingme"
    title = "GroundingME"
    tasks = ("grec",)
    licence = "research only; images: terms of SA-1B and HR-Bench"
    homepage = "https://github.com/lirang04/GroundingME"
    splits: Mapping[str, Counts] = {"test": Counts(None, None, 1_005)}
    version = 2
    own_metrics = ("grec/single",)

    image_key = "id"

    def image_name(self, row: dict[str, Any]) -> str | None:
        """Numbers, whatever the file inside was called."""
        return f"{row['id']}.jpg" if isinstance(row["id"], int) else None

    def expected_files(self) -> list[str]:
        return ["test-*.parquet (also in data/, GroundingME/ or GroundingME/data/)"]

    def sources(self, split: str) -> list[Path]:
        self.check_split(split)
        return self.first_files([f"{split}-*.parquet"], FOLDERS, f"{split}-*.parquet is not there")

    def read(self, split: str) -> AnnotationTable:
        """The descriptions; the kind of difficulty (``subtask_l1/subtask_l2``) is the category of a target. Kinds:
        "subtask" and "subtask in detail"."""
        builder = TableBuilder(self.name, split, "grec", "expression")
        for path in self.sources(split):
            for index, row in enumerate(read_rows(path, COLUMNS)):
                with builder.sample(f"{path}: row {index}"):
                    number, kind = take(row, "id", int), take(row, "subtask_l1", str)
                    if kind not in KINDS:
                        raise BadSample("unknown 'subtask_l1'", f"{shown(kind)}; there are {', '.join(KINDS)}")
                    width, height = check_size(take(row, "width", int), take(row, "height", int))
                    category = "/".join(filter(None, (kind, row["subtask_l2"])))
                    box = None if kind == "Rejection" else check_box(take(row, "bbox", list), width, height, "xyxy")
                    targets = Targets([]) if box is None else Targets([box], categories=[category])
                    record = ImageRecord(number, f"{number}.jpg", width, height, "groundingme")
                    text = expression_of(row["description"])
                    key = builder.add(str(number), record, text, targets, number, SentenceIds(sent_id=number))
                    builder.classify(key, "subtask", kind)
                    if row["subtask_l2"]:
                        builder.classify(key, "subtask in detail", category)
        return builder.table()
