"""RefCOCO-M: RefCOCO's unc validation split with masks drawn anew (moondream)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgbench.data.builder import ImageRecord, TableBuilder
from vgbench.data.checks import BadSample, four_numbers, shown, take
from vgbench.data.dataset import Counts, GroundingData
from vgbench.data.layouts.parquet import has_columns, read_rows
from vgbench.data.layouts.targets import TargetReader, expression_of
from vgbench.data.table import AnnotationTable
from vgbench.datasets.refer import COCO_FOLDERS

__all__ = ["RefCOCOM"]

COLUMNS = ["image_id", "samples"]


class RefCOCOM(GroundingData):
    """``data/validation-*.parquet``: per image its objects {id, category, sentences, bbox xywh, mask (COCO RLE)}.

    A second ground truth for RES: the expressions and images are those of RefCOCO val, about half of its objects are
    left out because no good mask was found. Images are the COCO files, not the copies inside the parquet files.
    """

    name = "refcoco-m"
    title = "RefCOCO-M"
    tasks = ("rec", "res")
    licence = "MIT; images: Flickr terms"
    homepage = "https://huggingface.co/datasets/moondream/refcoco-m"
    splits: Mapping[str, Counts] = {"val": Counts(1_190, 2_080, 5_598)}
    image_folders = COCO_FOLDERS

    def expected_files(self) -> list[str]:
        return ["refcoco-m/data/validation-*.parquet"]

    def sources(self, split: str) -> list[Path]:
        self.check_split(split)
        folders = ("refcoco-m/data", "moondream/refcoco-m/data", "refcoco-m", "data", ".")
        return self.first_files(["validation-*.parquet"], folders, fits=lambda path: has_columns(path, COLUMNS))

    def read(self, split: str) -> AnnotationTable:
        """The objects of every image with their sentences; an object is a group."""
        builder = TableBuilder(self.name, split, "rec")
        reader = TargetReader()
        group = 0
        for path in self.sources(split):
            for index, row in enumerate(read_rows(path, COLUMNS)):
                for place, sample in enumerate(row["samples"] if isinstance(row["samples"], list) else [None]):
                    sentences = sample.get("sentences") if isinstance(sample, dict) else None
                    count = len(sentences) if isinstance(sentences, list) else 1
                    with builder.sample(f"{path}: row {index}, sample {place}", count):
                        texts = take(sample, "sentences", list)
                        image_id, number = take(row, "image_id", int), take(sample, "id", int)
                        target, (height, width) = _target(sample)
                        targets = reader.gather([target], width, height)
                        image = ImageRecord(image_id, f"COCO_train2014_{image_id:012d}.jpg", width, height, "coco")
                        for position, text in enumerate([expression_of(text) for text in texts]):
                            builder.add(f"{number}.{position}", image, text, targets, group)
                        group += 1
        return builder.table()


def _target(sample: Any) -> tuple[dict[str, Any], tuple[int, int]]:
    """(target for :meth:`TargetReader.gather`, size [height, width] of its mask) of an object."""
    mask = take(sample, "mask", dict)
    size = take(mask, "size", list)
    if len(size) != 2 or not all(isinstance(side, int) and 0 < side < 65_536 for side in size):
        raise BadSample("RLE without a size [height, width]", shown(size))
    box = [round(v, 2) for v in four_numbers(take(sample, "bbox", list))]  # float32 in the file
    return {"box": box, "segmentation": mask, "category": take(sample, "category", str)}, (size[0], size[1])
