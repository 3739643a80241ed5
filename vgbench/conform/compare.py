"""Our tensors against the official ones."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

REACH = "reach."  # before the name of an expected tensor: see ``compare``


@dataclass(frozen=True)
class Tolerances:
    """What is allowed on a device besides the tolerances of a case.

    Attributes:
        factor: on every tolerance of the case.
        integers: share of an integer tensor's elements that may differ: pixels of masks and ranks at a threshold.
        gradient_noise: a gradient below this share of the model's largest one is zero but for rounding. On the CPU
            the key biases of an attention, whose gradient vanishes exactly, were seen up to 1e-7 of it in float32.
    """

    factor: float = 1.0
    integers: float = 0.0
    gradient_noise: float = 1e-6


# Device type -> tolerances in float32. Expected values are the CPU's; on CUDA (TF32 off) sums run in another order, and
# convolutions and attention through other algorithms.
TOLERANCES = {"cpu": Tolerances(), "cuda": Tolerances(factor=10.0, integers=1e-3, gradient_noise=1e-5)}


def tolerances_of(device: str) -> Tolerances:
    """Those of the device; of one that nobody stated any for, the CPU's."""
    return TOLERANCES.get(torch.device(device).type, TOLERANCES["cpu"])


@dataclass
class CaseResult:
    """Outcome of one case.

    Attributes:
        name: name of the case.
        passed: no failures.
        judged: whether a failure counts.
        compared: number of tensors (or values) that were compared.
        not_exposed: optional tensors of the case that we do not produce.
        closest, closest_share: the passing tensor that comes closest to its tolerance, and by what share of it.
        failures: name of a tensor -> what is wrong with it.
        undecided: name of a tensor -> number of its elements that differ only because an optimiser followed rounding.
        note: why the case was not run.
    """

    name: str
    passed: bool
    judged: bool = True
    compared: int = 0
    not_exposed: int = 0
    closest: str = ""
    closest_share: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    undecided: dict[str, int] = field(default_factory=dict)
    note: str = ""

    def line(self) -> str:
        status = "SKIP" if self.note else "PASS" if self.passed else "FAIL" if self.judged else "DIFF"
        text = f"{status} {self.name}: {self.note or f'{self.compared} tensors'}"
        if self.not_exposed:
            text += f", {self.not_exposed} not exposed"
        if self.undecided:
            text += f", {sum(self.undecided.values())} elements followed rounding ({', '.join(self.undecided)})"
        if self.closest:
            text += f", closest to its tolerance: {self.closest} ({100 * self.closest_share:.1f} %)"
        return text


def compare(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], spec: Mapping[str, Any], device: str = "cpu"
) -> CaseResult:
    """Compare every expected tensor by the rules of the case and the :data:`TOLERANCES` of the device.

    Integer tensors must be equal. A float tensor is judged by the first rule of ``spec["compare"]`` whose pattern
    matches its name: ``|actual - expected| <= atol + rtol * |expected| + of_max * max|expected|`` element by element.
    An expected tensor that is not produced fails, unless a pattern of ``spec["optional"]`` matches it.

    Where a gradient is zero but for rounding Adam makes whole steps all the same, here in one direction and there in
    the other. ``actual["reach." + name]`` is how far such steps can have carried each element; one that differs by no
    more than its tolerance and that does not decide, and is counted in ``undecided``.
    """
    result = CaseResult(name=str(spec.get("case", "?")), passed=True)
    for name, reference in expected.items():
        if name not in actual:
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in spec.get("optional") or []):
                result.not_exposed += 1
            else:
                result.failures[name] = "not produced"
            continue
        value = actual[name].detach().cpu()
        result.compared += 1
        if value.shape != reference.shape:
            result.failures[name] = f"shape {list(value.shape)}, expected {list(reference.shape)}"
        elif not reference.dtype.is_floating_point:
            _judge_integers(name, value, reference, tolerances_of(device), result)
        elif (rule := _rule(name, spec)) is None:
            result.failures[name] = "the case has no comparison rule for it"
        elif reference.numel():
            allowed = tolerances_of(device).factor * _allowed(reference, rule)
            _judge_floats(name, value, reference, allowed, actual.get(f"{REACH}{name}"), result)
    result.passed = not result.failures
    return result


def _rule(name: str, spec: Mapping[str, Any]) -> Mapping[str, float] | None:
    return next((rule for rule in spec.get("compare") or [] if fnmatch.fnmatchcase(name, rule["tensors"])), None)


def _allowed(reference: Tensor, rule: Mapping[str, float]) -> Tensor:
    """Tolerance of every element, float64."""
    size = reference.double().abs()
    return rule.get("atol", 0.0) + rule.get("rtol", 0.0) * size + rule.get("of_max", 0.0) * size.max()


def _judge_integers(name: str, value: Tensor, reference: Tensor, tolerances: Tolerances, result: CaseResult) -> None:
    wrong = int((value.to(torch.int64) != reference.to(torch.int64)).sum())
    if wrong > tolerances.integers * reference.numel():
        result.failures[name] = f"{wrong} of {reference.numel()} integers differ"


def _judge_floats(
    name: str, value: Tensor, reference: Tensor, allowed: Tensor, reach: Tensor | None, result: CaseResult
) -> None:
    difference = (value.double() - reference.double()).abs()
    if reach is not None:
        undecided = (difference > allowed) & (difference <= allowed + reach.cpu())
        if undecided.any():
            result.undecided[name] = int(undecided.sum())
            difference = difference.masked_fill(undecided, 0.0)
    share = float(torch.where(difference == 0, 0.0, difference / allowed).max())
    same_special = torch.equal(value.isnan(), reference.isnan())
    if not same_special or not share <= 1:
        result.failures[name] = f"largest difference {float(difference.max()):.3e} ({share:.2f} x tolerance)"
    elif share > result.closest_share:
        result.closest, result.closest_share = name, share
