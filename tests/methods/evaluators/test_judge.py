"""The official evaluators' numbers, and that no wrong one would pass."""

import copy
import json
import shutil
from pathlib import Path

from vgbench.conform.case import Case
from vgbench.conform.run import run_case
from vgbench.methods.evaluators.judge import NOT_OFFERED, compute, judge

CASES = Path(__file__).parents[2] / "conformance"
METRICS = CASES / "metrics-a"


def test_every_number_of_the_official_evaluators_is_reproduced():
    result = run_case(METRICS)
    assert result.passed, result.failures
    assert result.compared > 1300 and result.not_exposed == len(NOT_OFFERED) == 1


def test_one_batch_of_alvg_validation_is_reproduced():
    result = run_case(CASES / "alvg-metrics-a")
    assert result.passed and result.compared == 11, result.failures


def _leaves(value, path=()):
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(child, (*path, key))
    else:
        yield path, value


def test_changing_any_expected_number_fails():
    case, expected = Case(METRICS), json.loads((METRICS / "expected.json").read_text())
    actual = compute(case, {task: list(entries) for task, entries in expected.items()})
    assert judge(actual, expected, "unchanged").passed
    tried = 0
    for task, entries in expected.items():
        for entry, content in entries.items():
            if entry in NOT_OFFERED:
                continue
            for path, value in _leaves(content["values"]):
                changed = {task: {entry: copy.deepcopy(content)}}
                *parents, last = ["values", *path]
                place = changed[task][entry]
                for key in parents:
                    place = place[key]
                place[last] = (not value) if isinstance(value, bool) else value + (0.011 if "lavt" in entry else 0.0102)
                assert not judge(actual, changed, "changed").passed, (entry, path)
                tried += 1
    assert tried > 1300


def test_an_unknown_entry_fails(tmp_path):
    folder = tmp_path / "case"
    shutil.copytree(METRICS, folder)
    expected = json.loads((folder / "expected.json").read_text())
    expected["rec"]["somebody.else"] = {"values": 1.0}
    (folder / "expected.json").write_text(json.dumps({"rec": expected["rec"]}))
    assert run_case(folder).failures == {"rec/somebody.else": "not produced"}
