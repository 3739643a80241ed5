"""Right or wrong, answer by answer, whatever it is made of: boxes, a mask or a point."""

from __future__ import annotations

import numpy as np

from vgbench.metrics.catalog import make_metric
from vgbench.metrics.frames import Array
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.tasks import Task, task_for
from vgbench.predictions.table import GREC_SCORE_THRESHOLD, Predictions

MASK_THRESHOLD = 0.5  # IoU of a mask that is right


def answer_kind(predictions: Predictions) -> str:
    """What the answers of a file are judged by: "boxes" where there are any, else "point", else "mask"."""
    if not predictions.box_counts.any():
        if predictions.has("point") or predictions.has("heatmap"):
            return "point"
        if predictions.has("mask"):
            return "mask"
    return "boxes"


def default_task(pairs: Pairs, kind: str) -> Task:
    """The suite's task that judges such answers to these expressions."""
    return task_for(kind, bool((pairs.target_counts != 1).any()))


def is_right(pairs: Pairs, kind: str) -> Array:
    """bool [n], whether each answer is right under the default metric of its kind.

    One target: IoU of the first box >= 0.5, or of the mask >= 0.5, or the point in the box. Any number: the boxes are
    those of the targets (GREC's F1 = 1), or the mask. Nothing meant: :func:`rejects`.

    Args:
        kind: of :func:`answer_kind`.
    """
    none = pairs.target_counts == 0
    if none.all():
        return rejects(pairs, kind)
    if kind == "mask":
        predicted, annotated, shared = pairs.mask_areas()
        union = predicted + annotated - shared
        iou = np.divide(shared, union, out=np.zeros(len(pairs)), where=union != 0)
        return np.where(none, rejects(pairs, kind), iou >= MASK_THRESHOLD)
    metric = make_metric((default_task(pairs, kind) if kind == "boxes" else task_for("point")).name)
    metric.sync_on_compute = False  # whoever judges has all answers
    metric.update(pairs)
    return metric.outcomes().ratios[metric.task.primary].num.astype(bool)


def rejects(pairs: Pairs, kind: str) -> Array:
    """bool [n], whether the model says that nothing is meant: by its own decision, else by no score >= 0.7 (the rule of
    gRefCOCO's evaluator), an empty mask, or no point."""
    decision = pairs.predictions.no_target
    if kind == "boxes":
        own = top_scores(pairs.predictions) < GREC_SCORE_THRESHOLD
    elif kind == "mask":
        own = pairs.mask_areas()[0] == 0
    else:
        own = (pairs.predictions.points < 0).all(1) & ~has_heatmap(pairs.predictions)
    return np.where(decision < 0, own, decision == 1)


def has_heatmap(predictions: Predictions) -> Array:
    """bool [n], which answers have a heat map."""
    return predictions.arrow.column("heatmap").is_valid().to_numpy()


def top_scores(predictions: Predictions) -> Array:
    """The highest score of each answer, float64 [n]; 0 where there is no box."""
    counts = predictions.box_counts
    ends = np.cumsum(counts)
    scores = np.zeros(len(counts))
    filled = counts > 0
    scores[filled] = predictions.scores[(ends - counts)[filled]]  # they never increase along an answer
    return scores


def first_boxes(predictions: Predictions) -> tuple[Array, Array]:
    """The first box of each answer, float64 [n, 4], and bool [n], whether there is one."""
    counts = predictions.box_counts
    valid = counts > 0
    boxes = np.zeros((len(counts), 4))
    boxes[valid] = predictions.boxes[(np.cumsum(counts) - counts)[valid]]
    return boxes, valid
