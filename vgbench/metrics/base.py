"""What all metrics share: pairs of prediction and annotation, per-expression states, ratios of sums, named variants.

Every reported number is a ratio of two sums over expressions (``mIoU = sum IoU / sum 1``, ``oIoU = sum I / sum U``,
``N-acc = sum rejected / sum no-target``), so one mechanism serves values, slices and bootstrap.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.data.table import AnnotationTable

if TYPE_CHECKING:
    from vgbench.predictions import Predictions
    from vgbench.types import Geometry

Array = np.ndarray


class Ratio(NamedTuple):
    """Contribution of each expression, float64 [n], to numerator and denominator of a metric (as a fraction)."""

    num: Array
    den: Array

    @property
    def value(self) -> float:
        """In percent; NaN if the metric is not defined (no expression counts)."""
        total = self.den.sum()
        return float(100.0 * self.num.sum() / total) if total else float("nan")


@dataclass(frozen=True)
class Outcomes:
    """Per-expression results of a metric.

    Attributes:
        rows: rows of the annotation table that were scored, increasing.
        ratios: by metric name; ``miou.num`` is the list of IoUs, ``oiou`` has intersections and unions.
    """

    rows: Array
    ratios: dict[str, Ratio]

    def take(self, indices: Array) -> Outcomes:
        """Some of the expressions, by position in :attr:`rows` (or a boolean mask)."""
        ratios = {name: Ratio(ratio.num[indices], ratio.den[indices]) for name, ratio in self.ratios.items()}
        return Outcomes(self.rows[indices], ratios)


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
            return [letterbox(int(h), int(w), size) for h, w in zip(self.heights, self.widths, strict=True)]
        stored = self.predictions.geometry()
        known = [frame for frame in stored if frame is not None]
        if len(known) < len(stored):
            key = self.table.row(stored.index(None)).key
            raise UserError(
                f"{key}: {metric} is computed in the network's frame, but the predictions have no geometry; "
                "add the column, or give the size of a letter-boxed square after an @ (e.g. rec/canvas@640)"
            )
        return known

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
                f"the predictions have no masks cut at {cut} % (masks_at); for VG-LAW name the percentage in "
                "method.mask_cuts"
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
            yield _decode(mask, frame.canvas), to_canvas(_decode(target, frame.size), frame)

    def _stretched_pixels(self, frame: str) -> Any:
        height, width = (int(side) for side in frame.split("x"))
        stored = self.predictions.geometry()
        own = self.predictions.masks("canvas_mask")
        for index, (mask, target) in enumerate(zip(self.masks(), self.target_masks, strict=True)):
            size = (int(self.heights[index]), int(self.widths[index]))
            canvas, at = own[index], stored[index]
            if canvas is not None and at is not None and at.canvas == (height, width) and at.offset == (0.0, 0.0):
                predicted = _decode(canvas, at.canvas)  # the network's own output at that size
            else:
                predicted = _stretch(_decode(mask, size), height, width)
            yield predicted, _stretch(_decode(target, size), height, width)


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


def letterbox(height: int, width: int, size: int) -> Geometry:
    """An image scaled to fit a square and centred in it, as TransVG, ResVG and VG-LAW do it."""
    from vgbench.types import Geometry

    ratio = size / max(height, width)
    new_height, new_width = round(height * ratio), round(width * ratio)
    return Geometry(
        scale=(new_width / width, new_height / height),
        offset=(float(round((size - new_width) / 2 - 0.1)), float(round((size - new_height) / 2 - 0.1))),
        size=(height, width),
        canvas=(size, size),
    )


def _decode(mask: rle.RLE | None, size: tuple[int, int]) -> Array:
    if mask is None:
        return np.zeros(size, dtype=bool)
    if tuple(mask["size"]) != tuple(size):
        raise UserError(f"a predicted mask is {mask['size']}, its frame {list(size)} (height, width); mend canvas_mask")
    return rle.decode(mask)


def to_canvas(mask: Array, frame: Geometry) -> Array:
    """Original binary mask -> network frame; a pixel takes the source pixel floor(position / scale), padding is 0."""
    canvas = np.zeros(frame.canvas, dtype=bool)
    indices = []
    for axis in (1, 0):  # rows use the y scale
        source, target = mask.shape[1 - axis], frame.canvas[1 - axis]
        # Back to whole pixels first: dividing by the float scale could fall just below an exact index.
        length, start = round(source * frame.scale[axis]), round(frame.offset[axis])
        place = np.arange(target) - start
        inside = (place >= 0) & (place < length)
        indices.append((np.flatnonzero(inside), place[inside] * source // length))
    (rows, from_rows), (columns, from_columns) = indices
    canvas[np.ix_(rows, columns)] = mask[np.ix_(from_rows, from_columns)]
    return canvas


def _stretch(mask: Array, height: int, width: int) -> Array:
    """Nearest pixel centre, as Pillow resizes label images."""
    rows = ((2 * np.arange(height) + 1) * mask.shape[0]) // (2 * height)
    columns = ((2 * np.arange(width) + 1) * mask.shape[1]) // (2 * width)
    return mask[np.ix_(rows, columns)]


def batch_means(ratio: Ratio, size: int) -> Ratio:
    """The metric of every ``size`` consecutive expressions, averaged over these batches; undefined batches count 0."""
    batch = np.arange(len(ratio.num)) // size
    total = np.bincount(batch, weights=ratio.den)[batch] if len(batch) else ratio.den
    num = np.divide(ratio.num, total, out=np.zeros(len(ratio.num)), where=total != 0)
    return Ratio(num, 1.0 / np.bincount(batch)[batch] if len(batch) else ratio.den)


@dataclass(frozen=True)
class Variant:
    """A named change of a metric's rule.

    Attributes:
        change: fields of the rule and their values.
        note: whose evaluator it is and what differs, one line.
        number: field of the rule that ``name@number`` sets.
    """

    change: Mapping[str, Any]
    note: str
    number: str | None = None


class GroundingMetric(Metric):
    """Base class. One row of numbers per expression is kept, keyed by its row in the table and gathered over
    processes; an expression that a padded sampler handed out twice counts once.

    Args:
        variant: "" for the default, or names of :attr:`variants` joined by "+", e.g. ``gt_clip+batch_mean@32``.

    Raises:
        UserError: for an unknown variant, or a number where none belongs or one is missing.
    """

    task: ClassVar[str]
    primary: ClassVar[str]
    variants: ClassVar[Mapping[str, Variant]]
    Rule: ClassVar[type]
    higher_is_better = True
    full_state_update = False
    is_differentiable = False
    table: list[Tensor]

    def __init__(self, variant: str = "") -> None:
        super().__init__()
        self.variant = variant
        self.rule: Any = resolve(self.task, self.Rule(), self.variants, variant)
        self.add_state("table", default=[], dist_reduce_fx="cat")

    @property
    def spec(self) -> str:
        """``task`` or ``task/variant``."""
        return f"{self.task}/{self.variant}" if self.variant else self.task

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers that are kept of each expression."""

    @abstractmethod
    def measure(self, pairs: Pairs) -> dict[str, Array]:
        """The :attr:`columns` of each expression, [n] each."""

    @abstractmethod
    def ratios(self, columns: dict[str, Array]) -> dict[str, Ratio]:
        """Metrics from the :attr:`columns` of all expressions, in the order of the table."""

    def update(self, pairs: Pairs) -> None:
        """Add the expressions of ``pairs``."""
        columns = self.measure(pairs)
        values = np.column_stack([pairs.rows, *(columns[name] for name in self.columns)]).astype(np.float64)
        self.table.append(torch.from_numpy(values).to(self.device))

    def _outcomes(self) -> Outcomes:
        parts = self.table if isinstance(self.table, list) else [self.table]
        values = torch.cat([self._nothing(), *(part.cpu() for part in parts)]).numpy()
        rows, first = np.unique(values[:, 0].astype(np.int64), return_index=True)
        return Outcomes(rows, self.ratios(dict(zip(self.columns, values[first, 1:].T, strict=True))))

    def _nothing(self) -> Tensor:
        return torch.zeros(0, 1 + len(self.columns), dtype=torch.float64)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """As in torchmetrics, also for a process that saw no expression."""
        if not self._is_synced and not len(self.table):
            self.table.append(self._nothing().to(self.device))
        super().sync(*args, **kwargs)

    def outcomes(self) -> Outcomes:
        """Per-expression results of all processes (of this one only, if ``sync_on_compute`` is off)."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute):
            return self._outcomes()

    def compute(self) -> dict[str, Tensor]:
        """Metrics in percent, float64; NaN where a metric is not defined."""
        ratios = self._outcomes().ratios
        return {name: torch.tensor(ratio.value, dtype=torch.float64) for name, ratio in ratios.items()}


def resolve(task: str, rule: Any, variants: Mapping[str, Variant], text: str) -> Any:
    """Apply the named variants of ``text`` to a rule."""
    for part in filter(None, text.split("+")):
        name, _, number = part.partition("@")
        if name not in variants:
            raise UserError(f"{task}/{text}: no variant {name!r} of {task}; there are: {', '.join(variants)}")
        variant = variants[name]
        change = dict(variant.change)
        if number:
            if variant.number is None or not number.isdigit() or int(number) < 1:
                raise UserError(f"{task}/{text}: {name} takes no number {number!r}; write {task}/{name}")
            change[variant.number] = int(number)
        elif not change:
            raise UserError(f"{task}/{text}: {name} needs a number; write e.g. {task}/{name}@50")
        rule = dataclasses.replace(rule, **change)
    return rule
