"""Slices of a table, and two runs against each other on it, on data whose answers can be worked out by hand."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vgbench.cli.main import main
from vgbench.core.errors import UserError
from vgbench.data.table import AnnotationTable
from vgbench.leaderboard.versus import holm, versus
from vgbench.leaderboard.versus_text import format_versus
from vgbench.metrics import slices
from vgbench.metrics.base import Outcomes, Ratio
from vgbench.metrics.slices import Buckets, buckets, sliced
from vgbench.predictions.writer import PredictionWriter
from vgbench.records import store
from vgbench.records.record import Code, Environment, Hardware, Metric, Record, Result
from vgbench.types import Prediction

TEXTS = (
    "dog",
    "the left dog",
    "a dog that sleeps on the sofa",
    "the second of all dogs that lie there on the big sofa",
)
RIGHT, WRONG = [10.0, 10, 30, 30], [60.0, 60, 90, 90]


def row(number: int, **changes) -> dict:
    return {
        **{"key": f"k{number}", "image_id": number // 2, "image": "a.png", "width": 100, "height": 100},
        **{"expression": TEXTS[number % 4], "boxes": [RIGHT], "masks": [], "polygons": [], "ann_ids": [number % 3]},
        **{"categories": ["dog"], "ref_id": None, "sent_id": None, "group": 0, "source": "x", "split": "val"},
        **changes,
    }


def table(rows: list[dict], task: str = "rec") -> AnnotationTable:
    return AnnotationTable.from_rows(rows, {"dataset": "synthetic", "split": "val", "task": task})


def named(rule: Buckets) -> list[str | None]:
    return [None if place < 0 else rule.names[place] for place in rule.index]


def test_the_buckets_of_every_rule() -> None:
    rows = [row(number) for number in range(4)]
    rows[1].update(boxes=[[0, 0, 100, 50]])  # half of the image
    rows[2].update(boxes=[], ann_ids=[], categories=[])
    rows[3].update(boxes=[RIGHT, WRONG], ann_ids=[0, 1], categories=["dog", "cat"])
    found = {name: named(rule) for name, rule in buckets(table(rows, "grec")).items()}
    assert found == {
        "expression length": ["1-2 words", "3-5 words", "6-9 words", "10+ words"],
        "location words": ["without", "with", "without", "with"],
        "target size": ["small (< 5 %)", "large (>= 20 %)", None, "medium"],  # 4 %, 50 %, -, 4 % + 9 %
        "targets": ["one", "one", "none", "two"],
    }  # "same category": image 0 has two dogs for both its expressions, one bucket only


def test_other_objects_of_the_category_are_counted_once_each() -> None:
    rows = [row(number, image_id=number // 3, ann_ids=[number % 2]) for number in range(4)]
    assert named(buckets(table(rows))["same category"]) == ["1 other"] * 3 + ["alone"]


def test_a_rule_that_splits_nothing_is_left_out() -> None:
    assert buckets(table([row(0), row(4)])) == {}


def test_metrics_by_bucket() -> None:
    rows = table([row(number) for number in range(8)])
    right = np.array([1.0, 1, 0, 0, 1, 0, 0, 0])
    outcomes = Outcomes(np.arange(8), {"prec@0.5": Ratio(right, np.ones(8)), "n_acc": Ratio(right * 0, right * 0)})
    found = sliced(outcomes, "prec@0.5", rows, bootstrap=50)
    length = found["expression length"]
    assert [(name, metric.value, metric.n) for name, metric in length.items()] == [
        *(("1-2 words", 100.0, 2), ("3-5 words", 50.0, 2), ("6-9 words", 0.0, 2), ("10+ words", 0.0, 2)),
    ]
    assert (length["1-2 words"].low, length["3-5 words"].low, length["3-5 words"].high) == (100.0, 0.0, 100.0)
    assert sliced(outcomes, "n_acc", rows, bootstrap=50) == {}
    kept = slices.headline(outcomes, "rec", rows, bootstrap=50)
    assert kept.keys() == {"prec@0.5"} and kept["prec@0.5"] == found


def test_holm_against_a_worked_example() -> None:
    # ordered: 0.005 <= 0.05 / 4, 0.011 <= 0.05 / 3, 0.02 <= 0.05 / 2, 0.04 <= 0.05 / 1
    assert holm([0.04, 0.005, 0.02, 0.011]) == [True, True, True, True]
    # 0.03 > 0.05 / 2 stops everything after it
    assert holm([0.04, 0.005, 0.03, 0.011]) == [False, True, False, True]
    assert holm([]) == []


@pytest.fixture
def two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Record, Record]:
    """40 images of two expressions; the first run answers all with location words wrong, the second none."""
    rows = table([row(number) for number in range(80)])
    Image.new("RGB", (100, 100), "grey").save(tmp_path / "a.png")

    class Data:
        def load(self, split: str) -> AnnotationTable:
            return rows

        def image_path(self, image: str) -> Path:
            return tmp_path / image

    module = types.ModuleType("synthetic_data")
    module.Data = Data
    monkeypatch.setitem(sys.modules, "synthetic_data", module)
    made = []
    for name in ("one", "two"):
        file = tmp_path / name / "predictions" / "val.parquet"
        file.parent.mkdir(parents=True)
        with PredictionWriter(file) as writer:
            for number in range(80):
                box = WRONG if name == "one" and number % 2 else RIGHT
                writer.write([f"k{number}"], [Prediction(torch.tensor([box]), torch.ones(1))])
        result = Result(
            **{"dataset": "synthetic", "split": "val", "task": "rec", "data_hash": rows.hash, "expressions": 80},
            images=40,
            metrics={"prec@0.5": Metric(50.0 if name == "one" else 100.0, 80)},
            predictions="predictions/val.parquet",
        )
        config = {"dataset": {"_target_": "synthetic_data.Data"}, "eval": {"limit": None}}
        environment = Environment("3", "Linux", {}, Code(), Hardware("a CPU", 1))
        record = Record(method=name, config=config, config_hash=name, environment=environment, results=[result])
        store.write(record, tmp_path / name)
        made.append(record)
    return made[0], made[1]


def test_the_difference_of_two_runs_by_slice(two_runs: tuple[Record, Record], tmp_path: Path) -> None:
    (found,) = versus(*two_runs, resamples=200, worst=5)
    lines = {line.bucket: (line.first, line.second, line.test.difference, line.significant) for line in found.slices}
    assert lines["all"] == (50.0, 100.0, 50.0, True)
    assert lines["with"] == (0.0, 100.0, 100.0, True)
    assert lines["without"] == (100.0, 100.0, 0.0, False)
    whole = found.slices[0].test
    assert (whole.low, whole.high, whole.images) == (50.0, 50.0, 40)  # every image has one of each kind
    assert [(entry.key, entry.first, entry.second) for entry in found.disagreements] == [
        (f"k{number}", 0.0, 100.0) for number in (1, 3, 5, 7, 9)
    ]
    text = format_versus([found], tmp_path / "pictures")
    assert "| location words: with | 0.00 | 100.00 | +100.00 * |" in text
    assert "| the left dog | 0.0 | 100.0 | k1 |" in text
    names = {path.name for path in (tmp_path / "pictures" / "synthetic-val-rec").iterdir()}
    assert names == {"sheet.png", *(f"0{number}.png" for number in range(5))}


def test_a_run_against_itself_differs_nowhere(two_runs: tuple[Record, Record]) -> None:
    (found,) = versus(two_runs[0], two_runs[0], resamples=50)
    assert all(line.test.difference == 0 and not line.significant for line in found.slices)
    assert found.disagreements == []
    assert "| one (one) | one (one) |" in format_versus([found])


def test_other_data_is_not_compared(two_runs: tuple[Record, Record]) -> None:
    first, second = two_runs
    second.results[0].data_hash = "something else"
    with pytest.raises(UserError, match="no result on the same data"):
        versus(first, second)
    first.results[0].data_hash = "something else"
    with pytest.raises(UserError, match="one: synthetic val is not the data that was scored"):
        versus(first, second)


def test_the_command_compares_two_runs(
    two_runs: tuple[Record, Record], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(tmp_path / "one"), str(tmp_path / "two")]
    assert main(["compare", *paths, "--slices"]) == 0
    out = capsys.readouterr().out
    assert out.index("## REC on real data") < out.index("## two against one: synthetic val, Prec@0.5")
    with pytest.raises(UserError, match="--slices compares two runs, found 1"):
        main(["--debug", "compare", paths[0], "--slices"])
