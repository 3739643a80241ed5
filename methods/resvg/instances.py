"""Segmented objects of training images: what scenes are made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError
from vgbench.data.checks import read_json
from vgbench.data.table import AnnotationTable

__all__ = ["Instance", "categories_in", "instances_of"]


@dataclass(frozen=True)
class Instance:
    """A segmented object of a training image. ``mask`` is a COCO RLE, ``box`` xyxy pixels, ``source`` the table's."""

    image: str
    image_id: int
    source: str
    category: str
    box: tuple[float, float, float, float]
    mask: Mapping[str, Any]


def instances_of(table: AnnotationTable) -> list[Instance]:
    """The distinct segmented objects of a table, in its order.

    Raises:
        UserError: if the table has no masks or no categories.
    """
    instances: dict[tuple[int, str], Instance] = {}
    for row in table:
        if len(row.masks) == len(row.categories) == len(row.boxes):
            for mask, category, box in zip(row.masks, row.categories, row.boxes, strict=True):
                instance = Instance(row.image, row.image_id, row.source, category, tuple(map(float, box)), mask)  # type: ignore[arg-type]
                instances.setdefault((row.image_id, mask["counts"]), instance)
    if not instances:
        raise UserError("the augmentation needs masks and categories, this dataset has none; use one that is on COCO")
    return list(instances.values())


def categories_in(instances_file: Path) -> dict[int, set[str]]:
    """All categories that COCO's ``instances*.json`` lists for each image.

    Raises:
        UserError: if the file is not of that format.
    """
    content = read_json(instances_file)
    try:
        names = {item["id"]: item["name"] for item in content["categories"]}
        present: dict[int, set[str]] = defaultdict(set)
        for annotation in content["annotations"]:
            present[annotation["image_id"]].add(names[annotation["category_id"]])
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{instances_file}: not an instances file of COCO ({error!r})") from None
    return dict(present)
