"""How sure a number is, and whether two numbers differ.

Expressions of one image are not independent, so images are resampled, not expressions. Every metric is a ratio of
sums, so a resample is a weighting of per-image sums: 1000 resamples are one matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vgbench.metrics.base import Outcomes, Ratio
from vgbench.metrics.frames import Array

_BLOCK = 1 << 24  # random numbers held at once


def _cluster_sums(ratios: Mapping[str, Ratio], clusters: Array) -> Array:
    """Sums of each cluster, float64 [clusters, 2 * metrics]: all numerators, then all denominators."""
    _, index = np.unique(clusters, return_inverse=True)
    columns = [ratio.num for ratio in ratios.values()] + [ratio.den for ratio in ratios.values()]
    size = int(index.max()) + 1 if len(index) else 0
    return np.column_stack([np.bincount(index, weights=column, minlength=size) for column in columns])


def _percent(sums: Array) -> Array:
    """[..., 2 m] numerators and denominators -> [..., m] in percent, NaN where the denominator is 0."""
    num, den = np.split(sums, 2, axis=-1)
    return np.divide(100.0 * num, den, out=np.full(num.shape, np.nan), where=den != 0)


def resample(ratios: Mapping[str, Ratio], clusters: Array, resamples: int = 1000, seed: int = 0) -> Array:
    """Metrics of bootstrap samples, float64 [resamples, metrics] in percent.

    Args:
        ratios: metrics, [n] each.
        clusters: image of each expression, [n].
        resamples: number of bootstrap samples.
        seed: the same seed and images give the same samples, whatever the metric: results are paired.
    """
    sums = _cluster_sums(ratios, clusters)
    count = len(sums)
    random = np.random.default_rng(seed)
    result = np.empty((resamples, len(ratios)))
    step = max(1, _BLOCK // max(count, 1))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = random.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        weights = np.bincount(drawn.reshape(-1), minlength=size * count).reshape(size, count)
        result[start : start + size] = _percent(weights.astype(np.float64) @ sums)
    return result


def intervals(
    ratios: Mapping[str, Ratio], clusters: Array, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap interval of each metric, in percent; (NaN, NaN) where a metric is not defined."""
    if not len(clusters) or not ratios:
        return {name: (float("nan"), float("nan")) for name in ratios}
    samples = resample(ratios, clusters, resamples, seed)
    result = {}
    for column, name in enumerate(ratios):
        values = samples[:, column][~np.isnan(samples[:, column])]
        if not len(values) or np.isnan(ratios[name].value):
            result[name] = (float("nan"), float("nan"))
        else:
            low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
            result[name] = (float(low), float(high))
    return result


@dataclass(frozen=True)
class Comparison:
    """Difference of two results on the same expressions, second minus first, in points.

    Attributes:
        difference: of the metric.
        low, high: 95 % bootstrap interval of the difference.
        p_bootstrap: two-sided, from how often resampled differences cross 0.
        p_permutation: two-sided, exchanging the two results image by image.
        n, images: expressions and images.
    """

    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_permutation: float
    n: int
    images: int


def compare_paired(
    first: Outcomes, second: Outcomes, metric: str, clusters: Array, resamples: int = 1000, seed: int = 0
) -> Comparison:
    """Paired bootstrap and permutation test between two results of the same metric.

    Args:
        first, second: results on the same rows of the same table.
        metric: name in both.
        clusters: image of each expression, [n], in the order of ``first.rows``.
        resamples: of each test; p is never below ``1 / (resamples + 1)``.
        seed: of both tests.

    Raises:
        ValueError: if the two do not cover the same expressions.
    """
    if not np.array_equal(first.rows, second.rows) or len(clusters) != len(first.rows):
        raise ValueError("the two results are on different expressions")
    pair = {"first": first.ratios[metric], "second": second.ratios[metric]}
    difference = pair["second"].value - pair["first"].value
    samples = resample(pair, clusters, resamples, seed)
    deltas = samples[:, 1] - samples[:, 0]
    deltas = deltas[~np.isnan(deltas)]
    crossed = min((deltas <= 0).sum(), (deltas >= 0).sum())

    sums = _cluster_sums(pair, clusters)  # num first, num second, den first, den second
    random = np.random.default_rng(seed + 1)
    extreme = 0
    step = max(1, _BLOCK // max(len(sums), 1))
    for start in range(0, resamples, step):
        swap = random.integers(0, 2, (min(step, resamples - start), len(sums))).astype(np.float64)
        moved = swap @ (sums[:, [1, 0, 3, 2]] - sums)
        values = _percent(sums.sum(0) + moved)
        extreme += int((np.abs(values[:, 1] - values[:, 0]) >= abs(difference) - 1e-9).sum())
    low, high = np.quantile(deltas, [0.025, 0.975]) if len(deltas) else (np.nan, np.nan)
    return Comparison(
        difference=difference,
        low=float(low),
        high=float(high),
        p_bootstrap=min(1.0, 2 * (int(crossed) + 1) / (len(deltas) + 1)),
        p_permutation=(extreme + 1) / (resamples + 1),
        n=len(first.rows),
        images=len(sums),
    )
