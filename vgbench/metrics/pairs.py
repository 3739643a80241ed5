"""Predictions beside their annotations, decoded once for all metrics."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.data.table import AnnotationTable
from vgbench.metrics.frames import Array, decode, stretch, to_canvas
from vgbench.predictions.table import Predictions
from vgbench.types import Geometry


class Pairs:
    """Predictions of some expressions next to their annotations; what metrics share is computed once.

    Args:
        predictions: of n expressions.
        table: the annotations.
        rows: int64 [n], the row of ``table`` that each prediction belongs to.
    """

    def __init__(self, predictions: Predictions, table: AnnotationTable, rows: Array) -> None:
        self.predictions = predictions
        self.table = table.take(rows)
        self.rows = np.asarray(rows, dtype=np.int64)
        self.heights = self.table.column("height").astype(np.int64)
        self.widths = self.table.column("width").astype(np.int64)
        self._overlaps: dict[Any, tuple[Array, Array, Array]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def target_counts(self) -> Array:
        """Annotated boxes per expression, int64 [n]; 0: nothing is meant."""
        return np.array([len(value) // 4 for value in self.table.arrow.column("boxes")], dtype=np.int64)

    @cached_property
    def targets(self) -> Array:
        """All annotated boxes, float64 [N, 4], rounded to float32 as every evaluator holds them."""
        flat = self.table.arrow.column("boxes").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(-1, 4).astype(np.float32).astype(np.float64)

    @cached_property
    def boxes(self) -> Array:
        """All predicted boxes, float64 [N, 4]."""
        return self.predictions.boxes.astype(np.float64)

    def padded_targets(self) -> tuple[Array, Array]:
        """Annotated boxes [n, m, 4] and bool [n, m], True where there is one."""
        return pad(self.targets, self.target_counts)

    def padded_boxes(self, limit: int | None = None) -> tuple[Array, Array]:
        """The first ``limit`` predicted boxes [n, k, 4] and bool [n, k], True where there is one."""
        return pad(self.boxes, self.predictions.box_counts, limit)

    def single_target(self, metric: str) -> Array:
        """The only annotated box of each expression, float64 [n, 4].

        Raises:
            UserError: if an expression means nothing or several objects.
        """
        if (self.target_counts != 1).any():
            index = int(np.flatnonzero(self.target_counts != 1)[0])
            raise UserError(
                f"{self.table.row(index).key}: {self.target_counts[index]} targets, but {metric} needs exactly one; "
                "score this dataset with grec (boxes) or gres (masks)"
            )
        return self.targets

    def geometry(self, size: int | None, metric: str) -> list[Geometry]:
        """The network frame of each expression: a letter-boxed square of ``size`` pixels, or as the file says.

        Raises:
            UserError: if ``size`` is None and the predictions do not say.
        """
        if size is not None:
            return [Geometry.letterbox(int(h), int(w), size) for h, w in zip(self.heights, self.widths, strict=True)]
        stored = self.predictions.geometry()
        frames = [frame for frame in stored if frame is not None]
        if len(frames) < len(stored):
            key = self.table.row(stored.index(None)).key
            raise UserError(
                f"{key}: {metric} is computed in the network's frame, but the predictions have no geometry; "
                "add the column, or give the size of a letter-boxed square after an @ (e.g. rec/canvas@640)"
            )
        return frames

    @cached_property
    def target_masks(self) -> list[rle.RLE | None]:
        """Union of the annotated masks of each expression as COCO RLE; None where nothing is meant.

        Raises:
            UserError: if an expression has targets but no masks.
        """
        masks: list[rle.RLE | None] = []
        for index, counts in enumerate(self.table.arrow.column("masks").to_pylist()):
            if len(counts) != self.target_counts[index]:
                raise UserError(
                    f"{self.table.row(index).key}: {self.target_counts[index]} targets, {len(counts)} masks; "
                    "this dataset has no masks to score, use rec or grec"
                )
            size = [int(self.heights[index]), int(self.widths[index])]
            masks.append(rle.union([{"size": size, "counts": item} for item in counts]))
        return masks

    def masks(self, column: str = "mask") -> list[rle.RLE | None]:
        """Predicted masks, None where a prediction has none.

        Raises:
            UserError: if no prediction has one.
        """
        masks = self.predictions.masks(column)  # type: ignore[arg-type]
        if len(masks) and all(mask is None for mask in masks):
            what = {"mask": "masks", "canvas_mask": "masks in the network's frame (canvas_mask, geometry)"}[column]
            raise UserError(f"the predictions have no {what}; add the column, or choose metrics that need boxes only")
        return masks

    def mask_areas(self, frame: str = "image", cut: int | None = None) -> tuple[Array, Array, Array]:
        """Pixels of the predicted mask, of the annotated mask, and of both, int64 [n] each.

        Args:
            frame: "image": original pixels; "canvas": ``canvas_mask`` against the annotation resized as OpenCV's
                nearest does; "480x480" and the like: both stretched to (height, width), nearest pixel centre.
            cut: at original pixels, the mask cut at this probability in percent instead of the method's own.
        """
        key = (frame, cut)
        if key not in self._overlaps:
            if frame == "image":
                self._overlaps[key] = self._image_areas(cut)
            else:
                pixels = self._canvas_pixels() if frame == "canvas" else self._stretched_pixels(frame)
                areas = [(a.sum(), b.sum(), (a & b).sum()) for a, b in pixels]
                self._overlaps[key] = tuple(np.array(areas, dtype=np.int64).reshape(-1, 3).T)  # type: ignore[assignment]
        return self._overlaps[key]

    def _image_areas(self, cut: int | None) -> tuple[Array, Array, Array]:
        predicted = self.masks() if cut is None else self.predictions.masks_at(cut)
        if cut is not None and len(predicted) and all(mask is None for mask in predicted):
            raise UserError(
                f"the predictions have no masks cut at {cut} %: column masks_at has none for this percentage; let the "
                "method predict it, or leave out the variant"
            )
        for index, mask in enumerate(predicted):
            size = [int(self.heights[index]), int(self.widths[index])]
            if mask is not None and mask["size"] != size:
                raise UserError(f"{self.table.row(index).key}: mask is {mask['size']}, the image {size}; resize it")
        shared = rle.intersections(predicted, self.target_masks)
        return rle.areas(predicted), rle.areas(self.target_masks), shared

    def _canvas_pixels(self) -> Any:
        frames = self.geometry(None, "the canvas variant")
        for mask, target, frame in zip(self.masks("canvas_mask"), self.target_masks, frames, strict=True):
            yield decode(mask, frame.canvas), to_canvas(decode(target, frame.size), frame)

    def _stretched_pixels(self, frame: str) -> Any:
        height, width = (int(side) for side in frame.split("x"))
        stored = self.predictions.geometry()
        canvas_masks = self.predictions.masks("canvas_mask")
        for index, (mask, target) in enumerate(zip(self.masks(), self.target_masks, strict=True)):
            size = (int(self.heights[index]), int(self.widths[index]))
            canvas, at = canvas_masks[index], stored[index]
            if canvas is not None and at is not None and at.canvas == (height, width) and at.offset == (0.0, 0.0):
                predicted = decode(canvas, at.canvas)  # the network's own output at that size
            else:
                predicted = stretch(decode(mask, size), height, width)
            yield predicted, stretch(decode(target, size), height, width)


def pad(values: Array, counts: Array, limit: int | None = None) -> tuple[Array, Array]:
    """Ragged [N, ...] with ``counts`` [n] -> [n, k, ...] filled with 0, and bool [n, k]; k = min(largest, limit)."""
    width = int(counts.max()) if len(counts) else 0
    width = width if limit is None else min(width, limit)
    place = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
    row = np.repeat(np.arange(len(counts)), counts)
    keep = place < width
    padded = np.zeros((len(counts), width, *values.shape[1:]), dtype=values.dtype)
    valid = np.zeros((len(counts), width), dtype=bool)
    padded[row[keep], place[keep]] = values[keep]
    valid[row[keep], place[keep]] = True
    return padded, valid
