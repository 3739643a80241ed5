"""Two runs against each other, on data whose answers can be worked out by hand."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from vgbench.cli.main import main
from vgbench.core.errors import UserError
from vgbench.core.registry import datasets
from vgbench.data.table import AnnotationTable
from vgbench.leaderboard.versus import holm, versus
from vgbench.leaderboard.versus_text import format_versus
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
        embedded = False

        def load(self, split: str) -> AnnotationTable:
            return rows

        def image_path(self, image: str) -> Path:
            return tmp_path / image

    module = types.ModuleType("synthetic_data")
    module.Data = Data
    monkeypatch.setitem(sys.modules, "synthetic_data", module)
    monkeypatch.setitem(datasets._added, "synthetic", Data)
    records = []
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
        records.append(record)
    return records[0], records[1]


def test_the_difference_of_two_runs_by_slice(two_runs: tuple[Record, Record], tmp_path: Path) -> None:
    (comparison,) = versus(*two_runs, resamples=200, worst=5)
    lines = {
        line.bucket: (line.first, line.second, line.test.difference, line.significant) for line in comparison.slices
    }
    assert lines["all"] == (50.0, 100.0, 50.0, True)
    assert lines["with"] == (0.0, 100.0, 100.0, True)
    assert lines["without"] == (100.0, 100.0, 0.0, False)
    whole = comparison.slices[0].test
    assert (whole.low, whole.high, whole.images) == (50.0, 50.0, 40)  # every image has one of each kind
    assert [(entry.key, entry.first, entry.second) for entry in comparison.disagreements] == [
        (f"k{number}", 0.0, 100.0) for number in (1, 3, 5, 7, 9)
    ]
    text = format_versus([comparison], tmp_path / "pictures")
    assert "| location words: with | 0.00 | 100.00 | +100.00 * |" in text
    assert "| the left dog | 0.0 | 100.0 | k1 |" in text
    names = {path.name for path in (tmp_path / "pictures" / "synthetic-val-rec").iterdir()}
    assert names == {"sheet.png", *(f"0{number}.png" for number in range(5))}


def test_a_run_against_itself_differs_nowhere(two_runs: tuple[Record, Record]) -> None:
    (comparison,) = versus(two_runs[0], two_runs[0], resamples=50)
    assert all(line.test.difference == 0 and not line.significant for line in comparison.slices)
    assert comparison.disagreements == []
    assert "| one (one) | one (one) |" in format_versus([comparison])


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
    assert main(["compare", *paths, "--slices", "--format", "md"]) == 0
    assert capsys.readouterr().out == out
    with pytest.raises(UserError, match="--slices compares two runs, found 1"):
        main(["--debug", "compare", paths[0], "--slices"])


def test_on_a_terminal_the_tables_fit(
    two_runs: tuple[Record, Record], tmp_path: Path, terminal_lines: Callable[[Callable[[], object]], list[str]]
) -> None:
    words = ["compare", str(tmp_path / "one"), str(tmp_path / "two"), "--slices", "--pictures", str(tmp_path / "p")]
    lines = terminal_lines(lambda: main(words))
    assert max(map(len, lines)) <= 80 and not any("|" in line for line in lines)
    assert any(line.split()[:4] == ["location", "words:", "with", "0.00"] for line in lines)
    assert any(line.startswith("- Pictures: ") for line in lines)
    markdown = terminal_lines(lambda: main([*words, "--format", "markdown"]))
    assert "| location words: with | 0.00 | 100.00 | +100.00 * |" in "\n".join(markdown)
