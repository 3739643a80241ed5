"""Our tensors against the official ones."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class CaseResult:
    """Outcome of one case. ``failures`` maps a tensor name to what is wrong with it."""

    name: str
    passed: bool
    judged: bool = True
    compared: int = 0
    not_exposed: int = 0
    closest: str = ""
    closest_share: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    note: str = ""

    def line(self) -> str:
        status = "SKIP" if self.note else "PASS" if self.passed else "FAIL" if self.judged else "DIFF"
        text = f"{status} {self.name}: {self.note or f'{self.compared} tensors'}"
        if self.not_exposed:
            text += f", {self.not_exposed} not exposed"
        if self.closest:
            text += f", closest to its tolerance: {self.closest} ({100 * self.closest_share:.1f} %)"
        return text


def compare(actual: dict[str, Tensor], expected: dict[str, Tensor], spec: dict[str, Any]) -> CaseResult:
    """Compare every expected tensor by the rules of the case.

    Integer tensors must be equal. A float tensor is judged by the first rule of ``spec["compare"]`` whose pattern
    matches its name: ``|actual - expected| <= atol + rtol * |expected| + of_max * max|expected|`` element by element.
    An expected tensor that is not produced fails, unless a pattern of ``spec["optional"]`` matches it.
    """
    result = CaseResult(name=str(spec.get("case", "?")), passed=True)
    for name, wanted in expected.items():
        if name not in actual:
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in spec.get("optional") or []):
                result.not_exposed += 1
            else:
                result.failures[name] = "not produced"
            continue
        got = actual[name].detach().cpu()
        result.compared += 1
        if got.shape != wanted.shape:
            result.failures[name] = f"shape {list(got.shape)}, expected {list(wanted.shape)}"
        elif not wanted.dtype.is_floating_point:
            wrong = int((got.to(torch.int64) != wanted.to(torch.int64)).sum()) if wanted.numel() else 0
            if wrong:
                result.failures[name] = f"{wrong} of {wanted.numel()} integers differ"
        else:
            rule = next((r for r in spec.get("compare") or [] if fnmatch.fnmatchcase(name, r["tensors"])), None)
            if rule is None:
                result.failures[name] = "the case has no comparison rule for it"
                continue
            if not wanted.numel():
                continue
            difference = (got.double() - wanted.double()).abs()
            allowed = rule.get("atol", 0.0) + rule.get("rtol", 0.0) * wanted.double().abs()
            allowed = allowed + rule.get("of_max", 0.0) * wanted.double().abs().max()
            share = float(torch.where(difference == 0, 0.0, difference / allowed).max())
            same_special = torch.equal(got.isnan(), wanted.isnan())
            if not same_special or not share <= 1:
                result.failures[name] = f"largest difference {float(difference.max()):.3e} ({share:.2f} x tolerance)"
            elif share > result.closest_share:
                result.closest, result.closest_share = name, share
    result.passed = not result.failures
    return result
