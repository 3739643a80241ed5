"""Answers to changed questions beside the answers to the plain ones.

``right`` is judged as the default metric of the data would (:mod:`.verdict`). What else is counted depends on what a
change is expected to do: see :meth:`Stress.ratios`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from vgbench.core.errors import UserError
from vgbench.data.boxes import iou
from vgbench.metrics import influence
from vgbench.metrics.base import GroundingMetric, Ratio
from vgbench.metrics.errors import ErrorKinds
from vgbench.metrics.frames import Array
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.tasks import SUITE
from vgbench.metrics.verdict import answer_kind, first_boxes, is_right, top_scores

SAME_BOX = 0.5  # IoU from which two boxes are the same answer
FALSE_AT = (10, 20, 30, 40, 50, 60, 70, 80, 90)  # score thresholds of the curve of false answers, in percent
SURE = 0.95  # share of the plain answers that the threshold of ``fpr95`` keeps


class AnswerPairs(Pairs):
    """Answers to changed questions, with those to the plain ones.

    Args:
        changed: answers to the questions, and the questions.
        plain: answers to the same expressions as they were, and these.
        carried: the first boxes of the plain answers where they lie in the images of the questions, [n, 4].
        expectation: "follow", "stay", "move", "reject", "lose" or "same": what the change is expected to do.
        errors: what is wrong with each answer, where all objects of the images are known.
    """

    def __init__(
        self, changed: Pairs, plain: Pairs, carried: Array, expectation: str, errors: ErrorKinds | None = None
    ) -> None:
        super().__init__(changed.predictions, changed.table, np.arange(len(changed)))
        self.plain, self.carried, self.expectation, self.errors = plain, carried, expectation, errors


@dataclass(frozen=True)
class StressRule:
    """There are no variants."""


class Stress(GroundingMetric):
    """What a probe shows; computed by ``vgbench stress`` alone, because it takes two answers for an expression."""

    task = SUITE["stress"]
    Rule = StressRule
    variants: ClassVar = {}

    def __init__(self, variant: str = "") -> None:
        super().__init__(variant)
        self.sync_on_compute = False  # who has both answers has all of them
        self._expectation = ""
        self._kinds: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers kept per expression."""
        return (
            *("right", "plain", "same", "stuck", "score", "plain_score"),
            *("mask_iou", "plain_mask_iou", "peers", *self._kinds),
        )

    def measure(self, pairs: Pairs) -> dict[str, Array]:
        """Per expression [n]: ``right`` and ``plain`` (right before the change), ``same`` (both answers are one box, in
        the frame of the question), ``stuck`` (the answer is the old target), the top scores, the masks' IoUs (NaN
        where there are none), and with ``peers`` other objects of the category, which kind of error it is.

        Raises:
            UserError: unless it is given both answers.
        """
        if not isinstance(pairs, AnswerPairs):
            raise UserError("stress: compares answers to changed questions with plain ones: use vgbench stress")
        self._expectation = pairs.expectation
        kind = answer_kind(pairs.plain.predictions)
        right = is_right(pairs, kind)
        plain = is_right(pairs.plain, kind)
        boxes, valid = first_boxes(pairs.predictions)
        _, had_box = first_boxes(pairs.plain.predictions)
        if kind == "boxes":
            same = np.where(valid & had_box, iou(boxes, pairs.carried) >= SAME_BOX, valid == had_box)
        else:
            same = right == plain  # a mask or a point hits or misses both times
        missing = np.full(len(pairs), np.nan)
        columns = {
            "right": right,
            "plain": plain,
            "same": same,
            "stuck": self._stuck(pairs, boxes, valid),
            "score": top_scores(pairs.predictions),
            "plain_score": top_scores(pairs.plain.predictions),
            "mask_iou": _mask_iou(pairs),
            "plain_mask_iou": _mask_iou(pairs.plain),
            "peers": missing if pairs.errors is None else pairs.errors.peers,
        }
        if pairs.errors is not None:
            self._kinds = pairs.errors.names
            columns |= {name: pairs.errors.index == place for place, name in enumerate(pairs.errors.names)}
        return columns

    def _stuck(self, pairs: AnswerPairs, boxes: Array, valid: Array) -> Array:
        """Whether an answer is the target of the plain question still."""
        if pairs.expectation != "move":
            return np.zeros(len(pairs), dtype=bool)
        return valid & (iou(boxes, pairs.plain.single_target(self.spec)) >= SAME_BOX)

    def ratios(self, columns: dict[str, Array]) -> dict[str, Ratio]:
        """``right``, ``plain`` and ``retention`` (of the answers that were right, those that are right still) always,
        and as a change is expected to

        - follow, stay: ``consistent``, both answers are the same box, right or wrong;
        - move: ``both`` (right before and after) and ``stuck`` (the answer is the old target);
        - reject: ``false@T`` (answers with a score of at least T percent), ``auroc`` (score of the plain question above
          that of this one) and ``fpr95`` (false answers at the score that 95 % of the plain answers reach);
        - same: the kinds of errors, and ``chance``, 1 / (1 + other objects of the category).

        Where there are masks, ``mask_iou`` and ``plain_mask_iou``.
        """
        one = np.ones(len(columns["right"]))
        right, plain = columns["right"], columns["plain"]
        ratios = {"right": Ratio(right, one), "plain": Ratio(plain, one), "retention": Ratio(right * plain, plain)}
        if self._expectation in ("follow", "stay"):
            ratios["consistent"] = Ratio(columns["same"], one)
        elif self._expectation == "move":
            ratios |= {"both": Ratio(right * plain, one), "stuck": Ratio(columns["stuck"], one)}
        elif self._expectation == "reject":
            del ratios["retention"]
            ratios |= _rejection(columns["score"], columns["plain_score"])
        elif self._expectation == "same":
            errors = [name for name in self._kinds if name not in ("correct", "wrong", "false_acceptance")]
            ratios = {"right": ratios["right"], **{name: Ratio(columns[name], one) for name in errors}}
            ratios["chance"] = Ratio(1 / (1 + columns["peers"]), one)
        for name in ("mask_iou", "plain_mask_iou"):
            measured = ~np.isnan(columns[name])
            if measured.any() and self._expectation not in ("reject", "same"):
                ratios[name] = Ratio(np.where(measured, columns[name], 0.0), measured.astype(np.float64))
        return ratios


def _rejection(scores: Array, plain: Array) -> dict[str, Ratio]:
    """False answers by threshold, and how well scores tell questions that mean something from those that do not."""
    one = np.ones(len(scores))
    ratios = {f"false@{percent}": Ratio(1.0 * (scores >= percent / 100), one) for percent in FALSE_AT}
    if len(np.unique(np.concatenate([scores, plain]))) > 1:  # a model without scores has no curve
        ratios["auroc"] = influence.auroc(plain, scores)
        limit = np.quantile(plain, 1 - SURE, method="lower")
        ratios["fpr95"] = Ratio(1.0 * (scores >= limit), one)
    return ratios


def _mask_iou(pairs: Pairs) -> Array:
    """IoU of each mask, float64 [n]; NaN everywhere unless predictions and single targets have masks."""
    missing = np.full(len(pairs), np.nan)
    if not pairs.table.has_masks or not pairs.predictions.has("mask") or (pairs.target_counts != 1).any():
        return missing
    predicted, annotated, shared = pairs.mask_areas()
    union: Any = predicted + annotated - shared
    return np.divide(shared, union, out=np.zeros(len(pairs)), where=union != 0)
