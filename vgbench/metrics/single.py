"""Expressions of one target or none, each judged by one box: the accuracy of GroundingME and of RefBench-PRO."""

from __future__ import annotations

import numpy as np

from vgbench.core.errors import UserError
from vgbench.metrics import boxes as overlaps
from vgbench.metrics.base import Ratio
from vgbench.metrics.frames import Array
from vgbench.metrics.pairs import Pairs


def lone_targets(pairs: Pairs, metric: str) -> Array:
    """The target of each expression, float64 [n, 4]; zeros where nothing is meant.

    Args:
        metric: for the error.

    Raises:
        UserError: if an expression has several targets.
    """
    counts = pairs.target_counts
    if (counts > 1).any():
        index = int(np.flatnonzero(counts > 1)[0])
        raise UserError(
            f"{pairs.table.row(index).key}: {counts[index]} targets, but {metric} is for one target or none; score "
            "this dataset with grec"
        )
    targets = np.zeros((len(pairs), 4))
    targets[counts > 0] = pairs.targets
    return targets


def first_box_overlaps(pairs: Pairs, kept: Array, metric: str) -> Array:
    """IoU of the first kept box with the target, float64 [n]; without a target 1 where no box is kept, else 0.

    Args:
        kept: which predicted boxes count, bool [N].
        metric: for the error.

    Raises:
        UserError: if an expression has several targets.
    """
    owner = np.repeat(np.arange(len(pairs)), pairs.predictions.box_counts)
    counts = np.bincount(owner[kept], minlength=len(pairs))
    first = np.zeros((len(pairs), 4))
    first[counts > 0] = pairs.boxes[kept][(np.cumsum(counts) - counts)[counts > 0]]
    overlap = np.where(counts > 0, overlaps.iou(first, lone_targets(pairs, metric)), 0.0)
    overlap[(counts == 0) & (pairs.target_counts == 0)] = 1.0
    return overlap


def single_ratios(columns: dict[str, Array], thresholds: tuple[float, ...], mean: bool) -> dict[str, Ratio]:
    """``acc@T`` for every threshold, or their mean ``macc``; ``miou``, ``n_acc``, ``t_acc``. Where nothing is meant,
    the accuracies and the IoU are 1 if nothing is answered, else 0."""
    one = np.ones(len(columns["iou"]))
    accuracies = {f"acc@{round(t, 2):g}": Ratio(1.0 * (columns["iou"] >= t), one) for t in thresholds}
    if mean:
        hits = np.mean([ratio.num for ratio in accuracies.values()], axis=0)
        accuracies = {"macc": Ratio(hits, one), "acc@0.5": accuracies["acc@0.5"]}
    none, answered = columns["no_target"] > 0, columns["kept"] > 0
    return {
        **accuracies,
        "miou": Ratio(columns["iou"], one),
        "n_acc": Ratio(1.0 * (none & ~answered), 1.0 * none),
        "t_acc": Ratio(1.0 * (~none & answered), 1.0 * ~none),
    }
