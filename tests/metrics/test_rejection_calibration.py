"""cgF1, AUROC and calibration against hand computations and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

from vgbench.core.errors import UserError
from vgbench.data.table import AnnotationTable
from vgbench.metrics import influence
from vgbench.metrics.bootstrap import intervals
from vgbench.metrics.calibration import Calibration, coverage_weights, reliability
from vgbench.metrics.evaluator import default_tasks, evaluate_predictions
from vgbench.metrics.threshold import best_threshold
from vgbench.predictions.table import Predictions
from vgbench.types import Prediction


def table(*targets: list[tuple[float, float, float, float]], task: str = "grec") -> AnnotationTable:
    rows = [
        {
            "key": str(number),
            "image_id": number,
            "image": f"{number}.png",
            "width": 100,
            "height": 100,
            "expression": "thing",
            "boxes": boxes,
            **{name: [] for name in ("masks", "polygons", "ann_ids", "categories")},
            "ref_id": None,
            "sent_id": None,
            "group": number,
            "source": "coco",
            "split": "val",
        }
        for number, boxes in enumerate(targets)
    ]
    return AnnotationTable.from_rows(rows, {"dataset": "made", "split": "val", "task": task})


def answers(*boxes: list[tuple[tuple[float, float, float, float], float]]) -> Predictions:
    made = [
        Prediction(
            torch.tensor([box for box, _ in one], dtype=torch.float32).reshape(-1, 4),
            torch.tensor([score for _, score in one], dtype=torch.float64),
        )
        for one in boxes
    ]
    return Predictions.from_list([str(number) for number in range(len(boxes))], made)


A, B = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 70.0, 70.0)


def test_cgf1_by_hand() -> None:
    """Two expressions with targets, two without. IoU of the second answer with A is 0.8."""
    data = table([A, B], [A], [], [])
    given = answers(
        [(A, 0.9), (B, 0.8)],  # both right
        [((0.0, 0.0, 10.0, 8.0), 0.6), (B, 0.4)],  # IoU 0.8: right up to 0.8; the second is below 0.5
        [(A, 0.7)],  # false
        [(A, 0.3)],  # rejected
    )
    report = evaluate_predictions(data, given, ["rejection"], bootstrap=0)
    # instances: 3 right of 3 answered and 3 targets for 0.50 ... 0.80 (seven thresholds), else 2 of 3 and 3
    f1 = (7 * 1 + 3 * 2 / 3) / 10
    # expressions: two hits, one false alarm, one correct rejection, no miss
    mcc = (2 * 1 - 1 * 0) / math.sqrt(3 * 2 * 2 * 1)
    assert report.values["rejection/pmf1"] == pytest.approx(100 * f1, abs=0.02)  # the authors' 1e-4 in denominators
    assert report.values["rejection/il_mcc"] == pytest.approx(100 * mcc, abs=1e-3)
    assert report.values["rejection/cgf1"] == pytest.approx(100 * f1 * mcc, abs=0.02)
    assert report.values["rejection/n_acc"] == 50
    assert report.values["rejection/t_acc"] == 100
    # scores of those with a target: 0.9, 0.6; without: 0.7, 0.3: three of four pairs in order
    assert report.values["rejection/auroc"] == pytest.approx(75)
    # at 0.75 the second expression is rejected, and so is the third
    strict = evaluate_predictions(data, given, ["rejection/score@75"], bootstrap=0)
    assert strict.values["rejection/score@75/t_acc"] == 50
    assert strict.values["rejection/score@75/n_acc"] == 100


def test_boxes_are_matched_so_that_the_sum_is_largest() -> None:
    """Greedy would give the first target to the answer that both need."""
    first, second = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 16.0)
    data = table([first, second])
    given = answers([((0.0, 0.0, 10.0, 12.0), 0.9), ((0.0, 0.0, 10.0, 9.0), 0.9)])
    report = evaluate_predictions(data, given, ["rejection"], bootstrap=0)
    # (12 with 16: 0.75) + (9 with 10: 0.9): both right for six thresholds, one for three, none at 0.95
    assert report.values["rejection/pmf1"] == pytest.approx(100 * (6 * 1 + 3 * 0.5) / 10, abs=0.03)


def test_nothing_is_defined_that_nothing_counts_for() -> None:
    report = evaluate_predictions(table([], []), answers([], [(A, 0.9)]), ["rejection"], bootstrap=10)
    assert math.isnan(report.values["rejection/cgf1"]) and math.isnan(report.values["rejection/auroc"])
    assert report.values["rejection/n_acc"] == 50
    assert default_tasks(table([A], []), answers([(A, 1.0)], [])) == ["grec"]  # on request only


def test_auroc_and_its_interval() -> None:
    random = np.random.default_rng(0)
    scores, positive = random.normal(size=300), random.integers(0, 2, 300)
    scores[positive == 1] += 1
    scores = scores.round(1)  # ties
    ratio = influence.auroc_of(scores, positive)
    expected = binary_auroc(torch.tensor(scores).sigmoid(), torch.tensor(positive))
    assert ratio.value == pytest.approx(100 * float(expected), abs=1e-4)
    low, high = intervals({"auroc": ratio}, np.arange(300))["auroc"]
    samples = []
    for _ in range(400):
        drawn = random.integers(0, 300, 300)
        samples.append(influence.auroc_of(scores[drawn], positive[drawn]).value)
    assert (low, high) == pytest.approx(np.quantile(samples, [0.025, 0.975]), abs=0.8)
    paired = influence.auroc(scores[:100], scores[100:200])
    both = influence.auroc_of(scores[:200], np.arange(200) < 100)
    assert paired.value == pytest.approx(both.value)


def test_calibration_against_torchmetrics_and_by_hand() -> None:
    random = np.random.default_rng(1)
    scores = random.uniform(0.05, 1, 200)
    hit = random.uniform(size=200) < scores**2
    data = table(*[[A]] * 200, task="rec")
    given = answers(*[[(A if right else B, float(score))] for right, score in zip(hit, scores, strict=True)])
    report = evaluate_predictions(data, given, ["calibration"], bootstrap=50)
    expected = binary_calibration_error(torch.tensor(scores), torch.tensor(hit).int(), n_bins=10, norm="l1")
    assert report.values["calibration/ece"] == pytest.approx(100 * float(expected), abs=1e-3)
    assert report.values["calibration/brier"] == pytest.approx(100 * float(((hit - scores) ** 2).mean()))
    assert report.values["calibration/accuracy"] == pytest.approx(100 * hit.mean())
    wrong = 1 - hit[np.argsort(-scores)]
    curve = np.cumsum(wrong) / np.arange(1, 201)
    assert report.values["calibration/aurc"] == pytest.approx(100 * curve.mean())
    assert report.values["calibration/risk@50"] == pytest.approx(100 * curve[99])
    assert report.values["calibration/risk@100"] == pytest.approx(100 * (1 - hit.mean()))
    bins = reliability(report.outcomes["calibration"], data.column("image_id"), bootstrap=0)
    members = (scores > 0.8) & (scores <= 0.9)
    assert bins["accuracy"]["score"]["0.8-0.9"].value == pytest.approx(100 * hit[members].mean())
    assert bins["confidence"]["score"]["0.8-0.9"].n == members.sum()
    assert coverage_weights(np.array([0.5, 0.5])).tolist() == [1.0, 1.0]  # ties share (1 + 1/2) and 1/2
    with pytest.raises(UserError, match="exactly one"):
        evaluate_predictions(table([A, B]), answers([(A, 1.0)]), ["calibration"])
    assert not Calibration.higher_is_better


def test_the_threshold_is_the_best_of_all() -> None:
    """0.42 keeps both right boxes and drops the false one; 0.7 would drop a right one."""
    data = table([A], [B], [], [A])
    given = answers([(A, 0.95)], [(B, 0.45)], [(A, 0.42)], [(B, 0.1)])
    percent = best_threshold(data, given)
    assert percent == 45  # 43, 44 and 45 are equally good: the one next to 70
    report = evaluate_predictions(data, given, ["grec", f"grec/score@{percent}"], bootstrap=0)
    assert report.values["grec/pr@f1"] == 50
    assert report.values[f"grec/score@{percent}/pr@f1"] == 75
