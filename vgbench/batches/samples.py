"""Annotation table -> samples: decoding, random state per sample, the shuffled-expression control."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from vgbench.core.errors import UserError
from vgbench.data.checks import BadSample
from vgbench.data.images import ImageFile, decode_image
from vgbench.data.table import AnnotationTable, Row
from vgbench.types import Sample, Transform

Item = tuple[int, int]  # (object, seed)


def mix_seed(*values: int) -> int:
    """Non-negative 63-bit hash of integers (splitmix64 finaliser)."""
    state = 0x9E3779B97F4A7C15
    for value in values:
        state = (state + value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


class GroundingDataset(Dataset[Sample | str]):
    """Samples of one annotation table, ready for a method.

    Args:
        table: the expressions.
        image_path: image name of the table -> file.
        transform: the method's transform.
        sampling: "object": one sample per object (``group`` of the table), one of its expressions drawn each time
            (official recipes of the SeqTR family); "expression": one sample per row.
        masks: decode the masks too.
        expression_rows: for each row, the row whose expression (and auxiliary inputs) it gets instead of its own: the
            shuffled-expression control (:func:`shuffled`).
        auxiliary: per-expression inputs, name -> (key -> tensor).
        on_bad_sample: "error" raises a :class:`UserError`; "skip" returns the reason, which the collation counts.
        picture: (row of the table, decoded image) -> the image that is shown instead, of the size in the row.
    """

    def __init__(
        self,
        table: AnnotationTable,
        image_path: Callable[[str], ImageFile],
        transform: Transform,
        *,
        sampling: Literal["object", "expression"] = "expression",
        masks: bool = True,
        expression_rows: Sequence[int] | np.ndarray | None = None,
        auxiliary: Mapping[str, Mapping[str, Tensor]] | None = None,
        on_bad_sample: Literal["error", "skip"] = "error",
        picture: Callable[[int, Tensor], Tensor] | None = None,
    ) -> None:
        self.table = table
        self.image_path = image_path
        self.transform = transform
        self.masks = masks and table.has_masks
        self.expression_rows = expression_rows
        self.auxiliary = dict(auxiliary or {})
        self.on_bad_sample = on_bad_sample
        self.picture = picture
        self._decoded: tuple[str, Tensor] | None = None  # the last image
        if sampling == "object":
            objects = table.column("group")
            self._order = np.argsort(objects, kind="stable")
            starts = np.flatnonzero(np.diff(objects[self._order], prepend=objects[:1] - 1))
            self._bounds = np.append(starts, len(table))
        else:
            self._order = np.arange(len(table))
            self._bounds = np.arange(len(table) + 1)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def rows(self, number: int) -> np.ndarray:
        """Rows of the table that the expression of object ``number`` is drawn from."""
        return self._order[self._bounds[number] : self._bounds[number + 1]]

    def orientation(self) -> np.ndarray:
        """Bool per object, whether the image is wider than high (the orientation groups of mmdetection's sampler)."""
        first = self._order[self._bounds[:-1]]
        return self.table.column("width")[first] > self.table.column("height")[first]

    def __getitem__(self, item: Item | int) -> Sample | str:
        number, seed = item if isinstance(item, tuple) else (item, 0)
        generator = torch.default_generator
        state = generator.get_state()
        generator.manual_seed(seed)
        try:
            rows = self.rows(number)
            index = int(rows[int(torch.randint(len(rows), ()))]) if len(rows) > 1 else int(rows[0])
            return self.transform(self.sample(index))
        except BadSample as error:
            if self.on_bad_sample == "error":
                raise UserError(f"{error}; mend the file, or set dataset.on_bad_sample=skip to leave it out") from None
            return str(error)
        finally:
            generator.set_state(state)

    def sample(self, index: int) -> Sample:
        """The untransformed sample of row ``index``."""
        row = self.table.row(index)
        image = self._decode(row.image)
        if self.picture is not None:
            image = self.picture(index, image)
        size = (image.shape[-2], image.shape[-1])
        if size != (row.height, row.width):
            raise BadSample(
                f"{self.image_path(row.image)}: image is {size[1]}x{size[0]}, "
                f"the annotation says {row.width}x{row.height}"
            )
        boxes = torch.from_numpy(np.ascontiguousarray(row.boxes)).float()
        text_row = row if self.expression_rows is None else self.table.row(int(self.expression_rows[index]))
        sample: Sample = {
            "image": tv_tensors.Image(image),
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),  # type: ignore[call-overload]
            "text": text_row.expression,
            "key": row.key,
            "image_id": row.image_id,
            "late_normalization": True,
        }
        if self.masks:
            sample["masks"] = tv_tensors.Mask(_decode_masks(row))
        if self.auxiliary:
            sample["auxiliary"] = {name: values[text_row.key] for name, values in self.auxiliary.items()}
        return sample

    def _decode(self, name: str) -> Tensor:
        """The image, decoded once for expressions that follow each other, as they do in evaluation."""
        if self._decoded is None or self._decoded[0] != name:
            self._decoded = (name, decode_image(self.image_path(name)))
        return self._decoded[1]


def plain_sample(image: Tensor, text: str, key: str = "") -> Sample:
    """A sample without targets, for prediction: uint8 RGB image [3, H, W] and an expression."""
    size = (image.shape[-2], image.shape[-1])
    boxes = tv_tensors.BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=size)  # type: ignore[call-overload]
    return {"image": tv_tensors.Image(image), "boxes": boxes, "text": text, "key": key}


def _decode_masks(row: Row) -> Tensor:
    """uint8 [n, H, W]; all zero where a target has no mask."""
    if not row.masks:
        return torch.zeros(len(row.boxes), row.height, row.width, dtype=torch.uint8)
    encoded = [{"size": mask["size"], "counts": mask["counts"].encode()} for mask in row.masks]
    return torch.from_numpy(rle.decode(encoded)).permute(2, 0, 1).contiguous()


def shuffled(table: AnnotationTable, seed: int = 0) -> np.ndarray:
    """For each row another one, whose expression it gets: a control that a model which reads the text must fail.

    A random cyclic shift of a random order: no row keeps its own expression (texts may still coincide).
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(table))
    source = np.empty(len(table), dtype=np.int64)
    source[order] = np.roll(order, 1)
    return source
