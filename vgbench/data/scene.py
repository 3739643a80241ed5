"""Everything that is annotated in an image, referred to or not: what proofs about expressions rest on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError
from vgbench.data.checks import BadSample, check_mask, four_numbers, read_json, take
from vgbench.data.rle import RLE
from vgbench.data.table import AnnotationTable

CATEGORY = "category"  # the attribute that every object has


@dataclass(frozen=True)
class SceneObject:
    """One annotated object of an image.

    Attributes:
        id: of its annotation.
        box: xyxy in pixels, as annotated.
        attributes: what is annotated of it, by name; :data:`CATEGORY` among them.
        mask: COCO RLE, None where there is none.
    """

    id: int
    box: tuple[float, float, float, float]
    attributes: Mapping[str, str] = field(default_factory=dict)
    mask: RLE | None = None

    @property
    def category(self) -> str:
        return self.attributes.get(CATEGORY, "")


Scenes = Mapping[int, tuple[SceneObject, ...]]
"""All annotated objects of each image, by its id in the annotation table."""


def image_sizes(table: AnnotationTable) -> dict[int, tuple[int, int]]:
    """(width, height) of every image of a table, by its id."""
    columns = (table.column(name).tolist() for name in ("image_id", "width", "height"))
    return {image: (width, height) for image, width, height in zip(*columns, strict=True)}


def coco_scenes(
    annotations: Iterable[Any], categories: Mapping[Any, str], sizes: Mapping[int, tuple[int, int]]
) -> Scenes:
    """The objects of the images in ``sizes`` from annotations as COCO writes them; crowds are objects too.

    Raises:
        BadSample: if an annotation of one of these images has no id, box or category.
    """
    scenes: dict[int, list[SceneObject]] = {image: [] for image in sizes}
    for annotation in annotations:
        image = annotation.get("image_id")
        if image not in scenes:
            continue
        left, top, width, height = four_numbers(take(annotation, "bbox", list))
        packed = check_mask(annotation.get("segmentation"), *sizes[image])
        scenes[image].append(
            SceneObject(
                take(annotation, "id", int),
                (left, top, left + width, top + height),
                {CATEGORY: categories[take(annotation, "category_id", int)]},
                None if packed is None else {"size": [sizes[image][1], sizes[image][0]], "counts": packed[0]},
            )
        )
    return {image: tuple(objects) for image, objects in scenes.items()}


def read_scenes(path: Path, table: AnnotationTable) -> Scenes:
    """The objects of a table's images from a COCO file (``instances.json``, ``instances_train2014.json``).

    Raises:
        UserError: if the file is damaged, or knows none of the images.
    """
    content = read_json(path)
    try:
        images = {take(image, "id", int) for image in take(content, "images", list)}
        categories = {take(item, "id", int): take(item, "name", str) for item in take(content, "categories", list)}
        sizes = {image: size for image, size in image_sizes(table).items() if image in images}
        if not sizes:
            raise UserError(f"{path}: none of its images is in {table.info.get('dataset')}; is it the right file?")
        return coco_scenes(take(content, "annotations", list), categories, sizes)
    except (BadSample, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: no COCO file with images, annotations and categories ({error})") from None
