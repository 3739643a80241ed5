"""RefCOCOS: 506 hand-written expressions on COCO val2017 images, some of them for nothing in the image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from vgbench.core.errors import UserError
from vgbench.data.builder import ImageRecord, TableBuilder, Targets
from vgbench.data.checks import BadSample, check_box, check_name, check_size, shown, take
from vgbench.data.dataset import Counts, GroundingData
from vgbench.data.layouts.targets import expression_of
from vgbench.data.table import AnnotationTable

__all__ = ["RefCOCOS"]


class RefCOCOS(GroundingData):
    """A list of {image, height, width, normal_caption, solution (one box xyxy in pixels, or null: no target)}."""

    name = "refcocos"
    title = "RefCOCOS"
    tasks = ("grec",)
    licence = "annotations: MIT; images: Flickr terms"
    homepage = "https://github.com/kuoyang1999/refcocos-annotator"
    splits: Mapping[str, Counts] = {"test": Counts(None, None, 506)}
    image_folders = (
        *("images/mscoco/val2017", "mscoco/images/val2017", "mscoco/val2017", "images/val2017", "coco/val2017"),
        *("val2017", "images/mscoco/val2014", "mscoco/images/val2014", "images/val2014", "coco/val2014", "val2014"),
    )

    def expected_files(self) -> list[str]:
        return ["refcocos_test.json"]

    def sources(self, split: str) -> list[Path]:
        self.check_split(split)
        # the authors' repository has an older, shorter file of the same name at its top
        folders = ("results", "refcocos", ".")
        return [self.first_file("refcocos_test.json", folders)]

    def read(self, split: str) -> AnnotationTable:
        """The expressions in the order of the file; without a solution they have no target."""
        (path,) = self.sources(split)
        entries: Any = self.parse_file(path)
        if not isinstance(entries, list):
            raise UserError(f"{path}: holds a {type(entries).__name__}, expected a list of expressions")
        builder = TableBuilder(self.name, split, "grec", "expression")
        for index, entry in enumerate(entries):
            with builder.sample(f"{path}: [{index}]"):
                image = PurePosixPath(check_name(take(entry, "image", str)))
                if not image.stem.isdecimal() or len(image.stem) > 12:
                    raise BadSample("image name is not a COCO id", shown(str(image)))
                width, height = check_size(take(entry, "width", int), take(entry, "height", int))
                expression = expression_of(take(entry, "normal_caption", str))
                if "solution" not in entry:
                    raise BadSample("no key 'solution'")
                box = entry["solution"]
                boxes = [] if box is None else [check_box(box, width, height, "xyxy", "solution")]
                record = ImageRecord(int(image.stem), image.name, width, height, "coco")
                builder.add(f"{split}.{index}", record, expression, Targets(boxes), index)
        return builder.table()
