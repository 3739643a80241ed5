"""``vgbench conform``: does our implementation compute what the authors' code computed?

A case is a folder with ``case.yaml``, inputs, weights with official key names and the official results
(format: tests/conformance/README.md). What a method has to do for it stands in its own ``conformance.py``:

    def run(case: Case) -> dict[str, Tensor]

which builds the method from ``case.spec``, loads ``case.weights`` through ``load_official`` and returns tensors under
the names of ``expected.safetensors``. The comparison is made here, the same for everyone.
"""

from __future__ import annotations

import fnmatch
import gzip
import importlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load, load_file
from torch import Tensor

from vgbench.core.errors import UserError

__all__ = ["Case", "CaseResult", "compare", "run_case"]

# Runners of the cases that belong to no single method.
SHARED_RUNNERS = {"beit3": "vgbench.layers.beit3_conformance", "metrics": "vgbench.metrics.conformance"}


class ModeNotOffered(Exception):
    """The case tests an option of the official code that we left out on purpose; the message says why."""


@dataclass
class Case:
    """One conformance folder.

    Attributes:
        path: the folder.
        device: where to run; results are only judged on the CPU in float32.
        precision: "fp32" or "bf16".
    """

    path: Path
    device: str = "cpu"
    precision: str = "fp32"

    @cached_property
    def spec(self) -> dict[str, Any]:
        """Content of case.yaml."""
        file = self.path / "case.yaml"
        try:
            return yaml.safe_load(file.read_text())
        except FileNotFoundError:
            raise UserError(f"{file}: no such file; a conformance case is a folder with case.yaml") from None
        except yaml.YAMLError as error:
            raise UserError(f"{file}: not valid YAML ({' '.join(str(error).split())})") from None

    def _tensors(self, name: str) -> dict[str, Tensor]:
        return self.read(f"{name}.safetensors")

    def read(self, name: str) -> dict[str, Tensor]:
        """The tensors of a safetensors file of the case, plain or gzipped (``<name>.gz``).

        Raises:
            UserError: if there is neither file, or it cannot be read.
        """
        file = self.path / name
        packed = self.path / f"{name}.gz"
        if not file.exists() and not packed.exists():
            raise UserError(f"{file}: no such file; the case is incomplete")
        try:
            return load_file(file) if file.exists() else load(gzip.decompress(packed.read_bytes()))
        except Exception as error:
            raise UserError(f"{file}: not a safetensors file ({error})") from None

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        return self._tensors("weights")

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return {name: value.to(self.device) for name, value in self._tensors("inputs").items()}

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        return self._tensors("expected")

    def text(self, name: str) -> list[str]:
        """Decode a uint8 tensor of zero-padded UTF-8 strings, [n, bytes] or [bytes]."""
        value = self.inputs[name].cpu()
        rows = value if value.ndim == 2 else value[None]
        return [bytes(row.tolist()).rstrip(b"\0").decode() for row in rows]


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


def _runner(method: str) -> Any:
    module = SHARED_RUNNERS.get(method)
    if module is None:
        from vgbench.core.registry import methods

        module = f"{methods.load(method).__module__.rsplit('.', 1)[0]}.conformance"
    if importlib.util.find_spec(module) is None:
        raise UserError(f"method {method!r} has no conformance runner ({module})")
    return importlib.import_module(module).run


def run_case(path: Path, device: str = "cpu", precision: str = "fp32") -> CaseResult:
    """Run one case. Off the CPU or below float32 differences are reported, not judged."""
    case = Case(path, device, precision)
    runner = _runner(str(case.spec.get("method")))
    try:
        torch.manual_seed(0)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
            actual = runner(case)
    except ModeNotOffered as error:
        return CaseResult(case.path.name, passed=True, note=f"mode not offered: {error}")
    if isinstance(actual, CaseResult):  # the runner compared by itself (expected values that are no tensors)
        return actual
    result = compare(actual, case.expected, case.spec)
    result.name = case.path.name
    result.judged = device == "cpu" and precision == "fp32"
    return result


def main(paths: Sequence[Path], device: str, precision: str, json_file: Path | None, out: Any = sys.stdout) -> int:
    """Run the cases, print a line each; 1 if a judged case fails, else 0."""
    results = []
    for path in paths:
        result = run_case(path, device, precision)
        results.append(result)
        print(result.line(), file=out, flush=True)
        for name, problem in result.failures.items():
            print(f"     {name}: {problem}", file=out)
    if json_file:
        json_file.write_text(json.dumps([vars(result) for result in results], indent=2))
    failed = [result for result in results if result.judged and not result.passed]
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed", file=out)
    return 1 if failed else 0
