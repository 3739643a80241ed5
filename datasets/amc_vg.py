"""The training lists of AMC: phrases and attributes of Visual Genome with all boxes that each may mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vgbench.core.errors import UserError
from vgbench.data.builder import ImageRecord, TableBuilder, Targets
from vgbench.data.checks import BadSample, check_name, check_size, four_numbers, shown, take
from vgbench.data.dataset import Counts, GroundingData
from vgbench.data.layouts.targets import expression_of
from vgbench.data.table import AnnotationTable
from vgbench.datasets.vg import coco_aliases, evaluation_images, read_image_data

__all__ = ["AMCVisualGenome"]

LISTS = ("vg_descriptions", "vg_attributes_spatial", "vg_attributes")
IMAGE_DATA = "image_data.json"


class AMCVisualGenome(GroundingData):
    """JSON lists of ``{"image": path, "caption": text or list of texts, "bbox": list of [x1, y1, x2, y2]}``.

    A row is one caption, its group the entry (``recipe.sampling=object`` draws a caption per entry, as the official
    code does); ``boxes`` are the alternatives of which AMC draws one per sample. Boxes are taken as they are, even
    without area: the official code trains on such captions too.

    Args:
        exclude_eval_images: leave out the images that are images of the RefCOCO family's evaluation splits (needs
            Visual Genome's ``image_data.json`` beside the lists). The official code does not.
        val_images: the expressions of so many images (those with the smallest ids) form the split ``val``, a progress
            curve for training. They are in ``train`` too: the official training holds nothing back.
        options: see :class:`~vgbench.data.dataset.GroundingData`.
    """

    name = "amc_vg"
    title = "Visual Genome lists of AMC"
    tasks = ("rec",)
    licence = "annotations of Visual Genome: CC BY 4.0; images: Flickr terms"
    homepage = "https://github.com/uvavision/AMC-grounding"
    splits: Mapping[str, Counts] = {"train": Counts(), "val": Counts()}
    disjoint = False
    version = 2
    image_folders = ("images/visual-genome", "visual-genome", "images/vg", "vg", "images", ".")
    image_names = ("VG_100K/{:d}.jpg", "VG_100K_2/{:d}.jpg", "{:d}.jpg")

    def __init__(
        self,
        data_root: str | Path | None = None,
        *,
        exclude_eval_images: bool = False,
        val_images: int = 1000,
        **options: Any,
    ) -> None:
        super().__init__(data_root, **options)
        self.exclude_eval_images = exclude_eval_images
        self.val_images = val_images

    def options(self) -> dict[str, Any]:
        return {"exclude_eval_images": self.exclude_eval_images, "val_images": self.val_images}

    def image_aliases(self) -> Mapping[tuple[str, int], tuple[str, int]]:
        images = self.data_root / IMAGE_DATA
        return coco_aliases(images) if images.is_file() else {}

    def expected_files(self) -> list[str]:
        return [f"one or more of {', '.join(f'{name}.json' for name in LISTS)} (and {IMAGE_DATA}, optional)"]

    def sources(self, split: str) -> list[Path]:
        self.check_split(split)
        lists = [path for name in LISTS if (path := self.data_root / f"{name}.json").is_file()]
        if not lists:
            raise self.missing()
        images = self.data_root / IMAGE_DATA
        if self.exclude_eval_images and not images.is_file():
            raise self.missing(f"{IMAGE_DATA}, which exclude_eval_images=true needs, is not there")
        return [*lists, images] if images.is_file() else lists

    def read(self, split: str) -> AnnotationTable:
        """The captions of all lists, an entry's as a group; for ``val`` those of the first images."""
        builder = TableBuilder(self.name, split, "rec")
        paths = self.sources(split)
        image_data = read_image_data(paths.pop()) if paths[-1].name == IMAGE_DATA else {}
        evaluated = evaluation_images() if self.exclude_eval_images else frozenset()
        excluded = {number for number, image in image_data.items() if image.get("coco_id") in evaluated}
        images: dict[str, ImageRecord] = {}
        group = excluded_entries = 0
        for path in paths:
            entries = self.parse_file(path)
            if not isinstance(entries, list):
                raise UserError(f"{path}: holds a {type(entries).__name__}, expected a list of entries")
            for index, entry in enumerate(entries):
                captions = entry.get("caption") if isinstance(entry, dict) else None
                with builder.sample(f"{path}: [{index}]", len(captions) if isinstance(captions, list) else 1):
                    name = check_name(take(entry, "image", str))
                    if name not in images:
                        images[name] = self._identify(name, image_data)
                    if images[name].id in excluded:
                        excluded_entries += 1
                        continue
                    targets = Targets(_boxes(take(entry, "bbox", list)))
                    for number, text in enumerate(_captions(entry)):
                        builder.add(f"{path.stem}.{index}.{number}", images[name], text, targets, group)
                    group += 1
        builder.info["excluded_entries"] = excluded_entries
        table = builder.table()
        if split == "train":
            return table
        ids = table.column("image_id")
        return table.take(np.flatnonzero(np.isin(ids, np.unique(ids)[: self.val_images])))

    def _identify(self, name: str, image_data: Mapping[int, Mapping[str, Any]]) -> ImageRecord:
        """An image, its size from ``image_data.json`` or else from the image file itself."""
        stem = name.rsplit("/", 1)[-1].split(".")[0]
        if not stem.isdecimal():
            raise BadSample("image name that is not a Visual Genome number", shown(name))
        number = int(stem)
        if number in image_data:
            record = image_data[number]
            width, height = check_size(take(record, "width", int), take(record, "height", int))
        else:
            width, height = self.image_size(name)
        return ImageRecord(number, name, width, height, "vg")


def _captions(entry: Any) -> list[str]:
    captions = take(entry, "caption", (str, list))
    texts = [expression_of(text) for text in ([captions] if isinstance(captions, str) else captions)]
    if not texts:
        raise BadSample("entry without a caption")
    return texts


def _boxes(value: list[Any]) -> list[list[float]]:
    """One box, or a list of boxes, xyxy -> a list of boxes of finite numbers."""
    boxes = [value] if value and not isinstance(value[0], list) else value
    return [four_numbers(box) for box in boxes]
