"""Annotation table -> samples: decoding, random state per sample, the shuffled-text control."""

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

Item = tuple[int, int]  # (unit, seed)


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
        sampling: "object": one unit per ``group`` of the table, one of its expressions drawn each time (official
            recipes of the SeqTR family); "expression": one unit per row.
        masks: decode the masks too.
        said: for each row, the row whose expression (and side inputs) it gets instead of its own (control experiments).
        side: per-expression inputs, name -> (key -> tensor).
        on_bad_sample: "error" raises a :class:`UserError`; "skip" returns the reason, which the collation counts.
    """

    def __init__(
        self,
        table: AnnotationTable,
        image_path: Callable[[str], ImageFile],
        transform: Transform,
        *,
        sampling: Literal["object", "expression"] = "expression",
        masks: bool = True,
        said: Sequence[int] | np.ndarray | None = None,
        side: Mapping[str, Mapping[str, Tensor]] | None = None,
        on_bad_sample: Literal["error", "skip"] = "error",
    ) -> None:
        self.table = table
        self.image_path = image_path
        self.transform = transform
        self.masks = masks and table.has_masks
        self.said = said
        self.side = dict(side or {})
        self.on_bad_sample = on_bad_sample
        self._decoded: tuple[str, Tensor] | None = None  # the last image
        if sampling == "object":
            groups = table.column("group")
            self._order = np.argsort(groups, kind="stable")
            starts = np.flatnonzero(np.diff(groups[self._order], prepend=groups[:1] - 1))
            self._bounds = np.append(starts, len(table))
        else:
            self._order = np.arange(len(table))
            self._bounds = np.arange(len(table) + 1)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def rows(self, unit: int) -> np.ndarray:
        """Rows of the table that a unit's expression is drawn from."""
        return self._order[self._bounds[unit] : self._bounds[unit + 1]]

    def landscape(self) -> np.ndarray:
        """Per unit, whether the image is wider than high (the orientation groups of mmdetection's sampler)."""
        first = self._order[self._bounds[:-1]]
        return self.table.column("width")[first] > self.table.column("height")[first]

    def __getitem__(self, item: Item | int) -> Sample | str:
        unit, seed = item if isinstance(item, tuple) else (item, 0)
        generator = torch.default_generator
        state = generator.get_state()
        generator.manual_seed(seed)
        try:
            rows = self.rows(unit)
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
        size = (image.shape[-2], image.shape[-1])
        if size != (row.height, row.width):
            raise BadSample(
                f"{self.image_path(row.image)}: image is {size[1]}x{size[0]}, "
                f"the annotation says {row.width}x{row.height}"
            )
        boxes = torch.from_numpy(np.ascontiguousarray(row.boxes)).float()
        said = row if self.said is None else self.table.row(int(self.said[index]))
        sample: Sample = {
            "image": tv_tensors.Image(image),
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),  # type: ignore[call-overload]
            "text": said.expression,
            "key": row.key,
            "image_id": row.image_id,
        }
        if self.masks:
            sample["masks"] = tv_tensors.Mask(_decode_masks(row))
        if self.side:
            sample["auxiliary"] = {name: values[said.key] for name, values in self.side.items()}
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
