"""The stress tests of the page: what is gathered, and what a real browser makes of it (skipped without Chromium)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vgbench.leaderboard.page import write_page
from vgbench.leaderboard.page_data import collect
from vgbench.leaderboard.stress import stress_grids
from vgbench.records.record import Code, Environment, Hardware, Metric, Record, Result

if TYPE_CHECKING:
    from tests.browser import Browser


def result(split: str, right: float, task: str = "stress", hash: str = "d1", **changes: object) -> Result:
    metrics = {"right": Metric(right, 50, right - 4, right + 4), "plain": Metric(80.0, 50)}
    fields: dict = {
        "dataset": "refshapes",
        "split": split,
        "task": task,
        "data_hash": hash,
        "embedded": True,
        "expressions": 50,
        "images": 10,
        "metrics": metrics,
    }
    return Result(**{**fields, **changes})


def run(method: str, offset: float) -> Record:
    curve = {f"false@{percent}": Metric(90.0 - percent, 50) for percent in (10, 50, 90)}
    counts = {str(count): Metric(90.0 - 10 * count - offset, 20) for count in range(3)}
    bins = {"0.8-0.9": Metric(70.0, 20), "0.9-1.0": Metric(90.0, 30)}
    return Record(
        method=method,
        config={},
        config_hash=method * 2,
        environment=Environment("3", "linux", {}, Code(), Hardware("cpu", 2)),
        results=[
            result("val [mirror]", 78 - offset),
            result("val [image:pixelate@1]", 75 - offset),
            result("val [image:pixelate@3]", 60 - offset),
            result("val [nothing]", 5.0, metrics={"right": Metric(5.0, 50), "plain": Metric(80.0, 50), **curve}),
            result("val [distractors]", 80, metrics={"right": Metric(80.0, 50)}, slices={"right": {"others": counts}}),
            result("val [gone]", 1.0, hash=method),  # a probe that is not installed, with other questions
            result(
                "val",
                0,
                task="calibration",
                metrics={"ece": Metric(7.0, 50), "risk@50": Metric(5.0, 25), "risk@100": Metric(20.0, 50)},
                slices={"accuracy": {"score": bins}, "confidence": {"score": bins}},
            ),
        ],
    )


RUNS = [run("alpha", 0), run("beta", 10)]


def test_a_line_for_each_probe_and_a_column_for_each_model() -> None:
    (grid,) = stress_grids(RUNS)
    assert [heading.text for heading in grid.headings] == ["Probe", "The answer", "n", "alpha", "beta"]
    assert [row[0].text for row in grid.rows] == [
        *("mirror", "image:pixelate@1", "image:pixelate@3", "nothing", "distractors", "gone #1", "gone #2"),
    ]
    assert [cell.text for cell in grid.rows[0]] == ["mirror", "must follow", "50", "78.0 / 80.0", "68.0 / 80.0"]
    assert grid.rows[0][3].spread == 4
    assert [cell.text for cell in grid.rows[5]] == ["gone #1", "", "50", "1.0 / 80.0", ""]
    assert any("questions alpha" in note for note in grid.notes)


def test_what_the_page_gets() -> None:
    data = collect(RUNS, [])
    (group,) = data["stress"]
    curves = {curve["title"]: curve["series"] for curve in group["curves"]}
    assert curves["image:pixelate"][0]["points"] == [[0, 80, None, None], [1, 75, 71, 79], [3, 60, 56, 64]]
    assert [point[:2] for point in curves["nothing: false answers"][0]["points"]] == [[0.1, 80], [0.5, 40], [0.9, 0]]
    assert [point[:2] for point in curves["distractors: accuracy"][1]["points"]] == [[0, 80], [1, 70], [2, 60]]
    assert curves["reliability"][0]["points"][1][:2] == [90, 90]
    assert curves["risk and coverage"][0]["points"][-1][:2] == [100, 20]
    assert {column["task"] for column in data["columns"]} == {"calibration"}  # probes are never in plain tables


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(RUNS, tmp_path_factory.mktemp("page"), [])


def test_bars_and_curves_in_a_browser(browser: Browser) -> None:
    assert browser.run("document.getElementById('stress').hidden") is False
    assert browser.run("document.querySelectorAll('#stress-bars .bar').length") == 2 * 6
    assert (
        browser.run("document.querySelector('#stress-bars h4').textContent") == "mirror: must follow (50 expressions)"
    )
    titles = browser.run("[...document.querySelectorAll('#stress-curve option')].map(one => one.textContent)")
    assert "reliability" in titles
    browser.run(
        f"(() => {{ const menu = document.getElementById('stress-curve'); menu.value = '{titles.index('reliability')}';"
        " menu.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )
    assert browser.run("document.querySelector('#stress-chart svg').getAttribute('aria-label')") == "reliability"
    assert not browser.problems
