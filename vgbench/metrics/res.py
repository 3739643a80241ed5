"""Referring expression segmentation: one mask per expression.

Default: mask at the original image size, ``IoU = I / U`` (0 if U = 0); ``mIoU`` is the mean, ``oIoU = sum I / sum U``
(also called cIoU, overall or cumulative IoU), ``Prec@t`` the share with IoU >= t.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vgbench.core.errors import UserError
from vgbench.metrics.base import GroundingMetric, Ratio, Variant, batch_means
from vgbench.metrics.frames import Array
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.tasks import SUITE


@dataclass(frozen=True)
class RESRule:
    """How a mask is judged. ``frame``: "image", "canvas" or "HxW"; IoU = (I + top) / (U + bottom).

    ``cut``: probability, in percent, above which a pixel belongs to the mask; None: as the method decides.
    ``iou32`` and ``threshold32``: rounded to float32 before they are compared, which decides exact ties.
    """

    frame: str = "image"
    top: float = 0.0
    bottom: float = 0.0
    crowd: bool = False
    strict: bool = False
    iou32: bool = False
    threshold32: bool = False
    cut: int | None = None
    thresholds: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9)
    batch: int | None = None


class RES(GroundingMetric):
    """``miou``, ``oiou``, ``prec@0.5`` ... ``prec@0.9`` of masks; variants see :attr:`variants`."""

    task = SUITE["res"]
    Rule = RESRule
    variants: ClassVar = {
        "res480": Variant({"frame": "480x480"}, "LAVT: prediction and ground truth at 480 x 480"),
        "res480_poly": Variant({"frame": "polygons"}, "ReLA: ground-truth polygons rasterised at 480 x 480"),
        "cris": Variant(
            {"strict": True, "bottom": 1e-6, "threshold32": True}, "CRIS: IoU > t, 1e-6 in the denominator"
        ),
        "crowd": Variant({"crowd": True}, "SeqTR, SimVG: I / predicted area for objects of several polygons"),
        "batch_mean": Variant({"batch": 32}, "ALVG: mean over batches (@32)", "batch"),
        "eps_one": Variant(
            {
                "top": 1e-10,
                "bottom": 1e-10,
                "strict": True,
                "iou32": True,
                "threshold32": True,
                "thresholds": tuple(0.5 + 0.05 * i for i in range(10)),
            },
            "VG-LAW: (I + 1e-10) / (U + 1e-10), IoU > t for t = 0.50, 0.55, ..., 0.95",
        ),
        "canvas": Variant({"frame": "canvas"}, "ALVG at 640, VG-LAW at 448: in the frame of canvas_mask"),
        "cut": Variant({}, "masks at this probability in percent (masks_at), not at the method's own", "cut"),
    }

    def __init__(self, variant: str = "") -> None:
        super().__init__(variant)
        if self.rule.cut is not None and self.rule.frame != "image":
            raise UserError(f"res/{variant}: cut@N is at the original size only; leave the other frame out")
        if self.rule.frame == "polygons":
            raise UserError(
                "res/res480_poly: not offered: annotation tables keep masks, not the polygons that it rasterises; "
                "use res/res480 (differs along mask edges only)"
            )

    @property
    def resolution(self) -> str:
        """Frame that boxes and masks are compared in."""
        return "original" if self.rule.frame == "image" else self.rule.frame

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers kept per expression."""
        return ("iou", "intersection", "union")

    def measure(self, pairs: Pairs) -> dict[str, Array]:
        """Per expression [n]: ``iou`` in [0, 1] under the rule, ``intersection`` and ``union`` in pixels.

        Raises:
            UserError: if an expression does not have exactly one target, or there are no masks.
        """
        rule: RESRule = self.rule
        pairs.single_target(self.spec)
        predicted, annotated, shared = pairs.mask_areas(rule.frame, rule.cut)
        union = predicted + annotated - shared
        denominator = union
        if rule.crowd:
            several = np.array([value[0] > 1 for value in pairs.table.arrow.column("polygons").to_pylist()], bool)
            denominator = np.where(several, predicted, union)
        total = denominator + rule.bottom
        iou = np.divide(shared + rule.top, total, out=np.zeros(len(pairs)), where=total != 0)
        if rule.iou32:
            iou = iou.astype(np.float32)
        return {"iou": iou, "intersection": shared, "union": union}

    def ratios(self, columns: dict[str, Array]) -> dict[str, Ratio]:
        """``miou`` (mean), ``oiou`` (sum of intersections / sum of unions) and ``prec@T`` for every threshold."""
        rule: RESRule = self.rule
        iou, one = columns["iou"], np.ones(len(columns["iou"]))
        ratios = {"miou": Ratio(iou, one), "oiou": Ratio(columns["intersection"], columns["union"])}
        for threshold in rule.thresholds:
            threshold = round(threshold, 2)
            limit = float(np.float32(threshold)) if rule.threshold32 else threshold
            hit = iou > limit if rule.strict else iou >= limit
            ratios[f"prec@{threshold:g}"] = Ratio(hit.astype(np.float64), one)
        if rule.batch:
            # With the crowd rule (SeqTR, SimVG) mIoU runs over all samples and only the precisions over batches.
            whole = {"miou": ratios["miou"]} if rule.crowd else {}
            ratios = {name: batch_means(ratio, rule.batch) for name, ratio in ratios.items()} | whole
        return ratios
