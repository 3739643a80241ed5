"""Referring expression comprehension: one box per expression.

Default: ``Prec@t = 100/N * sum [IoU(first box, ground truth) >= t]``, t = 0.5, ..., 0.9, and the mean IoU. The first
box is the one that the model ranked first; an expression without a box is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from vgbench.metrics import boxes as overlaps
from vgbench.metrics.base import GroundingMetric, Ratio, Variant, batch_means
from vgbench.metrics.frames import Array
from vgbench.metrics.pairs import Pairs, pad
from vgbench.metrics.tasks import SUITE

OVERLAPS = {
    "iou": overlaps.iou,
    "giou": overlaps.giou,
    "plus1": overlaps.iou_plus1,
    "inclusive": overlaps.iou_inclusive_intersection,
}


@dataclass(frozen=True)
class RECRule:
    """How a box is judged. ``top``: also Prec among the first k boxes; ``best``: of all boxes the one that fits best;
    ``mean``: the mean over the thresholds too; ``size`` of a letter-boxed canvas."""

    target: Literal["annotated", "clipped", "integer"] = "annotated"
    order: Literal["ranked", "tuple"] = "ranked"
    frame: Literal["image", "unit", "canvas"] = "image"
    clamp: bool = False
    overlap: str = "iou"
    strict: bool = False
    thresholds: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9)
    top: tuple[int, ...] = (1,)
    centre: bool = False
    best: bool = False
    mean: bool = False
    size: int | None = None
    batch: int | None = None


class REC(GroundingMetric):
    """``prec@0.5`` ... ``prec@0.9`` and ``miou`` of the first box; variants see :attr:`variants`."""

    task = SUITE["rec"]
    Rule = RECRule
    variants: ClassVar = {
        "giou": Variant(
            {"overlap": "giou", "order": "tuple", "thresholds": (0.5,), "top": (1, 5, 10)},
            "MDETR: generalised IoU, boxes sorted by (score, x1, y1, x2, y2), Prec@1, 5, 10",
        ),
        "topk": Variant({"thresholds": (0.5,), "top": (1, 5, 10)}, "MMDetection: any of the first 1, 5, 10 boxes"),
        "any": Variant(
            {"best": True}, "of all predicted boxes the one that fits best: says what was named, not chosen"
        ),
        "tuple_order": Variant({"order": "tuple"}, "InstanceVG, PropVG: the box with the largest (score, box) tuple"),
        "gt_clip": Variant({"target": "clipped"}, "SeqTR, SimVG, ALVG, C3VG: ground truth clipped to w-1, h-1"),
        "batch_mean": Variant({"batch": 32}, "SeqTR, SimVG, ALVG, C3VG: mean over batches (@32)", "batch"),
        "canvas_clamp": Variant(
            {"frame": "canvas", "clamp": True}, "TransVG: letter-boxed square, prediction clamped to it", "size"
        ),
        "int_gt": Variant({"target": "integer"}, "TransVG and others: COCO x, y, w, h truncated to integers"),
        "strict": Variant(
            {"strict": True, "clamp": True, "thresholds": tuple(0.5 + 0.05 * i for i in range(9))},
            "ResVG, VLTVG: prediction clamped to the image, IoU > t for t = 0.50, 0.55, ..., 0.90",
        ),
        "macc": Variant(
            {"strict": True, "mean": True, "thresholds": tuple(0.5 + 0.05 * i for i in range(10))},
            "Ref-L4, HC-RefLoCo: IoU > t for t = 0.50, 0.55, ..., 0.95, and their mean",
            headline=("macc",),
        ),
        "acc": Variant(
            {"clamp": True, "thresholds": (0.5, 0.75, 0.9)},
            "Ref-Adv-s: prediction clamped to the image, IoU >= 0.5, 0.75, 0.9",
            headline=("prec@0.5", "prec@0.75", "prec@0.9"),
        ),
        "canvas": Variant({"frame": "canvas"}, "VG-LAW: letter-boxed square, no clamp", "size"),
        "plus1_strict": Variant(
            {"overlap": "plus1", "strict": True, "thresholds": (0.5,)}, "MiniGPT-v2: inclusive corners, IoU > 0.5"
        ),
        "inclusive_intersection": Variant(
            {"overlap": "inclusive", "thresholds": (0.5,)}, "ALBEF, AMC, MAttNet: inclusive pixels in the intersection"
        ),
        "vlm": Variant(
            {"frame": "unit", "centre": True, "thresholds": (0.1, 0.3, 0.5, 0.7, 0.9)},
            "lmms-eval: both boxes divided by the image size; adds center_acc",
        ),
    }

    @property
    def resolution(self) -> str:
        """Frame that boxes and masks are compared in."""
        return "canvas" if self.rule.frame == "canvas" else "original"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers kept per expression."""
        tops = (f"iou_top{top}" for top in self.rule.top[1:])
        return ("iou", *tops, *(("centre",) if self.rule.centre else ()))

    def measure(self, pairs: Pairs) -> dict[str, Array]:
        """Per expression [n]: ``iou`` of the first box, float64 in [0, 1] (generalised IoU: [-1, 1]); ``iou_topK`` the
        best among the first K; ``centre``: whether the first box's centre is in the target. No box: 0.

        Raises:
            UserError: if an expression does not have exactly one target.
        """
        rule: RECRule = self.rule
        target = self._targets(pairs)
        predicted, valid = self._predicted(pairs)
        scale, offset, limit = self._frame(pairs)
        predicted = predicted * scale[:, None] + offset[:, None]
        target = target * scale + offset
        if rule.clamp:
            predicted = np.clip(predicted, 0, limit[:, None])
        overlap = np.where(valid, OVERLAPS[rule.overlap](predicted, target[:, None]), 0.0)
        columns = {"iou": overlap.max(1) if rule.best else overlap[:, 0]}
        for top in rule.top[1:]:
            columns[f"iou_top{top}"] = overlap[:, :top].max(1)
        if rule.centre:
            middle = (predicted[:, 0, :2] + predicted[:, 0, 2:]) / 2
            inside = (middle >= target[:, :2]).all(1) & (middle <= target[:, 2:]).all(1)
            columns["centre"] = inside & valid[:, 0]
        return columns

    def _targets(self, pairs: Pairs) -> Array:
        target = pairs.single_target(self.spec)
        if self.rule.target == "clipped":
            limit = np.stack([pairs.widths, pairs.heights] * 2, axis=1) - 1
            return np.clip(target, 0, limit)
        if self.rule.target == "integer":
            # Two decimals are all that COCO has; x2 - x1 would otherwise fall just below a whole width.
            corner = np.trunc(target[:, :2].round(3))
            return np.concatenate([corner, corner + np.trunc((target[:, 2:] - target[:, :2]).round(3))], axis=1)
        return target

    def _predicted(self, pairs: Pairs) -> tuple[Array, Array]:
        """The boxes to be judged [n, k, 4] and bool [n, k]; k >= 1."""
        limit = max(self.rule.top)
        predicted, valid = pairs.padded_boxes(
            None if self.rule.best else limit if self.rule.order == "ranked" else None
        )
        if self.rule.order == "tuple" and predicted.shape[1] > 1:
            scores, _ = pad(pairs.predictions.scores, pairs.predictions.box_counts)
            scores = np.where(valid, scores, -1.0)
            keys = [*(predicted[..., side] for side in (3, 2, 1, 0)), scores]
            order = np.lexsort([-key for key in keys], axis=1)[:, :limit]
            predicted = np.take_along_axis(predicted, order[..., None], axis=1)
            valid = np.take_along_axis(valid, order, axis=1)
        missing = max(1 - predicted.shape[1], 0)
        return np.pad(predicted, ((0, 0), (0, missing), (0, 0))), np.pad(valid, ((0, 0), (0, missing)))

    def _frame(self, pairs: Pairs) -> tuple[Array, Array, Array]:
        """Scale, offset and upper limit of boxes [n, 4] in the frame of the rule."""
        image = np.stack([pairs.widths, pairs.heights] * 2, axis=1).astype(np.float64)
        if self.rule.frame == "image":
            return np.ones_like(image), np.zeros_like(image), image
        if self.rule.frame == "unit":
            return 1 / image, np.zeros_like(image), np.ones_like(image)
        frames = pairs.geometry(self.rule.size, self.spec)
        canvas = np.array([[*frame.canvas[::-1]] * 2 for frame in frames], dtype=np.float64).reshape(-1, 4)
        scale = np.array([[*frame.scale] * 2 for frame in frames]).reshape(-1, 4) / canvas
        offset = np.array([[*frame.offset] * 2 for frame in frames]).reshape(-1, 4) / canvas
        return scale, offset, np.ones_like(canvas)

    def ratios(self, columns: dict[str, Array]) -> dict[str, Ratio]:
        """``prec@T`` and ``prec@T_topK`` for every threshold, ``miou`` (not of generalised IoU), ``center_acc``,
        ``macc``."""
        rule: RECRule = self.rule
        one = np.ones(len(columns["iou"]))
        ratios = {}
        for top in rule.top:
            overlap = columns["iou"] if top == 1 else columns[f"iou_top{top}"]
            for threshold in rule.thresholds:
                threshold = round(threshold, 2)
                hit = overlap > threshold if rule.strict else overlap >= threshold
                suffix = "" if top == 1 else f"_top{top}"
                ratios[f"prec@{threshold:g}{suffix}"] = Ratio(hit.astype(np.float64), one)
        if rule.mean:
            hits = [ratios[f"prec@{round(threshold, 2):g}"].num for threshold in rule.thresholds]
            ratios["macc"] = Ratio(np.mean(hits, axis=0), one)
        if rule.overlap != "giou":
            ratios["miou"] = Ratio(columns["iou"], one)
        if rule.centre:
            ratios["center_acc"] = Ratio(columns["centre"], one)
        if rule.batch:
            ratios = {name: batch_means(ratio, rule.batch) for name, ratio in ratios.items()}
        return ratios
