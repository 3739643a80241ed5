"""What probes count: the ground truth scores 100 % on every one, simple answers what a hand computation says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.probes.scenes import OBJECTS, annotations, fixed, oracle, questions
from vgbench.core.errors import UserError
from vgbench.metrics.bootstrap import compare_paired
from vgbench.metrics.errors import KINDS, error_kinds
from vgbench.metrics.evaluator import evaluate_predictions
from vgbench.metrics.pairs import Pairs
from vgbench.predictions.table import Predictions
from vgbench.probes.base import Expectation
from vgbench.probes.catalog import parse_all
from vgbench.probes.questions import ask
from vgbench.probes.scoring import read_outcomes, score, write_outcomes
from vgbench.types import Prediction

LEFT, RIGHT, CAT = ((2.0, 10.0, 22.0, 30.0), (70.0, 10.0, 95.0, 40.0), (40.0, 30.0, 60.0, 55.0))
ROWS = (
    ("a", 1, "the left dog", [11]),
    ("b", 1, "right dog", [12]),
    ("c", 1, "the small grey blue cat", [13]),
    ("d", 2, "white horse", [21]),
)


def test_the_ground_truth_is_right_everywhere() -> None:
    data = annotations(*ROWS)
    plain = oracle(data.table)
    specs = ["all", "cover_target", "image:crop", "image:gaussian_blur"]
    asked_kinds = set()
    for probe in parse_all(specs):
        asked = ask(probe, data, "val")
        if not len(asked.rows):
            continue
        asked_kinds.add(probe.expectation)
        report = score(asked, oracle(asked.table), plain, bootstrap=0).report
        values = {name.removeprefix("stress/"): value for name, value in report.values.items()}
        assert values["right"] == 100, probe.spec
        for name in ("plain", "retention", "consistent", "both", "mask_iou"):
            assert values.get(name, 100) == 100, (probe.spec, name)
        for name in ("stuck", "false@50", "wrong_instance", "loose", "no_answer", "fpr95"):
            assert values.get(name, 0) == 0, (probe.spec, name)
        assert values.get("auroc", 100) == 100
    assert asked_kinds == set(Expectation)


def test_a_box_that_never_moves() -> None:
    """Always the left dog: right for "a" alone; mirrored it is right where the right dog is mirrored to."""
    data = annotations(*ROWS[:3])
    plain = fixed(data.table, LEFT)
    mirror = questions("mirror", data)
    report = score(mirror, fixed(mirror.table, LEFT), plain, bootstrap=0).report
    assert report.values["stress/plain"] == pytest.approx(100 / 3)
    # mirrored boxes: (78, 10, 98, 30), (5, 10, 30, 40), (40, 30, 60, 55): the second overlaps by 17 * 20 / 810 only
    assert report.values["stress/right"] == 0
    assert report.values["stress/consistent"] == 0  # it should be at (78, 10, 98, 30)
    swap = questions("swap", data)
    report = score(swap, fixed(swap.table, LEFT), plain, bootstrap=0).report
    assert report.scores["stress/right"].n == 2
    assert report.values["stress/right"] == 50  # "Left" of the former right one
    assert report.values["stress/stuck"] == 50
    assert report.values["stress/both"] == 0
    stay = questions("words:case", data)
    report = score(stay, fixed(stay.table, LEFT), plain, bootstrap=0).report
    assert report.values["stress/consistent"] == report.values["stress/retention"] == 100


def test_answers_to_nothing_are_counted_by_their_scores() -> None:
    data = annotations(*ROWS)
    asked = questions("nothing", data)
    assert len(asked.rows) == 4
    plain = fixed(data.table, LEFT, 0.8)
    report = score(asked, fixed(asked.table, LEFT, 0.65), plain, bootstrap=0).report
    assert report.values["stress/right"] == 100  # below 0.7: rejected
    assert report.values["stress/false@60"] == 100
    assert report.values["stress/false@70"] == 0
    assert report.values["stress/auroc"] == 100
    assert report.values["stress/fpr95"] == 0
    report = score(asked, fixed(asked.table, LEFT, 0.8), plain, bootstrap=0).report
    assert report.values["stress/right"] == 0
    assert "stress/auroc" not in report.values  # one and the same score tells nothing
    says_so = [Prediction(torch.zeros(0, 4), torch.zeros(0), no_target=True)] * 4
    silent = Predictions.from_list(asked.table.column("key").tolist(), says_so)
    assert score(asked, silent, plain, bootstrap=0).report.values["stress/right"] == 100


def test_kinds_of_errors_by_the_number_of_distractors() -> None:
    data = annotations(*ROWS)
    boxes = {
        "a": RIGHT,  # the other dog
        "b": LEFT,  # the other dog
        "c": (40.0, 30.0, 60.0, 40.0),  # the cat, IoU 0.4
        "d": (60.0, 20.0, 90.0, 50.0),  # the cat beside the horse
    }
    plain = Predictions.from_list(
        list(boxes), [Prediction(torch.tensor([box]), torch.ones(1)) for box in boxes.values()]
    )
    asked = questions("distractors", data)
    scored = score(asked, None, plain, bootstrap=0)
    values = {name.removeprefix("stress/"): value for name, value in scored.report.values.items()}
    assert values["right"] == 0
    assert (values["wrong_instance"], values["wrong_category"], values["loose"]) == (50, 25, 25)
    assert values["chance"] == pytest.approx(100 * (0.5 + 0.5 + 1 + 1) / 4)
    buckets = scored.slices["chance"]["other objects of the category"]
    assert {name: (part.value, part.n) for name, part in buckets.items()} == {"0": (100, 2), "1": (50, 2)}
    assert scored.slices["wrong_instance"]["other objects of the category"]["1"].value == 100


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Prediction(torch.tensor([LEFT]), torch.ones(1)), "correct"),
        (Prediction(torch.tensor([[0.0, 50, 5, 55]]), torch.ones(1)), "background"),
        (Prediction(torch.zeros(0, 4), torch.zeros(0)), "no_answer"),
        (Prediction(torch.zeros(0, 4), torch.zeros(0), no_target=True), "false_rejection"),
    ],
)
def test_kinds_of_single_answers(answer: Prediction, kind: str) -> None:
    data = annotations(ROWS[0], ROWS[3])
    other = Prediction(torch.tensor([[10.0, 10, 50, 50]]), torch.ones(1))
    pairs = Pairs(Predictions.from_list(["a", "d"], [answer, other]), data.table, np.arange(2))
    assert KINDS[error_kinds(pairs, data.scenes).index[0]] == kind
    if kind == "no_answer":
        assert KINDS[error_kinds(pairs, data.scenes, ["a"]).index[0]] == "unreadable"
    if kind == "background":
        assert KINDS[error_kinds(pairs, None).index[0]] == "wrong"  # nobody knows what else is there


def test_nothing_meant_and_answered_is_a_false_acceptance() -> None:
    data = annotations(("a", 1, "a zebra", []), ROWS[1], task="grec")
    given = [Prediction(torch.tensor([LEFT]), torch.ones(1)), Prediction(torch.tensor([RIGHT]), torch.ones(1))]
    pairs = Pairs(Predictions.from_list(["a", "b"], given), data.table, np.arange(2))
    assert [KINDS[place] for place in error_kinds(pairs, data.scenes).index] == ["false_acceptance", "correct"]


def test_masks_and_points_are_judged_too() -> None:
    data = annotations(*ROWS)
    asked = questions("mirror", data)
    masks = [Prediction(torch.zeros(0, 4), torch.zeros(0), mask=row.masks[0]) for row in data.table]
    plain = Predictions.from_list(data.table.column("key").tolist(), masks)
    turned = [Prediction(torch.zeros(0, 4), torch.zeros(0), mask=row.masks[0]) for row in asked.table]
    report = score(asked, Predictions.from_list(asked.table.column("key").tolist(), turned), plain, 0).report
    assert report.values["stress/right"] == report.values["stress/mask_iou"] == 100
    points = [Prediction(torch.zeros(0, 4), torch.zeros(0), point=(12, 20))] * 4
    keys = data.table.column("key").tolist()
    report = score(asked, Predictions.from_list(keys, points), Predictions.from_list(keys, points), 0).report
    assert report.values["stress/plain"] == 50  # inside the left dog, and the horse
    assert report.values["stress/right"] == 25  # inside the right dog, mirrored


def test_outcomes_are_kept_for_paired_tests(tmp_path: Path) -> None:
    data = annotations(*ROWS)
    asked = questions("words:case", data)
    good = score(asked, oracle(asked.table), oracle(data.table), bootstrap=100)
    poor = score(asked, fixed(asked.table, CAT), oracle(data.table), bootstrap=100)
    assert good.report.scores["stress/right"].low == 100
    for name, one in (("good", good), ("poor", poor)):
        write_outcomes(tmp_path / f"{name}.parquet", one.report, asked.table)
    first, second = (read_outcomes(tmp_path / f"{name}.parquet") for name in ("good", "poor"))
    assert first.data_hash == second.data_hash == asked.hash
    test = compare_paired(first.outcomes, second.outcomes, "right", first.images, 200)
    assert test.difference == -75 and test.images == 2
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"bad\.parquet"):
        read_outcomes(tmp_path / "bad.parquet")


def test_stress_is_no_metric_of_a_single_file() -> None:
    data = annotations(*ROWS)
    with pytest.raises(UserError, match="vgbench stress"):
        evaluate_predictions(data.table, oracle(data.table), ["stress"])
    assert {item[0] for objects in OBJECTS.values() for item in objects} == {11, 12, 13, 21, 22}
    assert replace(questions("mirror", data), seed=1).hash != questions("mirror", data).hash
