"""The pointing game: does the peak of a heat map lie in an annotated box?

Default (AMC): the map is enlarged to the image with PyTorch's bicubic interpolation, the first maximum in row-major
order is the point (whole pixels), and it must lie strictly inside one of the boxes. A stored ``point`` is taken as it
is; the map is used where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from vgbench.core.errors import UserError
from vgbench.metrics.base import GroundingMetric, Ratio, Variant
from vgbench.metrics.boxes import iou_inclusive_intersection
from vgbench.metrics.frames import Array
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.tasks import SUITE

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PointingRule:
    """What a variant may change."""

    merged: bool = False
    proposals: bool = False


class Pointing(GroundingMetric):
    """``pointing_acc`` (or ``prec@0.5`` of the chosen proposal); variants see :attr:`variants`."""

    task = SUITE["pointing"]
    Rule = PointingRule
    variants: ClassVar = {
        "merged": Variant({"merged": True}, "earlier work: in the box around all boxes of the phrase"),
        "box_from_proposals": Variant(
            {"proposals": True}, "AMC on RefCOCO+: the predicted boxes are proposals, ranked by the heat inside"
        ),
    }

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers kept per expression."""
        return ("hit",)

    def measure(self, pairs: Pairs) -> dict[str, Array]:
        """The columns, each [n] over the expressions of ``pairs``."""
        if self.rule.proposals:
            return {"hit": self._proposals(pairs)}
        x, y = points(pairs).T[:, :, None]
        boxes, valid = pairs.padded_targets()
        if self.rule.merged:
            boxes, valid = merge_boxes(boxes, valid)
        left, top, right, bottom = np.moveaxis(boxes, -1, 0)
        return {"hit": ((x >= 0) & (x > left) & (x < right) & (y > top) & (y < bottom) & valid).any(1)}

    def _proposals(self, pairs: Pairs) -> Array:
        targets = pairs.single_target(self.spec)
        ends = np.cumsum(pairs.predictions.box_counts)
        hits = np.zeros(len(pairs), dtype=bool)
        for index, count in enumerate(pairs.predictions.box_counts):
            boxes = pairs.boxes[ends[index] - count : ends[index]]
            heat = enlarge(_heatmap(pairs, index), (int(pairs.heights[index]), int(pairs.widths[index])))
            best = best_proposal(heat, boxes)
            if best is not None:
                hits[index] = iou_inclusive_intersection(boxes[best], targets[index]) >= 0.5
        return hits

    def ratios(self, columns: dict[str, Array]) -> dict[str, Ratio]:
        """Numerator and denominator per expression [n], by metric."""
        name = "prec@0.5" if self.rule.proposals else "pointing_acc"
        return {name: Ratio(columns["hit"], np.ones(len(columns["hit"])))}


def _heatmap(pairs: Pairs, index: int) -> Tensor:
    heat = pairs.predictions.heatmap(index)
    if heat is None:
        raise UserError(
            f"{pairs.table.row(index).key}: the prediction has neither point nor heatmap; add one or leave out pointing"
        )
    from torch import from_numpy  # enlarged by the interpolation that is part of the rule

    return from_numpy(heat.copy())


def points(pairs: Pairs) -> Array:
    """(x, y) of each prediction, int64 [n, 2]; (-1, -1) where a language model answered without naming a point.

    Raises:
        UserError: if a prediction has neither a point nor a heat map nor words.
    """
    peaks = pairs.predictions.points.copy()
    absent = np.flatnonzero(peaks[:, 0] < 0).tolist()
    words = pairs.predictions.answers() if absent else []
    for index in absent:
        if words[index] is not None:
            continue
        peaks[index] = peak(enlarge(_heatmap(pairs, index), (int(pairs.heights[index]), int(pairs.widths[index]))))
    return peaks


def enlarge(heatmap: Tensor, size: tuple[int, int]) -> Tensor:
    """Heat map [h, w] -> [height, width] of the original image, bicubic, float32."""
    from torch.nn import functional as F

    return F.interpolate(heatmap[None, None].float(), size=size, mode="bicubic", align_corners=False)[0, 0]


def peak(heat: Tensor) -> tuple[int, int]:
    """(x, y) of the first maximum of [H, W] in row-major order."""
    y, x = divmod(int(heat.flatten().argmax()), heat.shape[1])
    return x, y


def best_proposal(heat: Tensor, boxes: Array) -> int | None:
    """The proposal with the largest ``sum(heat inside) / area^0.5``, None if none is above 0.

    Args:
        heat: [H, W] at the original image size.
        boxes: [n, 4] xyxy; the corners are truncated to whole pixels for the sum, not for the area.
    """
    corners = np.trunc(np.round(boxes, 3)).astype(np.int64)
    best, best_score = None, 0.0
    for index, (left, top, right, bottom) in enumerate(corners):
        area = np.prod(boxes[index, 2:] - boxes[index, :2])
        score = float(heat[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)].sum()) / max(area, 1e-12) ** 0.5
        if score > best_score:
            best, best_score = index, score
    return best


def merge_boxes(boxes: Array, valid: Array) -> tuple[Array, Array]:
    """The box around all valid boxes: [n, m, 4] and bool [n, m] -> [n, 1, 4] and bool [n, 1]."""
    low = np.where(valid[..., None], boxes[..., :2], np.inf).min(1, keepdims=True, initial=np.inf)
    high = np.where(valid[..., None], boxes[..., 2:], -np.inf).max(1, keepdims=True, initial=-np.inf)
    some = np.asarray(valid.any(1, keepdims=True))
    return np.where(some[..., None], np.concatenate([low, high], axis=-1), 0.0), some
