"""``vgbench conform``: does our implementation compute what the authors' code computed?

A case is a folder with ``case.yaml``, inputs, weights with official key names and the official results
(format: tests/conformance/README.md). What a method has to do for it stands in its own ``conformance.py``:

    def run(case: Case) -> dict[str, Tensor]

which builds the method from ``case.spec``, loads ``case.weights`` through ``load_official`` and returns tensors under
the names of ``expected.safetensors``. The comparison is made here, the same for everyone. Cases that belong to no
single method (an encoder, metrics) find their module through the entry-point group ``vgbench.conformance``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vgbench.conform.case import Case, ModeNotOffered
from vgbench.conform.compare import TOLERANCES, CaseResult, compare
from vgbench.core.errors import UserError
from vgbench.core.registry import conformance, methods


def runner_of(method: str) -> Callable[[Case], dict[str, Tensor] | CaseResult]:
    """The ``run`` for cases whose case.yaml says ``method``.

    Raises:
        UserError: if neither a module of the group ``vgbench.conformance`` nor a method has that name, or the method
            has no ``conformance.py``.
    """
    if method in conformance:
        return conformance.load(method).run
    module = f"{methods.load(method).__module__.rsplit('.', 1)[0]}.conformance"
    if importlib.util.find_spec(module) is None:
        raise UserError(f"method {method!r} has no conformance runner ({module})")
    return importlib.import_module(module).run


def run_case(path: Path, device: str = "cpu", precision: str = "fp32") -> CaseResult:
    """Run one case with TF32 off.

    In float32 it is judged, off the CPU with the tolerances stated in :mod:`vgbench.conform.compare`; below float32
    differences are reported only.
    """
    case = Case(path, device, precision)
    runner = runner_of(str(case.spec.get("method")))
    try:
        torch.manual_seed(0)
        with _without_tf32(), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
            actual = runner(case)
    except ModeNotOffered as error:
        return CaseResult(case.path.name, passed=True, note=f"mode not offered: {error}")
    if isinstance(actual, CaseResult):  # the runner compared by itself (expected values that are no tensors)
        return actual
    result = compare(actual, case.expected, case.spec, device)
    result.name = case.path.name
    result.judged = precision == "fp32" and torch.device(device).type in TOLERANCES
    return result


@contextlib.contextmanager
def _without_tf32() -> Iterator[None]:
    """Products and convolutions of float32 numbers in float32, and the settings back as they were afterwards."""
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = False
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value
