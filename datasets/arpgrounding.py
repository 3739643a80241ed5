"""ARPGrounding: pairs of phrases for two objects of one image that differ in attribute, relation or priority."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError
from vgbench.data.builder import ImageRecord, TableBuilder, Targets
from vgbench.data.checks import BadSample, check_box, shown, take
from vgbench.data.dataset import Counts, GroundingData
from vgbench.data.layouts.refer import read_pickle
from vgbench.data.layouts.targets import expression_of
from vgbench.data.table import AnnotationTable
from vgbench.datasets.vg import coco_aliases

__all__ = ["ARPGrounding"]

FILES = {"attribute": "attribute_vg.pkl", "relation": "relationship_vg.pkl", "priority": "priority_vg.pkl"}
IMAGE_DATA = "image_data.json"  # Visual Genome's, optional: tells which of its images are COCO images


class ARPGrounding(GroundingData):
    """``arpgrounding/<kind>_vg.pkl``: a pickle of {Visual Genome image id: [[one, other], ...]}, both {phrase, x, y, w,
    h} (Zeng et al., CVPR 2024).

    Each phrase of a pair becomes an expression with its own box; the pair is the group. Image sizes come from the image
    files.
    """

    name = "arpgrounding"
    title = "ARPGrounding"
    tasks = ("rec",)
    licence = "see the authors' page; annotations of Visual Genome: CC BY 4.0; images: Flickr terms"
    homepage = "https://github.com/TyroneZ3/ARPGrounding"
    splits: Mapping[str, Counts] = dict.fromkeys(FILES, Counts())
    disjoint = False  # by kind of pair
    image_folders = ("images/visual-genome", "visual-genome", "images/vg", "vg", "VG_Images", "images", ".")
    image_names = ("VG_100K/{:d}.jpg", "VG_100K_2/{:d}.jpg", "VG_Images/{:d}.jpg")

    def image_aliases(self) -> Mapping[tuple[str, int], tuple[str, int]]:
        images = self.data_root / IMAGE_DATA
        return coco_aliases(images) if images.is_file() else {}

    def expected_files(self) -> list[str]:
        return [f"arpgrounding/{{{', '.join(FILES.values())}}}"]

    def sources(self, split: str) -> list[Path]:
        self.check_split(split)
        folders = (".", "arpgrounding", "ARPGrounding/arpgrounding")
        return [self.first_file(FILES[split], folders, f"{FILES[split]} is not there")]

    def read(self, split: str) -> AnnotationTable:
        """The pairs of every image, two expressions each."""
        (path,) = self.sources(split)
        images: Any = self.parse_file(path, read_pickle)
        if not isinstance(images, dict):
            raise UserError(f"{path}: holds a {type(images).__name__}, expected an object with a list per image")
        builder = TableBuilder(self.name, split, "rec")
        group = 0
        for image_id, pairs in images.items():
            where = f"{path}: image {shown(image_id)}"
            with builder.sample(where, 2 * len(pairs) if isinstance(pairs, list) else 1):
                if isinstance(image_id, bool) or not isinstance(image_id, int) or not 0 <= image_id < 2**63:
                    raise BadSample("image that is no number", shown(image_id))
                if not isinstance(pairs, list):
                    raise BadSample("image without a list of pairs", type(pairs).__name__)
                name = f"{image_id}.jpg"
                image = ImageRecord(image_id, name, *self.image_size(name), source="vg")
                for number, pair in enumerate(pairs):
                    with builder.sample(f"{where}, pair {number}", 2):
                        for place, (text, targets) in enumerate(_regions(pair, image)):
                            builder.add(f"{image_id}.{number}.{place}", image, text, targets, group)
                        group += 1
        return builder.table()


def _regions(pair: Any, image: ImageRecord) -> list[tuple[str, Targets]]:
    """(phrase, its box) of both regions of a pair."""
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise BadSample("not a pair of two regions", shown(pair))
    regions = []
    for region in pair:
        text = expression_of(take(region, "phrase", str))
        box = check_box([take(region, key, (int, float)) for key in "xywh"], image.width, image.height)
        regions.append((text, Targets([box])))
    return regions
