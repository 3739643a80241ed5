"""Intervals and tests against closed forms and scipy."""

import numpy as np
import pytest
from scipy import stats

from vgbench.metrics.base import Outcomes, Ratio
from vgbench.metrics.bootstrap import compare_paired, intervals, resample

RANDOM = np.random.default_rng(0)


def outcomes(num, den=None):
    num = np.asarray(num, dtype=np.float64)
    return Outcomes(np.arange(len(num)), {"m": Ratio(num, np.ones(len(num)) if den is None else den)})


def test_interval_of_a_proportion_equals_scipy():
    hits = (RANDOM.random(400) < 0.7).astype(float)
    low, high = intervals({"m": Ratio(hits, np.ones(400))}, np.arange(400), resamples=4000)["m"]
    reference = stats.bootstrap(
        (hits,), np.mean, n_resamples=4000, method="percentile", random_state=1
    ).confidence_interval
    assert (low, high) == pytest.approx((100 * reference.low, 100 * reference.high), abs=0.6)


def test_images_are_resampled_whole():
    # Ten equal expressions per image: the interval must be that of 40 images, not of 400 expressions.
    images = np.repeat(np.arange(40), 10)
    hits = np.repeat((RANDOM.random(40) < 0.5).astype(float), 10)
    clustered = intervals({"m": Ratio(hits, np.ones(400))}, images)["m"]
    naive = intervals({"m": Ratio(hits, np.ones(400))}, np.arange(400))["m"]
    assert (clustered[1] - clustered[0]) / (naive[1] - naive[0]) == pytest.approx(np.sqrt(10), rel=0.15)


def test_ratios_are_resampled_as_ratios():
    inter, union = RANDOM.uniform(0, 50, 300), RANDOM.uniform(50, 5000, 300)
    samples = resample({"oiou": Ratio(inter, union)}, np.arange(300), resamples=3000)
    value = 100 * inter.sum() / union.sum()
    # Delta method: variance of a ratio of means.
    residual = inter - value / 100 * union
    expected = 100 * np.sqrt(residual.var() / 300) / union.mean()
    assert samples.mean() == pytest.approx(value, rel=0.01)
    assert samples.std() == pytest.approx(expected, rel=0.06)


def test_undefined_metrics_have_no_interval():
    nothing = Ratio(np.zeros(5), np.zeros(5))
    assert np.isnan(intervals({"n_acc": nothing}, np.arange(5))["n_acc"]).all()
    rare = Ratio(np.array([1.0, 0, 0, 0, 0]), np.array([1.0, 0, 0, 0, 0]))  # most resamples do not define it
    assert intervals({"n_acc": rare}, np.arange(5))["n_acc"] == (100, 100)


def test_seed_and_order_of_metrics_do_not_matter():
    one, other = Ratio(RANDOM.random(50), np.ones(50)), Ratio(RANDOM.random(50), np.ones(50))
    images = np.arange(50) // 3
    together = resample({"a": one, "b": other}, images, 20, seed=4)
    assert np.array_equal(together[:, 1], resample({"b": other}, images, 20, seed=4)[:, 0])
    assert not np.array_equal(together, resample({"a": one, "b": other}, images, 20, seed=5))


def test_paired_comparison_equals_scipy_permutation_test():
    first = RANDOM.normal(0.5, 0.2, 60)
    second = first + RANDOM.normal(0.03, 0.1, 60)
    result = compare_paired(outcomes(first), outcomes(second), "m", np.arange(60), resamples=4000)
    reference = stats.permutation_test(
        (second, first), lambda x, y: np.mean(x) - np.mean(y), permutation_type="samples", n_resamples=4000
    )
    assert result.difference == pytest.approx(100 * (second - first).mean())
    assert result.p_permutation == pytest.approx(reference.pvalue, abs=0.03)
    assert result.p_bootstrap == pytest.approx(reference.pvalue, abs=0.03)
    assert result.low < result.difference < result.high


def test_pairing_sees_what_intervals_do_not():
    first = (RANDOM.random(2000) < 0.8).astype(float)
    second = first.copy()
    second[np.flatnonzero(first == 0)[:20]] = 1  # one point better, never worse
    result = compare_paired(outcomes(first), outcomes(second), "m", np.arange(2000))
    assert result.difference == pytest.approx(1.0)
    assert result.p_permutation < 0.01 and result.low > 0
    same = compare_paired(outcomes(first), outcomes(first), "m", np.arange(2000))
    assert (same.difference, same.p_permutation, same.p_bootstrap) == (0, 1, 1)


def test_clustered_test_is_more_careful():
    first = RANDOM.random(100).repeat(10)
    second = first + RANDOM.normal(0.02, 0.1, 100).repeat(10)
    by_image = compare_paired(outcomes(first), outcomes(second), "m", np.arange(1000) // 10)
    by_row = compare_paired(outcomes(first), outcomes(second), "m", np.arange(1000))
    assert by_image.p_permutation > by_row.p_permutation
    assert (by_image.images, by_image.n) == (100, 1000)


def test_different_expressions_are_refused():
    with pytest.raises(ValueError, match="different expressions"):
        compare_paired(outcomes([1, 2]), outcomes([1, 2, 3]), "m", np.arange(2))
