"""Every door by which files of others get in, against damage at random and malice (:mod:`tests.security.harness`).

The cases of a door are numbered: a failure names its number, and ``fuzz(door, folder, range(n, n + 1))`` repeats it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.security.doors_data import FILES, LAYOUTS
from tests.security.doors_runs import MODELS, RESULTS
from tests.security.doors_words import SERVERS, TEXTS
from tests.security.harness import Door, fuzz

DOORS = (*LAYOUTS, *FILES, *RESULTS, *MODELS, *TEXTS, *SERVERS)
MANY = 270  # cases of a door in the slow suite


def check(door: Door, folder: Path, seeds: range) -> None:
    report = fuzz(door, folder / "fuzz", seeds)
    print(
        f"{door.name}: {dict(report.outcomes)}, slowest {report.slowest:.1f} s, {report.memory >> 20} MiB, "
        f"{len(report.failures)} wrong"
    )
    assert not report.failures, "\n".join(report.failures[:20])
    assert sum(report.outcomes.values()) == len(seeds)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_a_few_cases(door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check(door, tmp_path, range(door.few))


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_many_cases(door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check(door, tmp_path, range(door.few, door.few + MANY))


def test_there_are_enough_cases() -> None:
    assert sum(door.few for door in DOORS) >= 500 and MANY * len(DOORS) >= 10_000
