"""Data sets by name: their expressions one by one, and as other libraries hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from PIL import Image

from vgbench.api.overrides import as_overrides
from vgbench.config.compose import compose
from vgbench.core.errors import UserError, require_extra
from vgbench.data import rle
from vgbench.data.checks import BadSample
from vgbench.data.dataset import GroundingData
from vgbench.data.images import decode_array
from vgbench.data.table import AnnotationTable, Row

if TYPE_CHECKING:
    from supervision import Detections

    from datasets import Dataset


def dataset(name: str, split: str | None = None, root: str | Path | None = None, **options: Any) -> Split:
    """A split of a data set.

    Args:
        name: as ``vgbench list datasets`` has it.
        split: one of its splits; None: the first one that nothing is trained on.
        root: the folder with its annotations; not needed for embedded data.
        options: further options of the data set, e.g. ``image_root="coco/train2014"``, ``layout="mdetr"``.

    Raises:
        UserError: if there is no such data set or split, or its files are missing.
    """
    from hydra.errors import ConfigCompositionException
    from hydra.utils import instantiate

    from vgbench.core.registry import datasets

    if name not in datasets:
        datasets.load(name)  # says what there is
    values = options if root is None else {"data_root": root, **options}
    overrides = as_overrides({f"++dataset.{key}": value for key, value in values.items()})
    try:
        data: GroundingData = instantiate(compose([f"dataset={name}", *overrides]).dataset)
    except ConfigCompositionException as error:
        raise UserError(f"{name}: {' '.join(str(error).split())}") from None
    return Split(data, split or data.evaluation_splits[0])


@dataclass(frozen=True, eq=False)
class Example:
    """One expression with its picture and what it refers to.

    Attributes:
        row: the line of the annotation table: key, boxes [n, 4] xyxy (n = 0: nothing is meant), COCO RLEs, categories.
        data: the data set, which finds the picture.
    """

    row: Row
    data: GroundingData

    @property
    def key(self) -> str:
        """The name of the expression in predictions files."""
        return self.row.key

    @property
    def text(self) -> str:
        """The expression."""
        return self.row.expression

    @property
    def boxes(self) -> np.ndarray:
        """float64 [n, 4], x1 y1 x2 y2 in pixels; n = 0: nothing is meant."""
        return self.row.boxes

    @property
    def masks(self) -> np.ndarray:
        """bool [n, H, W]; [0, H, W] where there are none."""
        shape = (0, self.row.height, self.row.width)
        return (
            np.stack([rle.decode(mask).astype(bool) for mask in self.row.masks])
            if self.row.masks
            else np.zeros(shape, bool)
        )

    @cached_property
    def pixels(self) -> np.ndarray:
        """uint8 RGB [H, W, 3], as annotated: not turned by an EXIF tag.

        Raises:
            UserError: if the file is missing or damaged.
        """
        try:
            return decode_array(self.data.image_path(self.row.image))
        except BadSample as error:
            raise UserError(str(error)) from None

    @property
    def image(self) -> Image.Image:
        """The picture."""
        return Image.fromarray(self.pixels)

    def draw(self, size: int = 480) -> Image.Image:
        """The picture with its targets, the expression below."""
        from vgbench.pictures.draw import draw

        return draw(self.pixels, self.text, truth=self.row, size=size)

    def detections(self) -> Detections:
        """The targets as supervision's detections.

        Raises:
            UserError: if supervision is not installed.
        """
        supervision = require_extra("supervision", "supervision", "Detections")
        return supervision.Detections(
            xyxy=self.boxes.astype(np.float32).reshape(-1, 4),
            mask=self.masks if len(self.row.masks) else None,
            class_id=np.zeros(len(self.boxes), dtype=int),
            data={"class_name": np.array([self.text] * len(self.boxes), dtype=object)},
        )

    def __repr__(self) -> str:
        return f"Example({self.key}: {self.text!r}, {len(self.boxes)} targets in {self.row.image})"


class Split:
    """The expressions of one split, in their order.

    Attributes:
        data: the data set: title, licence, counts, where its pictures lie.
        name: of the split.
        table: the annotations as an Arrow table with views.
    """

    def __init__(self, data: GroundingData, name: str, table: AnnotationTable | None = None) -> None:
        self.data, self.name = data, data.check_split(name)
        self.table = data.load(name) if table is None else table

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits of the data set."""
        return tuple(self.data.splits)

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Example]:
        return (Example(row, self.data) for row in self.table)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Split: ...

    def __getitem__(self, index: int | slice) -> Example | Split:
        if isinstance(index, slice):
            return Split(self.data, self.name, self.table.take(range(len(self.table))[index]))
        return Example(self.table.row(index), self.data)

    def to_datasets(self) -> Dataset:
        """As a ``datasets.Dataset`` with key, image (decoded when it is looked at), expression, boxes, masks (COCO RLE
        counts), width, height and categories.

        Raises:
            UserError: if the library is not installed, or pictures are missing.
        """
        library = require_extra("datasets", "datasets", "to_datasets()")
        if not hasattr(library, "Dataset"):
            raise UserError(f"{library.__file__}: hides the library datasets; start Python outside of the checkout")
        paths = []
        for row in self.table:
            file = self.data.image_path(row.image)
            with _opened(file) as content:
                paths.append(str(file) if isinstance(file, Path) else {"bytes": content.read(), "path": file.name})
        names = ("key", "image_id", "expression", "width", "height", "masks", "categories")
        columns = {name: self.table.arrow.column(name).to_pylist() for name in names}
        columns["boxes"] = [row.boxes.tolist() for row in self.table]
        whole = library.Dataset.from_dict({**columns, "image": paths})
        return whole.cast_column("image", library.Image())

    def to_coco(self) -> dict[str, Any]:
        """As a COCO dictionary: an annotation per target, with its expression, and ``expressions`` with those that mean
        nothing too. Boxes are x, y, width, height; masks are RLEs."""
        images: dict[int, dict[str, Any]] = {}
        categories: dict[str, int] = {}
        annotations: list[dict[str, Any]] = []
        expressions = []
        for row in self.table:
            images.setdefault(
                row.image_id,
                {"id": row.image_id, "file_name": row.image, "width": row.width, "height": row.height},
            )
            numbers = []
            for place, box in enumerate(row.boxes):
                category = row.categories[place] if row.categories else "object"
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": row.image_id,
                    "category_id": categories.setdefault(category, len(categories) + 1),
                    "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                    "area": float(np.prod(box[2:] - box[:2])),
                    "iscrowd": 0,
                    "expression": row.expression,
                }
                if row.masks:
                    annotation["segmentation"] = row.masks[place]
                    annotation["area"] = float(rle.areas([row.masks[place]])[0])
                numbers.append(annotation["id"])
                annotations.append(annotation)
            expressions.append(
                {"key": row.key, "image_id": row.image_id, "text": row.expression, "annotation_ids": numbers}
            )
        return {
            "info": {"description": f"{self.data.title} {self.name}", "licence": self.data.licence},
            "images": list(images.values()),
            "annotations": annotations,
            "categories": [{"id": number, "name": name} for name, number in categories.items()],
            "expressions": expressions,
        }

    def detections(self) -> Mapping[str, Detections]:
        """The targets of every expression as supervision's detections, by key.

        Raises:
            UserError: if supervision is not installed.
        """
        return {example.key: example.detections() for example in self}

    def __repr__(self) -> str:
        return f"Split({self.data.title} {self.name}: {len(self):,} expressions)"


def _opened(file: Any) -> Any:
    """An image file, opened.

    Raises:
        UserError: if it is not there.
    """
    try:
        return file.open("rb")
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}; to_datasets() takes pictures along") from None
