"""Our metric classes on the predictions of a ``metrics`` case, against what the official evaluators made of them."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vgbench.conform.case import Case
from vgbench.conform.compare import CaseResult
from vgbench.core.errors import UserError
from vgbench.methods.evaluators import generalized, phrases, pointing, rec, res
from vgbench.methods.evaluators.scoring import Entries, Row, Values

# Tolerances of the case by kind of value; whole numbers and texts must be equal.
EXACT, FLOAT32_PERCENT, TWO_DECIMALS, LIST, REFSEG = 1e-6, 1e-4, 0.005, 1e-5, 1e-4

NOT_OFFERED = {
    "mmdet.flickr30k.merge_boxes": "the official code raises an AttributeError; phrase/merged is MDETR's definition",
}


def run(case: Case) -> CaseResult:
    """Compare every number of ``expected.json``."""
    expected = json.loads((case.path / "expected.json").read_text())
    return judge(compute(case, {task: list(entries) for task, entries in expected.items()}), expected, case.path.name)


def compute(case: Case, names: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Values]]:
    """Our values, task -> entry -> values, of the entries asked for; those that nobody knows are left out."""
    families: dict[str, Entries] = {
        "rec": rec.ENTRIES,
        "res": res.ENTRIES,
        "generalized": generalized.ENTRIES,
        "pointing": pointing.entries(case.read("cams.safetensors")),
        "phrases": phrases.ENTRIES,
    }
    actual: dict[str, dict[str, Values]] = {}
    for task, task_names in names.items():
        rows = _lines(case, task)
        actual[task] = {}
        for name in task_names:
            entry = next((f for pattern, f in families[task].items() if fnmatch.fnmatchcase(name, pattern)), None)
            if entry is not None:
                actual[task][name] = entry(name, rows)
    return actual


def judge(actual: Mapping[str, Any], expected: Mapping[str, Any], name: str) -> CaseResult:
    """Compare ``task -> entry -> values`` with the content of ``expected.json``."""
    result = CaseResult(name=name, passed=True)
    for task, entries in expected.items():
        for entry, content in entries.items():
            if entry in NOT_OFFERED:
                result.not_exposed += 1
            elif entry not in actual.get(task, {}):
                result.failures[f"{task}/{entry}"] = "not produced"
            else:
                _compare(f"{task}/{entry}", actual[task][entry], content["values"], _tolerance(entry), result)
    result.passed = not result.failures
    return result


def _lines(case: Case, name: str) -> list[Row]:
    file = case.path / f"{name}.jsonl"
    try:
        return [json.loads(line) for line in file.read_text().splitlines()]
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; the case is incomplete") from None


def _tolerance(entry: str) -> Callable[[str], float]:
    """Tolerance of a value by its path inside the entry."""
    family = entry.partition(".")[0]

    def of(path: str) -> float:
        if "/iou" in path:
            return LIST
        if entry == "lavt.test" or "/logged_" in path:
            return TWO_DECIMALS
        if entry == "mmdet.refseg":
            return REFSEG
        in_float32 = family in ("seqtr", "simvg", "alvg") or entry.endswith((".det_acc", ".mask"))
        return FLOAT32_PERCENT if in_float32 and family != "vglaw" else EXACT

    return of


def _compare(
    path: str, actual: Values, expected: Values, tolerance: Callable[[str], float], result: CaseResult
) -> None:
    """Walk both trees; every leaf of ``expected`` must be there and within its tolerance."""
    if isinstance(expected, dict | list):
        children = expected.items() if isinstance(expected, dict) else enumerate(expected)
        if not isinstance(actual, type(expected)) or len(actual) != len(expected):
            result.failures[path] = "has other entries than the official result"
            return
        for key, value in children:
            if isinstance(expected, dict) and key not in actual:
                result.failures[f"{path}/{key}"] = "not produced"
            else:
                _compare(f"{path}/{key}", actual[key], value, tolerance, result)
        return
    result.compared += 1
    if isinstance(expected, bool | str | int) and isinstance(actual, bool | str | int):
        if actual != expected:
            result.failures[path] = f"is {actual}, expected {expected}"
        return
    share = abs(float(actual) - float(expected)) / tolerance(path)
    if not share <= 1:
        result.failures[path] = f"is {actual}, expected {expected} ({share:.2f} x tolerance)"
    elif share > result.closest_share:
        result.closest, result.closest_share = path, share
