"""The smallest dataset: a CSV file with columns image, width, height, x1, y1, x2, y2, text."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from vgbench import AnnotationTable, Counts, GroundingData, ImageRecord, TableBuilder, Targets
from vgbench.data.checks import check_box, check_name


class Pets(GroundingData):
    """Three expressions about two photographs."""

    name = "pets"
    title = "Pets"
    tasks = ("rec",)
    licence = "CC0"
    homepage = "https://example.org/pets"
    splits: Mapping[str, Counts] = {"test": Counts(images=2, expressions=3)}
    image_folders = ("photos",)

    def expected_files(self) -> list[str]:
        return ["pets.csv", "photos/*.png"]

    def sources(self, split: str) -> list[Path]:
        path = self.data_root / "pets.csv"
        if not path.is_file():
            raise self.missing()
        return [path]

    def read(self, split: str) -> AnnotationTable:
        (path,) = self.sources(split)
        builder = TableBuilder(self.name, split, "rec", "expression")
        with path.open(newline="") as file:
            for number, line in enumerate(csv.DictReader(file)):
                width, height = int(line["width"]), int(line["height"])
                with builder.sample(f"{path}: line {number + 2}"):
                    box = check_box([float(line[name]) for name in ("x1", "y1", "x2", "y2")], width, height, "xyxy")
                    image = ImageRecord(number, check_name(line["image"]), width, height, "pets")
                    builder.add(str(number), image, line["text"], Targets([box]), group=number)
        return builder.table()
