"""Are scores probabilities of being right, and is it worth to answer only when they are high?

``ece``: expected calibration error over ten bins of equal width (Guo et al., ICML 2017, arXiv 1706.04599). ``brier``:
mean squared difference of score and verdict. ``aurc``: area under the risk-coverage curve, the mean over all
coverages of the share of wrong answers among those that score highest (Geifman et al., ICLR 2019, arXiv 1805.08206).
``risk@C``: that share when C percent are answered. All are better when lower.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vgbench.metrics.base import GroundingMetric, Outcomes, Ratio
from vgbench.metrics.bootstrap import intervals
from vgbench.metrics.frames import Array
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.slices import SliceScore
from vgbench.metrics.tasks import SUITE
from vgbench.metrics.verdict import is_right, top_scores

BINS = 10
COVERAGES = (50, 70, 80, 90, 100)  # percent


@dataclass(frozen=True)
class CalibrationRule:
    """There are no variants."""


class Calibration(GroundingMetric):
    """``ece``, ``brier``, ``aurc``, ``risk@50`` ... ``risk@100`` of the first box and its score; ``accuracy`` and
    ``confidence`` are the means of verdict and score."""

    task = SUITE["calibration"]
    Rule = CalibrationRule
    variants: ClassVar = {}
    higher_is_better = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers kept per expression."""
        return ("score", "right")

    def measure(self, pairs: Pairs) -> dict[str, Array]:
        """Per expression [n]: ``score`` of the first box (0 without one) and ``right``, whether its IoU is >= 0.5.

        Raises:
            UserError: if an expression does not have exactly one target.
        """
        pairs.single_target(self.spec)
        return {"score": top_scores(pairs.predictions), "right": is_right(pairs, "boxes")}

    def ratios(self, columns: dict[str, Array]) -> dict[str, Ratio]:
        """All of :class:`Calibration`. The order of the scores and the bins are those of all expressions: intervals
        take them as given."""
        score, right = columns["score"], columns["right"]
        one = np.ones(len(score))
        gap = right - score
        sign = np.sign(np.bincount(bins(score), weights=gap, minlength=BINS))[bins(score)]
        wrong = 1 - right
        ratios = {
            "ece": Ratio(sign * gap, one),
            "brier": Ratio(gap**2, one),
            "aurc": Ratio(wrong * coverage_weights(score), one),
            "accuracy": Ratio(right, one),
            "confidence": Ratio(score, one),
        }
        place = ranks(score)
        for percent in COVERAGES:
            answered = 1.0 * (place < np.ceil(percent / 100 * len(score)))
            ratios[f"risk@{percent}"] = Ratio(wrong * answered, answered)
        return ratios


def bins(score: Array) -> Array:
    """The bin of each score, int64 [n]: (0, 0.1], ..., (0.9, 1], and 0 in the first."""
    return np.clip(np.ceil(score * BINS - 1e-9).astype(np.int64) - 1, 0, BINS - 1)


def ranks(score: Array) -> Array:
    """Place of each score from the highest down, 0 first; ties in the order of the table."""
    place = np.empty(len(score), dtype=np.int64)
    place[np.argsort(-score, kind="stable")] = np.arange(len(score))
    return place


def coverage_weights(score: Array) -> Array:
    """How much an error at each place adds to the area, times n: sum over all coverages that hold it of 1 / coverage.

    Ties share the mean of their weights: no order among them is better than another."""
    count = len(score)
    weights = np.cumsum(1.0 / np.arange(1, count + 1)[::-1])[::-1] if count else np.zeros(0)
    by_place = weights[ranks(score)]
    _, group = np.unique(score, return_inverse=True)
    return (np.bincount(group, weights=by_place) / np.bincount(group))[group] if count else by_place


def reliability(
    outcomes: Outcomes, images: Array, bootstrap: int = 1000
) -> dict[str, dict[str, dict[str, SliceScore]]]:
    """The reliability diagram: accuracy and mean score of every bin that has any, as slices.

    Args:
        outcomes: of :class:`Calibration`.
        images: of each expression, [n].
        bootstrap: resamples for the intervals; 0: none.
    """
    index = bins(outcomes.ratios["confidence"].num)
    slices: dict[str, dict[str, dict[str, SliceScore]]] = {}
    for name in ("accuracy", "confidence"):
        buckets = slices.setdefault(name, {}).setdefault("score", {})
        for number in np.unique(index).tolist():
            members = index == number
            ratio = outcomes.take(members).ratios[name]
            bounds = intervals({name: ratio}, images[members], bootstrap)[name] if bootstrap else (np.nan, np.nan)
            title = f"{number / BINS:.1f}-{(number + 1) / BINS:.1f}"
            buckets[title] = SliceScore(ratio.value, int(members.sum()), *bounds)
    return slices
