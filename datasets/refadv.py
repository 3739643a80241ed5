"""Ref-Adv: RefCOCOg's test expressions rewritten so that they mean another object (Akula et al., ACL 2020)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError
from vgbench.data.builder import ImageRecord, TableBuilder, Targets
from vgbench.data.checks import BadSample, check_box, check_name, shown, take
from vgbench.data.dataset import Counts, GroundingData
from vgbench.data.layouts.targets import expression_of, number_in
from vgbench.data.table import AnnotationTable
from vgbench.datasets.refer import COCO_FOLDERS

__all__ = ["RefAdv"]


class RefAdv(GroundingData):
    """``refcocog_adv_annotations.json``: {id of the crowd worker's task: {most_confused_bbox_GT_desc (the expression),
    most_confused_bbox_number (its box), bbox_candidates_map (JSON text: number -> box xywh), img_file_name, ...}}.

    The other fields belong to the expression of RefCOCOg that was rewritten (``raw_str``, ``GT_bbox_number``,
    ``annID``) and are not read. Image sizes come from the image files.
    """

    name = "ref-adv"
    title = "Ref-Adv"
    tasks = ("rec",)
    licence = "CC BY 4.0; images: Flickr terms"
    homepage = "https://github.com/aws/aws-refcocog-adv"
    splits: Mapping[str, Counts] = {"test": Counts(976, None, 3_704)}
    image_folders = (*COCO_FOLDERS, "Images")

    def expected_files(self) -> list[str]:
        return ["refcocog_adv_annotations.json (also in ref-adv/ or aws-refcocog-adv/)"]

    def sources(self, split: str) -> list[Path]:
        self.check_split(split)
        folders = (".", "ref-adv", "aws-refcocog-adv")
        return [self.first_file("refcocog_adv_annotations.json", folders)]

    def read(self, split: str) -> AnnotationTable:
        """The rewritten expressions, one per crowd worker's task."""
        (path,) = self.sources(split)
        entries: Any = self.parse_file(path)
        if not isinstance(entries, dict):
            raise UserError(
                f"{path}: holds a {type(entries).__name__}, expected an object with one entry per expression"
            )
        builder = TableBuilder(self.name, split, "rec", "expression")
        sizes: dict[str, tuple[int, int]] = {}
        for index, (key, entry) in enumerate(entries.items()):
            with builder.sample(f"{path}: {shown(key)}"):
                text = expression_of(take(entry, "most_confused_bbox_GT_desc", str))
                image = check_name(take(entry, "img_file_name", str))
                box, image_id = _candidate(entry), number_in(image)
                if image not in sizes:
                    sizes[image] = self.image_size(image)
                width, height = sizes[image]
                targets = Targets([check_box(box, width, height)])
                builder.add(
                    f"{split}.{index}", ImageRecord(image_id, image, width, height, "coco"), text, targets, index
                )
        return builder.table()


def _candidate(entry: dict[str, Any]) -> Any:
    number, text = take(entry, "most_confused_bbox_number", str), take(entry, "bbox_candidates_map", str)
    try:
        candidates = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSample("'bbox_candidates_map' is not valid JSON", str(error)) from None
    if not isinstance(candidates, dict) or number not in candidates:
        raise BadSample("'most_confused_bbox_number' is none of the candidates", shown(number))
    return candidates[number]
