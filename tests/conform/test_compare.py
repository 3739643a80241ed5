"""What decides a case: tolerances by device, integers, and elements that an optimiser moved by rounding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vgbench.conform.compare import CaseResult, compare
from vgbench.conform.helpers import StepReach, epoch_rates, raw_sample, text_rows, training_samples, under_prefix

SPEC = {"case": "by hand", "compare": [{"tensors": "*", "atol": 1e-3}], "optional": ["inner.*"]}


def of(actual: float, expected: float, device: str = "cpu") -> CaseResult:
    return compare({"x": torch.tensor([actual])}, {"x": torch.tensor([expected])}, SPEC, device)


def test_a_float_must_lie_within_the_tolerance_of_the_device() -> None:
    assert of(1.0009, 1.0).passed and not of(1.0011, 1.0).passed
    assert of(1.0011, 1.0, "cuda").passed and of(1.0099, 1.0, "cuda").passed and not of(1.0101, 1.0, "cuda").passed
    assert not of(float("nan"), 1.0).passed


def test_integers_are_equal_but_for_a_few_pixels_on_cuda() -> None:
    expected = torch.zeros(4000, dtype=torch.uint8)
    actual = expected.clone()
    actual[:4] = 1
    assert compare({"mask": actual}, {"mask": expected}, SPEC).failures == {"mask": "4 of 4000 integers differ"}
    assert compare({"mask": actual}, {"mask": expected}, SPEC, "cuda").passed
    actual[4] = 1
    assert not compare({"mask": actual}, {"mask": expected}, SPEC, "cuda").passed
    assert not compare({"ids": torch.ones(1).long()}, {"ids": torch.zeros(1).long()}, SPEC, "cuda").passed


def test_missing_tensors_fail_unless_they_are_optional() -> None:
    expected = {"outer": torch.ones(1), "inner.a": torch.ones(1)}
    result = compare({}, expected, SPEC)
    assert result.failures == {"outer": "not produced"} and result.not_exposed == 1 and result.compared == 0


def step_of(rounding: float) -> dict[str, torch.Tensor]:
    """What a runner returns after one step of Adam on a weight whose second gradient is rounding."""
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], lr=0.01, eps=1e-12)
    weight.grad = torch.tensor([1.0, rounding, 1e-3])
    reach = StepReach({"weight": weight}, "cpu")
    reach.add(optimizer)
    optimizer.step()
    return {"optim.weight": weight.detach()} | reach.tensors("optim.")


def test_elements_whose_gradient_is_rounding_do_not_decide() -> None:
    """On one machine the rounding is +1e-8, on another -1e-8: Adam is two learning rates apart there."""
    ours, theirs = step_of(1e-8), step_of(-1e-8)
    expected = {"optim.weight": theirs["optim.weight"]}
    assert (ours["optim.weight"] - theirs["optim.weight"])[1].abs() > 0.015
    result = compare(ours, expected, SPEC)
    assert result.passed and result.undecided == {"optim.weight": 1}
    assert "1 elements followed rounding (optim.weight)" in result.line()
    assert not compare({"optim.weight": ours["optim.weight"]}, expected, SPEC).passed  # without knowing of it


@pytest.mark.parametrize(("place", "change"), [(0, 0.005), (2, 0.005), (1, 0.05)])
def test_all_others_decide_and_none_may_go_further_than_a_step(place: int, change: float) -> None:
    ours = step_of(1e-8)
    expected = ours["optim.weight"].clone()
    expected[place] += change
    assert not compare(ours, {"optim.weight": expected}, SPEC).passed


def test_helpers_of_runners() -> None:
    rows = text_rows(["ab", "é"])
    assert rows.dtype == torch.uint8 and rows.tolist() == [[97, 98], [0xC3, 0xA9]]
    sample = raw_sample(torch.zeros(4, 6, 3, dtype=torch.uint8), torch.tensor([[0, 1, 2, 3]]), "x", torch.ones(1, 4, 6))
    assert sample["image"].shape == (3, 4, 6) and sample["boxes"].canvas_size == (4, 6) and "masks" in sample
    assert under_prefix({"a.x": rows, "b.x": rows}, "a.").keys() == {"x"}
    samples = training_samples({"train.0.image_index": rows, "train.1.image_index": rows, "heat": rows})
    assert samples == ["train.0.", "train.1."]
    assert epoch_rates(lambda epoch, step, steps: 0.5**epoch, 8.0, 3).tolist() == [8.0, 4.0, 2.0]
