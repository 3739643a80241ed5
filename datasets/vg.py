"""Visual Genome region descriptions, a training set; and the images that no training set should share with RefCOCO."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files as resource_files
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError
from vgbench.data.builder import ImageRecord, SentenceIds, TableBuilder, Targets
from vgbench.data.checks import BadSample, check_box, check_size, read_json, take
from vgbench.data.dataset import Counts, GroundingData
from vgbench.data.layouts.targets import expression_of
from vgbench.data.table import AnnotationTable

__all__ = ["VisualGenome", "coco_aliases", "evaluation_images", "read_image_data"]


def evaluation_images() -> frozenset[int]:
    """COCO ids of the 6,549 images in the eight evaluation splits of RefCOCO, RefCOCO+ (unc) and RefCOCOg (umd)."""
    text = resource_files("vgbench.datasets").joinpath("evaluation_images.txt").read_text()
    return frozenset(int(number) for line in text.splitlines() if not line.startswith("#") for number in line.split())


def read_image_data(path: Path) -> dict[int, dict[str, Any]]:
    """Visual Genome's ``image_data.json``: image id -> {width, height, coco_id (or null), ...}.

    Raises:
        UserError: if the file is damaged or something else.
    """
    records = read_json(path)
    if not isinstance(records, list) or not all(
        isinstance(record, dict)
        and isinstance(record.get("image_id"), int)
        and isinstance(record.get("coco_id"), (int, type(None)))
        for record in records
    ):
        raise UserError(f"{path}: expected Visual Genome's list of images with image_id, width, height and coco_id")
    return {record["image_id"]: record for record in records}


def coco_aliases(path: Path) -> dict[tuple[str, int], tuple[str, int]]:
    """Those of Visual Genome's images that are COCO images, about half of them, from ``image_data.json``; see
    :meth:`~vgbench.data.dataset.GroundingData.image_aliases`."""
    return {
        ("vg", number): ("coco", coco)
        for number, image in read_image_data(path).items()
        if (coco := image.get("coco_id")) is not None
    }


class VisualGenome(GroundingData):
    """Region descriptions (Krishna et al., IJCV 2017): ``region_descriptions.json`` and ``image_data.json``.

    There is no official split for grounding; everything is ``train``. Boxes may leave the image by some pixels.

    Args:
        exclude_eval_images: leave out the images that are images of the RefCOCO family's evaluation splits.
        options: see :class:`~vgbench.data.dataset.GroundingData`.
    """

    name = "vg"
    title = "Visual Genome regions"
    tasks = ("rec",)
    licence = "CC BY 4.0 (annotations); images: Flickr terms"
    homepage = "https://homes.cs.washington.edu/~ranjay/visualgenome/"
    splits: Mapping[str, Counts] = {"train": Counts()}
    image_folders = ("images/visual-genome", "visual-genome", "images/vg", "vg", "images", ".")
    image_names = ("VG_100K/{:d}.jpg", "VG_100K_2/{:d}.jpg")

    def __init__(
        self, data_root: str | Path | None = None, *, exclude_eval_images: bool = True, **options: Any
    ) -> None:
        super().__init__(data_root, **options)
        self.exclude_eval_images = exclude_eval_images

    def options(self) -> dict[str, Any]:
        return {"exclude_eval_images": self.exclude_eval_images}

    def image_aliases(self) -> Mapping[tuple[str, int], tuple[str, int]]:
        return coco_aliases(self.sources("train")[1])

    def expected_files(self) -> list[str]:
        return ["{region_descriptions.json, image_data.json}"]

    def sources(self, split: str) -> list[Path]:
        self.check_split(split)
        paths = [self.data_root / name for name in ("region_descriptions.json", "image_data.json")]
        for path in paths:
            if not path.is_file():
                raise self.missing(f"{path.name} is not there")
        return paths

    def read(self, split: str) -> AnnotationTable:
        """All regions of the images that are not left out."""
        regions_path, images_path = self.sources(split)
        images = read_image_data(images_path)
        entries = read_json(regions_path)
        if not isinstance(entries, list):
            raise UserError(f"{regions_path}: holds a {type(entries).__name__}, expected a list of images with regions")
        builder = TableBuilder(self.name, split, "rec")
        evaluated = evaluation_images() if self.exclude_eval_images else frozenset()
        excluded_images: set[int] = set()
        for index, entry in enumerate(entries):
            with builder.sample(f"{regions_path}: [{index}]"):
                image_id = take(entry, "id", int)
                record = images.get(image_id)
                if record is None:
                    raise BadSample("image that image_data.json does not have", f"id {image_id}")
                if record.get("coco_id") in evaluated:
                    excluded_images.add(image_id)
                    continue
                width, height = check_size(take(record, "width", int), take(record, "height", int))
                image = ImageRecord(image_id, f"{image_id}.jpg", width, height, "vg")
                for number, region in enumerate(take(entry, "regions", list)):
                    with builder.sample(f"{regions_path}: [{index}].regions[{number}]"):
                        _add_region(builder, region, image)
        builder.info["excluded_images"] = len(excluded_images)
        return builder.table()


def _add_region(builder: TableBuilder, region: Any, image: ImageRecord) -> None:
    xywh = [take(region, key, int) for key in ("x", "y", "width", "height")]
    box = check_box(xywh, image.width, image.height)
    text, region_id = expression_of(take(region, "phrase", str)), take(region, "region_id", int)
    builder.add(str(region_id), image, text, Targets([box]), region_id, SentenceIds(sent_id=region_id))
