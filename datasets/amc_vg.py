"""Visual Genome phrases: the training lists of AMC, and Visual Genome's own region descriptions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image as PILImage

from vgbench.dataset import (
    BadSample,
    Counts,
    GroundingData,
    TableBuilder,
    check_box,
    check_name,
    check_size,
    take,
)
from vgbench.datasets.layout import expression_of
from vgbench.datasets.mixed import evaluation_images
from vgbench.errors import UserError
from vgbench.table import AnnotationTable

__all__ = ["AMCVisualGenome", "VisualGenomeRegions"]

IMAGE_DATA = "image_data.json"


class VGImage(NamedTuple):
    """An entry of Visual Genome's ``image_data.json``; ``name`` is the path below the image root."""

    name: str
    width: int
    height: int
    coco_id: int | None


class _VisualGenome(GroundingData):
    """What both readers share: the images and their sizes.

    Args:
        exclude_eval_images: leave out images that are COCO images of the evaluation splits of RefCOCO, RefCOCO+ and
            RefCOCOg (needs ``image_data.json``).
        val_images: the expressions of so many images (those with the smallest ids) form the split ``val``, a progress
            curve for training. They are in ``train`` too: the official training holds nothing back.
        options: see :class:`~vgbench.dataset.GroundingData`.
    """

    tasks = ("rec",)
    licence = "CC BY 4.0"
    homepage = "https://homes.cs.washington.edu/~ranjay/visualgenome"
    splits: ClassVar[Mapping[str, Counts]] = {"train": Counts(), "val": Counts()}
    disjoint = False
    image_folders = ("images", "visual-genome", "VG", "vg", "data/images", ".")
    image_names = ("VG_100K/{:d}.jpg", "VG_100K_2/{:d}.jpg", "images/{:d}.jpg", "{:d}.jpg")

    def __init__(self, *args: Any, exclude_eval_images: bool = False, val_images: int = 1000, **options: Any) -> None:
        super().__init__(*args, **options)
        self.exclude_eval_images = exclude_eval_images
        self.val_images = val_images

    def options(self) -> dict[str, Any]:
        return {"exclude_eval_images": self.exclude_eval_images, "val_images": self.val_images}

    def image_data(self) -> dict[int, VGImage] | None:
        """``image_data.json`` by image id, None if it is not there.

        Raises:
            UserError: if it is damaged, or needed and not there.
        """
        path = self.data_root / IMAGE_DATA
        if not path.is_file():
            if self.exclude_eval_images:
                raise self.missing(f"no {IMAGE_DATA}, which exclude_eval_images=true needs")
            return None
        images = {}
        try:
            for record in self.parse_file(path):
                width, height = check_size(take(record, "width", int), take(record, "height", int))
                number, coco_id = take(record, "image_id", int), record.get("coco_id")
                name = check_name("/".join(take(record, "url", str).split("/")[-2:]))
                images[number] = VGImage(name, width, height, coco_id)
        except (BadSample, TypeError) as error:
            raise UserError(f"{path}: not Visual Genome's list of images ({error}); download it again") from None
        return images

    def build(
        self, split: str, entries: Callable[[TableBuilder, dict[int, VGImage] | None, frozenset[int]], None]
    ) -> AnnotationTable:
        """Let ``entries(builder, images, ids of images to leave out)`` fill a table."""
        builder = TableBuilder(self.name, self.check_split(split), "rec", group_unit="ref")
        images = self.image_data()
        excluded: frozenset[int] = frozenset()
        if self.exclude_eval_images and images is not None:
            coco = evaluation_images()
            excluded = frozenset(number for number, image in images.items() if image.coco_id in coco)
        with self.one_pass():
            entries(builder, images, excluded)
        table = builder.table()
        if split == "train":
            return table
        ids = table.column("image_id")
        return table.take(np.flatnonzero(np.isin(ids, np.unique(ids)[: self.val_images])))


class AMCVisualGenome(_VisualGenome):
    """The training lists of AMC: phrases and attributes of Visual Genome with all boxes that each may mean.

    A list is JSON, entries ``{"image": path below the image root, "caption": text or list of texts, "bbox": list of
    [x1, y1, x2, y2]}``. A row is one caption, its group the entry (``recipe.sampling=object`` draws a caption per
    entry, as the official code does); ``boxes`` are the alternatives of which AMC draws one per sample. Boxes are
    taken as they are, even without area: the official code trains on such captions too.
    """

    name = "amc_vg"
    title = "Visual Genome lists of AMC"
    lists: ClassVar[tuple[str, ...]] = ("vg_descriptions", "vg_attributes_spatial", "vg_attributes")

    def expected_files(self) -> list[str]:
        return [f"one or more of {', '.join(f'{name}.json' for name in self.lists)} (and {IMAGE_DATA}, optional)"]

    def sources(self, split: str) -> list[Path]:
        self.check_split(split)
        found = [path for name in self.lists if (path := self.data_root / f"{name}.json").is_file()]
        if not found:
            raise self.missing()
        return [*found, *(path for path in (self.data_root / IMAGE_DATA,) if path.is_file())]

    def read(self, split: str) -> AnnotationTable:
        return self.build(split, self._read_lists)

    def _read_lists(self, builder: TableBuilder, images: dict[int, VGImage] | None, excluded: frozenset[int]) -> None:
        group = 0
        ids: dict[str, tuple[int, int, int]] = {}
        left_out = 0
        for path in self.sources(builder.split):
            if path.name == IMAGE_DATA:
                continue
            entries = self.parse_file(path)
            if not isinstance(entries, list):
                raise UserError(f"{path}: holds a {type(entries).__name__}, expected a list of entries")
            for index, entry in enumerate(entries):
                try:
                    name = check_name(take(entry, "image", str))
                    if name not in ids:
                        ids[name] = self._identify(name, images)
                    image_id, width, height = ids[name]
                    if image_id in excluded:
                        left_out += 1
                        continue
                    boxes = _boxes(take(entry, "bbox", list))
                    captions = take(entry, "caption", (str, list))
                    texts = [expression_of(text) for text in ([captions] if isinstance(captions, str) else captions)]
                    if not texts:
                        raise BadSample("entry without a caption")
                except BadSample as error:
                    builder.skip(f"{path}: [{index}]", error)
                    continue
                for number, text in enumerate(texts):
                    builder.add(
                        key=f"{path.stem}.{index}.{number}",
                        image_id=image_id,
                        image=name,
                        width=width,
                        height=height,
                        expression=text,
                        boxes=boxes,
                        group=group,
                        source="vg",
                    )
                group += 1
        if left_out:
            builder.notes.append(f"{left_out:,} entries left out: their images are evaluation images")

    def _identify(self, name: str, images: dict[int, VGImage] | None) -> tuple[int, int, int]:
        """(image id, width, height) of an image, from ``image_data.json`` or else from the image file itself."""
        stem = name.rsplit("/", 1)[-1].split(".")[0]
        if not stem.isdecimal():
            raise BadSample("image name that is not a Visual Genome number", repr(name)[:80])
        number = int(stem)
        if images is not None and number in images:
            return number, images[number].width, images[number].height
        path = self.image_path(name)
        try:
            with PILImage.open(path) as image:
                return number, *check_size(*image.size)
        except (OSError, PILImage.DecompressionBombError) as error:
            raise BadSample("image whose size cannot be read", f"{path}: {error}") from None


class VisualGenomeRegions(_VisualGenome):
    """Visual Genome's region descriptions (Krishna et al., IJCV 2017): one box per phrase.

    Files: ``region_descriptions.json`` (a list of ``{"id": image id, "regions": [{"region_id", "phrase", "x", "y",
    "width", "height"}]}``) and ``image_data.json``.
    """

    name = "vg_regions"
    title = "Visual Genome regions"

    def expected_files(self) -> list[str]:
        return [f"region_descriptions.json and {IMAGE_DATA}"]

    def sources(self, split: str) -> list[Path]:
        self.check_split(split)
        files = [self.data_root / name for name in ("region_descriptions.json", IMAGE_DATA)]
        if not all(path.is_file() for path in files):
            raise self.missing()
        return files

    def read(self, split: str) -> AnnotationTable:
        return self.build(split, self._read_regions)

    def _read_regions(self, builder: TableBuilder, images: dict[int, VGImage] | None, excluded: frozenset[int]) -> None:
        path = self.sources(builder.split)[0]
        assert images is not None  # sources() has seen the file
        entries = self.parse_file(path)
        if not isinstance(entries, list):
            raise UserError(f"{path}: holds a {type(entries).__name__}, expected a list of images")
        for index, entry in enumerate(entries):
            try:
                number, regions = take(entry, "id", int), take(entry, "regions", list)
                if number not in images:
                    raise BadSample(f"image that {IMAGE_DATA} does not have", str(number))
            except BadSample as error:
                builder.skip(f"{path}: [{index}]", error)
                continue
            if number in excluded:
                continue
            image = images[number]
            for place, region in enumerate(regions):
                try:
                    region_id = take(region, "region_id", int)
                    text = expression_of(take(region, "phrase", str))
                    sides = [take(region, key, (int, float)) for key in ("x", "y", "width", "height")]
                    box = check_box(sides, image.width, image.height, key="region")
                except BadSample as error:
                    builder.skip(f"{path}: [{index}].regions[{place}]", error)
                    continue
                builder.add(
                    key=f"vg.{region_id}",
                    image_id=number,
                    image=image.name,
                    width=image.width,
                    height=image.height,
                    expression=text,
                    boxes=[box],
                    group=region_id,
                    source="vg",
                )
        if excluded:
            builder.notes.append(f"{len(excluded):,} images left out: they are evaluation images")


def _boxes(value: list[Any]) -> list[list[float]]:
    """One box, or a list of boxes, xyxy -> a list of boxes of finite numbers."""
    candidates: Iterable[Any] = [value] if value and not isinstance(value[0], list) else value
    boxes = []
    for box in candidates:
        if not isinstance(box, list) or len(box) != 4:
            raise BadSample("'bbox' is not a list of boxes of four numbers", repr(box)[:80])
        if any(isinstance(v, bool) or not isinstance(v, (int, float)) or not math.isfinite(v) for v in box):
            raise BadSample("'bbox' has a value that is not a finite number", repr(box)[:80])
        boxes.append([float(v) for v in box])
    return boxes
