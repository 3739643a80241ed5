"""Generalised referring expression comprehension: any number of boxes, or none.

Default (the evaluator of gRefCOCO's authors): boxes with score >= 0.7 are kept and matched greedily, largest
generalised IoU first, while it is >= 0.5; ``F1 = 2 TP / (2 TP + FP + FN)``. ``pr@f1`` is the share of all expressions
with F1 = 1 (no target: nothing kept), ``n_acc`` the share of no-target expressions with nothing kept, ``t_acc`` the
share of the others with something kept, right or wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vgbench.metrics import boxes as overlaps
from vgbench.metrics.base import GroundingMetric, Ratio, Variant, batch_means
from vgbench.metrics.frames import Array
from vgbench.metrics.pairs import Pairs, pad
from vgbench.metrics.single import first_box_overlaps, single_ratios
from vgbench.metrics.tasks import SUITE
from vgbench.predictions.table import GREC_SCORE_THRESHOLD, Predictions

_CHUNK = 2048  # expressions matched at once: bounds the memory of [n, kept, targets]


@dataclass(frozen=True)
class GRECRule:
    """Which boxes are kept and how they are matched. ``score32``: the score 0.7 itself, stored in float32, is kept.
    ``single``: the first of them alone is judged, at these IoUs; ``mean``: by the mean over them."""

    overlap: str = "giou"
    score: float = GREC_SCORE_THRESHOLD
    score32: bool = False
    score_strict: bool = False
    first_target: bool = False
    threshold: float = 0.5
    batch: int | None = None
    percent: int | None = None
    single: tuple[float, ...] = ()
    mean: bool = False

    @property
    def limit(self) -> float:
        """The score that a box needs: ``percent`` where a variant names one, else ``score``."""
        return self.score if self.percent is None else self.percent / 100


class GREC(GroundingMetric):
    """``pr@f1``, ``n_acc`` and ``t_acc``; variants see :attr:`variants`."""

    task = SUITE["grec"]
    Rule = GRECRule
    variants: ClassVar = {
        "iou": Variant({"overlap": "iou"}, "what the GREC paper's text says: plain IoU >= 0.5"),
        "first_box": Variant(
            {"overlap": "iou", "score32": True, "first_target": True},
            "MMDetection: plain IoU, only the first target of an expression, score 0.7 in float32",
        ),
        "batch_mean": Variant({"batch": 16}, "SimVG, ALVG, C3VG: mean over batches (@16), no t_acc", "batch"),
        "score": Variant({}, "boxes with a score of at least N percent are kept (@N), where others keep 70", "percent"),
        "single": Variant(
            {"single": (0.5, 0.75, 0.9)},
            "GroundingME: the first box alone, IoU >= 0.5, 0.75, 0.9; of a rejection, whether there is none",
            headline=("acc@0.5", "acc@0.75", "acc@0.9"),
        ),
        "macc": Variant(
            {"single": tuple(np.arange(0.5, 0.95, 0.05).tolist()), "mean": True},
            "RefBench-PRO: the same, mean over IoU >= 0.50, 0.55, ..., 0.90",
            headline=("macc",),
        ),
        "whole_set": Variant({"score_strict": True}, "PropVG: score > 0.7 (InstanceVG: >=, the default)"),
    }

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers kept per expression."""
        return ("iou" if self.rule.single else "right", "kept", "no_target")

    def note(self, predictions: Predictions) -> str | None:
        """What a reader of the number has to know of these predictions; None: nothing."""
        return score_note(self.spec, self.rule.limit, predictions, "every box is dropped")

    def measure(self, pairs: Pairs) -> dict[str, Array]:
        """Per expression [n]: ``right`` (F1 = 1) or ``iou`` of the first box, ``kept`` (number of boxes above the
        threshold), ``no_target``.

        Raises:
            UserError: if one box is judged (``grec/single``, ``grec/macc``) and an expression has several targets.
        """
        rule: GRECRule = self.rule
        above_limit = keep_boxes(pairs, rule)
        owner = np.repeat(np.arange(len(pairs)), pairs.predictions.box_counts)
        counts = np.bincount(owner[above_limit], minlength=len(pairs))
        if rule.single:
            iou = first_box_overlaps(pairs, above_limit, self.spec)
            return {"iou": iou, "kept": counts, "no_target": pairs.target_counts == 0}
        targets, target_counts = pairs.targets, pairs.target_counts
        if rule.first_target:
            starts = np.cumsum(target_counts) - target_counts
            targets, target_counts = targets[starts[target_counts > 0]], np.minimum(target_counts, 1)
        matched = match(pairs.boxes[above_limit], counts, targets, target_counts, rule)
        return {
            # F1 = 1 is the same as: everything kept is matched and every target is.
            "right": (matched == counts) & (matched == target_counts),
            "kept": counts,
            "no_target": pairs.target_counts == 0,
        }

    def ratios(self, columns: dict[str, Array]) -> dict[str, Ratio]:
        """``pr@f1`` of all expressions, ``n_acc`` of those without and ``t_acc`` of those with a target; of one box see
        :func:`~vgbench.metrics.single.single_ratios`."""
        if not self.rule.single:
            return grec_ratios(columns, self.rule.batch)
        ratios = single_ratios(columns, self.rule.single, self.rule.mean)
        batch = self.rule.batch
        return {name: batch_means(ratio, batch) for name, ratio in ratios.items()} if batch else ratios


def score_note(spec: str, limit: float, predictions: Predictions, meaning: str) -> str | None:
    """That no score of a split reaches the threshold of a metric, which then says little."""
    if not len(predictions.scores) or predictions.scores.max() >= limit:
        return None
    task = spec.partition("/")[0]
    return (
        f"{spec}: no score reaches {limit:g} (the largest is {predictions.scores.max():.3g}), so {meaning}; another "
        f"threshold has a variant of its own, e.g. --variant {task}/score@30"
    )


def keep_boxes(pairs: Pairs, rule: GRECRule) -> Array:
    """Which predicted boxes pass the score threshold, bool [N]."""
    scores = pairs.predictions.scores
    kind = np.float32 if rule.score32 else np.float64
    limit, values = kind(rule.limit), scores.astype(kind)
    return values > limit if rule.score_strict else values >= limit


def match(boxes: Array, counts: Array, targets: Array, target_counts: Array, rule: GRECRule) -> Array:
    """Number of greedy matches of each expression, int64 [n]; boxes and targets are ragged [N, 4] with counts [n]."""
    result = np.zeros(len(counts), dtype=np.int64)
    overlap = {"iou": overlaps.iou, "giou": overlaps.giou}[rule.overlap]
    ends, target_ends = np.cumsum(counts), np.cumsum(target_counts)
    for start in range(0, len(counts), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(counts)))
        part, target_part = counts[rows], target_counts[rows]
        predicted, valid = pad(boxes[ends[rows][0] - part[0] : ends[rows][-1]], part)
        annotated, target_valid = pad(
            targets[target_ends[rows][0] - target_part[0] : target_ends[rows][-1]], target_part
        )
        if not predicted.shape[1] or not annotated.shape[1]:
            continue
        matrix = overlap(predicted[:, :, None], annotated[:, None])
        matrix = np.where(valid[:, :, None] & target_valid[:, None], matrix, -np.inf)
        index = np.arange(len(part))
        for _ in range(min(matrix.shape[1:])):
            best = matrix.reshape(len(part), -1).argmax(1)
            row, column = best // matrix.shape[2], best % matrix.shape[2]
            hit = matrix[index, row, column] >= rule.threshold
            if not hit.any():
                break
            result[rows] += hit
            matrix[index, row] = -np.inf
            matrix[index, :, column] = -np.inf
    return result


def grec_ratios(columns: dict[str, Array], batch: int | None) -> dict[str, Ratio]:
    """F1 score, N-acc and T-acc from right, kept (number) and no_target."""
    none, answered = columns["no_target"], columns["kept"] > 0
    ratios = {
        "pr@f1": Ratio(columns["right"].astype(np.float64), np.ones(len(none))),
        "n_acc": Ratio(none * ~answered, none),
        "t_acc": Ratio((1 - none) * answered, 1 - none),
    }
    if batch:
        ratios = {name: batch_means(ratio, batch) for name, ratio in ratios.items() if name != "t_acc"}
    return ratios
