"""The noise ceiling by a review and by a second annotation, on hand-made scenes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.probes.scenes import annotations, fixed, oracle
from vgbench.core import registry
from vgbench.core.errors import UserError
from vgbench.data.dataset import Counts, GroundingData
from vgbench.data.filters import NamedFilter
from vgbench.data.table import AnnotationTable
from vgbench.leaderboard.ceiling import ceiling_grid
from vgbench.leaderboard.errors import Answered, SplitErrors, agreement_grid, errors_grid
from vgbench.metrics.errors import error_kinds
from vgbench.metrics.pairs import Pairs
from vgbench.predictions.table import Predictions

ROWS = (("a", 1, "the left dog", [11]), ("b", 1, "Right dog!", [12]), ("c", 1, "cat", [13]))
LEFT = (2.0, 10.0, 22.0, 30.0)


class Review(NamedFilter):
    """Rejects "cat"."""

    name = "made-review"

    def __init__(self, dataset: str, root: Path | None) -> None:
        self.dataset = dataset

    def covers(self, split: str) -> bool:
        return True

    def file(self, split: str) -> Path:
        return Path("review.json")

    def left_out(self, table: AnnotationTable, split: str) -> np.ndarray:
        return table.column("expression") == "cat"


class Drawn(GroundingData):
    """The scenes of the probes' tests."""

    name = "drawn"
    title = "Drawn"
    tasks = ("rec",)
    splits: Mapping[str, Counts] = {"val": Counts()}
    licence = "none"
    homepage = "none"
    filters: ClassVar = (Review,)
    rows: ClassVar[Any] = ROWS

    def expected_files(self) -> list[str]:
        return []

    def sources(self, split: str) -> list[Path]:
        return []

    def read(self, split: str) -> AnnotationTable:
        return annotations(*self.rows).table

    def load(self, split: str, on_bad_sample: Any = None) -> AnnotationTable:
        return self.read(split)


class Second(Drawn):
    """The same images and words; the right dog is the left one, and the cat is missing."""

    name = "second"
    filters: ClassVar = ()
    rows: ClassVar[Any] = (("x", 1, "The left dog", [11]), ("y", 1, "right dog", [11]))


def part(tmp_path: Path, **answers: Predictions) -> SplitErrors:
    data = annotations(*ROWS)
    rows = [
        Answered(name, given, error_kinds(Pairs(given, data.table, np.arange(3)), data.scenes))
        for name, given in answers.items()
    ]
    return SplitErrors(Drawn(tmp_path), "val", data.table, rows)


def cells(grid: Any) -> list[list[str]]:
    return [[cell.text for cell in row] for row in grid.rows]


def test_ceilings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.datasets, "_added", {"drawn": Drawn, "second": Second})
    table = annotations(*ROWS).table
    split = part(tmp_path, always=fixed(table, LEFT), truth=oracle(table))
    # always: "a" is right, "b" and "c" are not; "c" is rejected
    assert cells(ceiling_grid(split, "made-review")) == [
        ["always", "33.33", "50.00", "50.0"],
        ["truth", "100.00", "100.00", "n/d"],
    ]
    second = ceiling_grid(split, "second")
    assert cells(second) == [
        ["the first annotation itself", "100.00", "50.00", ""],
        ["always", "50.00", "100.00", "50.0"],
        ["truth", "100.00", "50.00", "n/d"],
    ]
    assert second.notes[0].startswith("2 of 3 expressions are in second; there the two annotations overlap by 50.00 %")
    with pytest.raises(UserError, match="neither a published review nor a data set"):
        ceiling_grid(split, "third")


def test_what_everybody_gets_wrong(tmp_path: Path) -> None:
    table = annotations(*ROWS).table
    split = part(tmp_path, one=fixed(table, LEFT), two=fixed(table, (3.0, 10.0, 22.0, 30.0)))
    assert split.all_wrong() == [1, 2]  # "b" and "c"; both agree on 19/20 of the box
    assert split.agreement(1) == pytest.approx(0.95)
    assert "2 expressions (66.67 %) are wrong for all 2 rows" in agreement_grid(split).notes[0]
    assert "it would be 44.44 %" in agreement_grid(split).notes[0]
    assert cells(errors_grid(split))[0] == ["one", "33.33", "33.33", "33.33"]  # right, instance, category
