"""Ref-L4: long, checked expressions on COCO and Objects365 images (Chen et al., arXiv 2406.16866)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgbench.data.builder import TableBuilder
from vgbench.data.checks import BadSample, check_box, check_name, check_size, take
from vgbench.data.dataset import Counts, GroundingData
from vgbench.data.layouts.parquet import read_rows
from vgbench.data.layouts.targets import expression_of, number_in
from vgbench.data.table import AnnotationTable

__all__ = ["RefL4"]

COLUMNS = ["id", "caption", "bbox", "bbox_id", "ori_category_id", "image_id", "height", "width", "file_name", "split"]


class RefL4(GroundingData):
    """``ref-l4-<split>.parquet``: one row per expression, box xywh in pixels; about half of the captions are rewritten
    versions of another caption of the same box (column ``is_rewrite``), all of them count."""

    name = "ref-l4"
    title = "Ref-L4"
    tasks = ("rec",)
    licence = "CC BY-NC 4.0; images: terms of COCO and Objects365"
    homepage = "https://github.com/JierunChen/Ref-L4"
    splits: Mapping[str, Counts] = {"val": Counts(), "test": Counts()}  # 45,341 expressions together
    disjoint = False  # by expression
    image_folders = ("Ref-L4/images", "images/ref-l4", "images")
    image_names = ()

    def expected_files(self) -> list[str]:
        return ["{ref-l4-val.parquet, ref-l4-test.parquet} (also in Ref-L4/)"]

    def sources(self, split: str) -> list[Path]:
        self.check_split(split)
        for folder in (".", "Ref-L4", "JierunChen/Ref-L4"):
            path = self.data_root / folder / f"ref-l4-{split}.parquet"
            if path.is_file():
                return [path]
        raise self.missing(f"ref-l4-{split}.parquet is not there")

    def read(self, split: str) -> AnnotationTable:
        (path,) = self.sources(split)
        builder = TableBuilder(self.name, split, "rec")
        groups: dict[Any, int] = {}
        for index, row in enumerate(read_rows(path, COLUMNS)):
            try:
                if take(row, "split", str) != split:
                    raise BadSample("row of another split", str(row["split"])[:40])
                width, height = check_size(take(row, "width", int), take(row, "height", int))
                box = check_box(take(row, "bbox", list), width, height)
                text, number = expression_of(row["caption"]), take(row, "id", int)
                image, identity = check_name(take(row, "file_name", str)), take(row, "image_id", str)
                image_id, object_id = number_in(identity), take(row, "bbox_id", str)
                category = take(row, "ori_category_id", str)
            except BadSample as error:
                builder.skip(f"{path}: row {index}", error)
                continue
            builder.add(
                key=str(number),
                image_id=image_id,
                image=image,
                width=width,
                height=height,
                expression=text,
                boxes=[box],
                categories=[category],
                sent_id=number,
                group=groups.setdefault(object_id, len(groups)),
                source="objects365" if identity.startswith("o365") else "coco",
            )
        return builder.table()
