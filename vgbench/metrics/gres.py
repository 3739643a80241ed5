"""Generalised referring expression segmentation: the union of all targets, or nothing.

Default (ReLA's evaluator), per expression: no target and rejected: IoU 1, nothing added to I and U; no target and not
rejected: IoU 0, the predicted area is added to U; target but rejected: I = 0, U as predicted. ``giou`` is the mean IoU
over all expressions, ``ciou = sum I / sum U``, ``prec@t`` over expressions with a target, ``n_acc`` and ``t_acc`` from
the rejection. A model without a decision of its own (``no_target`` is null) rejects with an empty mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from vgbench.metrics.base import GroundingMetric, Ratio, Variant, batch_means
from vgbench.metrics.frames import Array
from vgbench.metrics.grec import score_note
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.tasks import SUITE
from vgbench.predictions.table import GREC_SCORE_THRESHOLD, Predictions


@dataclass(frozen=True)
class GRESRule:
    """What rejects: the decision of the model, an empty mask, or no box with a score above ``score``."""

    rejection: Literal["decision", "mask", "boxes"] = "decision"
    score: float = GREC_SCORE_THRESHOLD
    frame: str = "image"
    thresholds: tuple[float, ...] = (0.7, 0.8, 0.9)
    batch: int | None = None
    percent: int | None = None


class GRES(GroundingMetric):
    """``giou``, ``ciou``, ``prec@0.7`` ... ``prec@0.9``, ``n_acc``, ``t_acc``; variants see :attr:`variants`."""

    task = SUITE["gres"]
    Rule = GRESRule
    variants: ClassVar = {
        "nt_from_mask": Variant({"rejection": "mask"}, "an empty mask is the rejection, whatever the model decides"),
        "nt_from_mask_batch_mean": Variant(
            {"rejection": "mask", "batch": 16}, "ALVG: empty mask, mean over batches (@16), no n_acc and t_acc", "batch"
        ),
        "nt_from_boxes": Variant({"rejection": "boxes"}, "InstanceVG, PropVG: no box score above 0.7"),
        "score": Variant(
            {"rejection": "boxes"}, "no box with a score of at least N percent (@N) is the rejection", "percent"
        ),
        "gres480": Variant({"frame": "480x480"}, "ReLA's resolution: prediction and ground truth at 480 x 480"),
        "canvas": Variant({"frame": "canvas"}, "in the network's frame of canvas_mask"),
    }

    @property
    def resolution(self) -> str:
        """Frame that boxes and masks are compared in."""
        return "original" if self.rule.frame == "image" else self.rule.frame

    def note(self, predictions: Predictions) -> str | None:
        """What a reader of the number has to know of these predictions; None: nothing."""
        if self.rule.rejection != "boxes":
            return None
        limit = self.rule.score if self.rule.percent is None else self.rule.percent / 100
        return score_note(self.spec, limit, predictions, "everything counts as rejected")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers kept per expression."""
        return ("iou", "intersection", "union", "rejected", "no_target")

    def measure(self, pairs: Pairs) -> dict[str, Array]:
        """Per expression [n]: ``iou`` in [0, 1] (no target: 1 if rejected), ``intersection`` and ``union`` in pixels,
        ``rejected`` and ``no_target``.

        Raises:
            UserError: if there are no masks.
        """
        predicted, annotated, shared = pairs.mask_areas(self.rule.frame)
        rejected = self._rejected(pairs, predicted)
        none = pairs.target_counts == 0
        union = predicted + annotated - shared
        shared = np.where(rejected, 0, shared)
        iou = np.divide(shared, union, out=np.zeros(len(pairs)), where=union != 0)
        return {
            "iou": np.where(none, rejected, iou),
            "intersection": shared,
            "union": np.where(none & rejected, 0, union),
            "rejected": rejected,
            "no_target": none,
        }

    def _rejected(self, pairs: Pairs, predicted: Array) -> Array:
        empty = predicted == 0
        if self.rule.rejection == "boxes":
            scores, percent = pairs.predictions.scores.astype(np.float64), self.rule.percent
            above_limit = scores > self.rule.score if percent is None else scores >= percent / 100
            owner = np.repeat(np.arange(len(pairs)), pairs.predictions.box_counts)
            return np.bincount(owner[above_limit], minlength=len(pairs)) == 0
        if self.rule.rejection == "decision":
            decision = pairs.predictions.no_target
            return np.where(decision < 0, empty, decision == 1)
        return empty

    def ratios(self, columns: dict[str, Array]) -> dict[str, Ratio]:
        """``giou`` (mean IoU), ``ciou`` (sums), ``prec@T`` of those with a target, ``n_acc``, ``t_acc``."""
        rule: GRESRule = self.rule
        none, rejected, iou = columns["no_target"], columns["rejected"], columns["iou"]
        targeted = 1 - none
        ratios = {
            "giou": Ratio(iou, np.ones(len(iou))),
            "ciou": Ratio(columns["intersection"], columns["union"]),
            **{f"prec@{t:g}": Ratio((iou >= t) * targeted, targeted) for t in rule.thresholds},
        }
        if rule.batch:
            return {name: batch_means(ratios[name], rule.batch) for name in ("giou", "ciou")}
        return {
            **ratios,
            "n_acc": Ratio(none * rejected, none),
            "t_acc": Ratio(targeted * (1 - rejected), targeted),
        }
