"""Does a model know when nothing is meant: cgF1 of SA-Co, and the AUROC of its no-target score.

cgF1 (SAM 3, Carion et al., arXiv 2511.16719; ``sam3/eval/cgf1_eval.py`` of facebookresearch/sam3, boxes): boxes with
a score >= 0.5 are matched one to one so that the sum of IoUs is largest. ``pmf1`` is F1 over the boxes of all
expressions with a target, ``il_mcc`` Matthews' correlation of "something is answered" with "something is meant", and
``cgf1`` their product; ``pmf1`` and ``cgf1`` are means over the IoU thresholds 0.50, 0.55, ..., 0.95. The small
numbers in the denominators are those of the authors' code. (Theirs counts instances by masks, too; a predictions file
has the union of all masks only.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vgbench.data.boxes import iou
from vgbench.metrics import influence
from vgbench.metrics.base import GroundingMetric, Ratio, Variant
from vgbench.metrics.frames import Array
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.tasks import SUITE
from vgbench.metrics.verdict import top_scores

THRESHOLDS = np.linspace(0.5, 0.95, 10)
EPSILON, IMAGE_EPSILON = 1e-4, 1e-6


@dataclass(frozen=True)
class RejectionRule:
    """Which boxes are an answer: those with at least this score (``strict``: with more), or ``percent`` where a variant
    names one. ``single``: F1 at IoU 0.5 and N3R are computed instead of cgF1."""

    score: float = 0.5
    percent: int | None = None
    strict: bool = False
    single: bool = False

    @property
    def limit(self) -> float:
        """The score that a box needs."""
        return self.score if self.percent is None else self.percent / 100


class Rejection(GroundingMetric):
    """``cgf1``, ``pmf1``, ``il_mcc``, ``auroc``, ``n_acc`` and ``t_acc``."""

    task = SUITE["rejection"]
    Rule = RejectionRule
    variants: ClassVar = {
        "score": Variant({}, "boxes with a score of at least N percent are the answer (@N), not 50", "percent"),
        "n3r": Variant(
            {"score": 0.3, "strict": True, "single": True},
            "OpenRef: score > 0.3; F1 of the boxes at IoU 0.5, and N3R, which weighs answers to nothing by score",
            headline=("f1", "n3r", "n_acc"),
        ),
    }

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers kept per expression."""
        return (*(f"tp{place}" for place in range(len(THRESHOLDS))), "boxes", "targets", "score", "doubt")

    def measure(self, pairs: Pairs) -> dict[str, Array]:
        """Per expression [n]: ``tpK`` matched boxes at the K-th threshold, ``boxes`` and ``targets`` how many there
        are, ``score`` the highest, or 0 and 1 where the model decides without scores, ``doubt`` the product of
        1 - score."""
        from scipy.optimize import linear_sum_assignment  # the other metrics do without

        limit = self.rule.limit
        counts = pairs.predictions.box_counts
        starts = np.cumsum(counts) - counts
        above = pairs.predictions.scores > limit if self.rule.strict else pairs.predictions.scores >= limit
        target_starts = np.cumsum(pairs.target_counts) - pairs.target_counts
        matched = np.zeros((len(THRESHOLDS), len(pairs)))
        boxes, doubt = np.zeros(len(pairs)), np.ones(len(pairs))
        for row in range(len(pairs)):
            part = slice(starts[row], starts[row] + counts[row])
            answer = pairs.boxes[part][above[part]]
            boxes[row], doubt[row] = len(answer), np.prod(1 - pairs.predictions.scores[part][above[part]])
            targets = pairs.targets[target_starts[row] : target_starts[row] + pairs.target_counts[row]]
            if len(answer) and len(targets):
                overlap = iou(answer[:, None], targets[None])
                chosen_overlaps = overlap[linear_sum_assignment(-overlap)]
                matched[:, row] = (chosen_overlaps >= THRESHOLDS[:, None]).sum(1)
        decision = pairs.predictions.no_target
        scores = top_scores(pairs.predictions)
        if not scores.any() and (decision >= 0).any():
            scores = 1.0 * (decision == 0)
        columns = {f"tp{place}": values for place, values in enumerate(matched)}
        return {**columns, "boxes": boxes, "targets": pairs.target_counts, "score": scores, "doubt": doubt}

    def ratios(self, columns: dict[str, Array]) -> dict[str, Ratio]:
        """``cgf1``, ``pmf1`` and ``il_mcc``; ``auroc`` of the score, high where something is meant; ``n_acc`` and
        ``t_acc``, the shares of expressions without and with a target that are rejected and answered."""
        if self.rule.single:
            return _openref(columns)
        meant, answered = columns["targets"] > 0, columns["boxes"] > 0
        hits = np.stack([columns[f"tp{place}"] for place in range(len(THRESHOLDS))])
        false = np.where(meant, columns["boxes"], 0) - hits
        missed = columns["targets"] - hits
        image = [meant & answered, ~meant & answered, ~meant & ~answered, meant & ~answered]
        sums = np.concatenate([hits, false, missed, np.array(image, dtype=np.float64)]).T
        ratios = {
            "cgf1": influence.from_sums(lambda s: _pmf1(s) * _mcc(s), sums),
            "pmf1": influence.from_sums(_pmf1, sums),
            "il_mcc": influence.from_sums(_mcc, sums),
            "auroc": influence.auroc_of(columns["score"], meant),
            "n_acc": Ratio(1.0 * (~meant & ~answered), 1.0 * ~meant),
            "t_acc": Ratio(1.0 * (meant & answered), 1.0 * meant),
        }
        if not meant.any():
            nothing = Ratio(np.zeros(len(meant)), np.zeros(len(meant)))
            ratios |= {"cgf1": nothing, "pmf1": nothing, "il_mcc": nothing}
        return ratios


def _openref(columns: dict[str, Array]) -> dict[str, Ratio]:
    """``f1``, ``precision`` and ``recall`` of the boxes of all expressions with a target, at IoU 0.5; ``n3r``, the mean
    of the products of 1 - score over expressions without one, and ``n_acc``, the share of them without a box.

    OpenRef (Wu and Zhang, arXiv 2605.25706): ``mcc_F1.py`` and ``grounding dino/evalneg.py`` of
    https://github.com/zongjianwu/OpenRef-Benchmark, without the 1e-6 in its denominators.
    """
    meant = columns["targets"] > 0
    hits, boxes, targets = (np.where(meant, columns[name], 0.0) for name in ("tp0", "boxes", "targets"))
    return {
        "f1": Ratio(2 * hits, boxes + targets),
        "precision": Ratio(hits, boxes),
        "recall": Ratio(hits, targets),
        "n3r": Ratio(np.where(meant, 0.0, columns["doubt"]), 1.0 * ~meant),
        "n_acc": Ratio(1.0 * (~meant & (columns["boxes"] == 0)), 1.0 * ~meant),
    }


def _pmf1(sums: Array) -> float:
    """F1 of the boxes of expressions with a target, mean over the thresholds."""
    hits, false, missed = (sums[place * len(THRESHOLDS) : (place + 1) * len(THRESHOLDS)] for place in range(3))
    precision = hits / (hits + false + EPSILON)
    recall = hits / (hits + missed + EPSILON)
    return float((2 * precision * recall / (precision + recall + EPSILON)).mean())


def _mcc(sums: Array) -> float:
    """Matthews' correlation of answering with meaning, from the last four sums."""
    tp, fp, tn, fn = sums[-4:]
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return float((tp * tn - fp * fn) / (max(product, 0.0) ** 0.5 + IMAGE_EPSILON))
