"""Numbers that are no ratio of two sums, as one: by what each expression adds to them.

Every smooth statistic is, to first order, a mean of influences (the infinitesimal jackknife; Efron, The Jackknife,
the Bootstrap and Other Resampling Plans, SIAM 1982, chapter 6). Written as pseudo-values, whose mean is the statistic
itself, it has intervals and paired tests from the same resampling as all others. The value is exact; intervals are
exact to first order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vgbench.metrics.base import Ratio
from vgbench.metrics.frames import Array

STEP = 1e-4  # relative step of the numerical gradient


def from_sums(statistic: Callable[[Array], float], columns: Array) -> Ratio:
    """A statistic of the column sums as a mean of pseudo-values.

    Args:
        statistic: of the sums [k], a fraction; smooth, and the same when all sums are multiplied by a number.
        columns: what each expression adds to each sum, float64 [n, k].
    """
    sums = columns.sum(0)
    value = statistic(sums)
    gradient = np.zeros(len(sums))
    for place, total in enumerate(sums):
        step = STEP * max(abs(total), 1.0)
        up, down = sums.copy(), sums.copy()
        up[place] += step
        down[place] = max(total - step, 0.0) if total >= 0 else total - step  # counts are never negative
        gradient[place] = (statistic(up) - statistic(down)) / (up[place] - down[place])
    influence = columns @ gradient
    return Ratio(value + len(columns) * (influence - influence.mean()), np.ones(len(columns)))


def auroc(positive: Array, negative: Array) -> Ratio:
    """Area under the ROC curve of two scores of the same n expressions: a positive and a negative one of each.

    It is the chance that a positive scores higher than a negative, ties counting half (Mann-Whitney); the pseudo-values
    are DeLong's placements (DeLong et al., Biometrics 1988).

    Args:
        positive: score of each expression as a positive example, [n].
        negative: and as a negative one, [n].
    """
    count = len(positive)
    if not count:
        return Ratio(np.zeros(0), np.zeros(0))
    below, above = _placements(positive, negative)
    return Ratio(below + above - below.mean(), np.ones(count))


def auroc_of(scores: Array, positive: Array) -> Ratio:
    """The same of expressions that are positive or negative examples.

    Args:
        scores: [n].
        positive: bool [n]. Undefined (nothing counts) unless there are both.
    """
    count, sure = len(scores), positive.astype(bool)
    if not sure.any() or sure.all():
        return Ratio(np.zeros(count), np.zeros(count))
    below, above = _placements(scores[sure], scores[~sure])
    value, influence = below.mean(), np.zeros(count)
    influence[sure] = (below - value) / sure.sum()
    influence[~sure] = (above - value) / (~sure).sum()
    return Ratio(value + count * influence, np.ones(count))


def _placements(positive: Array, negative: Array) -> tuple[Array, Array]:
    """For each positive the share of negatives below it, for each negative the share of positives above it."""
    from scipy.stats import rankdata  # the other metrics do without

    ranks = rankdata(np.concatenate([positive, negative]))
    m, n = len(positive), len(negative)
    below = (ranks[:m] - rankdata(positive)) / n
    above = 1 - (ranks[m:] - rankdata(negative)) / m
    return below, above
