"""A task of a plug-in goes the whole way: run, eval, score --register, compare, compare --slices, the page."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vgbench.cli.main import main
from vgbench.config import plugins
from vgbench.core import registry
from vgbench.core.errors import UserError
from vgbench.metrics.tasks import Task, task_of
from vgbench.records import store

EXAMPLES = Path(__file__).parents[1] / "examples"
METRIC = ["--plugin", str(EXAMPLES / "centre_hit.py")]
METHOD = ["--plugin", str(EXAMPLES / "centre.py")]


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in (registry.methods, registry.datasets, registry.metrics):
        monkeypatch.setattr(kind, "_added", {})
    monkeypatch.setattr(plugins, "_FOLDERS", {})
    yield
    for name in ("centre", "centre_hit"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"dataset.cache_dir={tmp_path_factory.mktemp('refshapes')}"


def small(cache: str, folder: Path) -> list[str]:
    images = "dataset.images={train: 4, val: 4, testA: 4, testB: 4}"
    run = ["trainer=cpu", "workers=0", "recipe.epochs=1", "recipe.batch_size=4", "eval.examples=2"]
    return ["method=centre", "dataset=refshapes", images, cache, "eval.bootstrap=20", *run, f"runs={folder}"]


def test_run_eval_compare_slices_and_page(tmp_path: Path, cache: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = small(cache, tmp_path)
    both = [*METHOD, *METRIC]
    assert main(["run", *both, *options, "task=centre_hit", "eval.variants=[centre_hit/strict]"]) == 0
    run = tmp_path / "centre-refshapes"
    assert [(result.task, *result.metrics) for result in store.read(run).results[:2]] == [("centre_hit", "hit")] * 2
    assert store.read(run).results[0].slices.keys() == {"hit"}
    checkpoint = f"checkpoint={run}"
    assert main(["eval", *both, *options, checkpoint, "eval.variants=[centre_hit]", "eval.splits=[val]"]) == 0
    other = next(folder for folder in tmp_path.iterdir() if folder != run)
    assert [result.task for result in store.read(other).results] == ["rec", "centre_hit"]

    capsys.readouterr()
    assert main(["compare", *METRIC, str(run)]) == 0
    assert "## Centre hit on embedded (rendered) data" in capsys.readouterr().out
    assert main(["compare", *METRIC, "--slices", str(run), str(other)]) == 0
    assert "refshapes val, hit (Centre hit on embedded (rendered) data)" in capsys.readouterr().out
    assert main(["compare", *METRIC, "--html", str(tmp_path / "page"), str(run)]) == 0
    page = (tmp_path / "page" / "index.html").read_text()
    assert "Centre hit on embedded (rendered) data" in page
    assert re.search(r'"task":"centre_hit"[^}]*"headline":true', page)


def test_registered_scores_are_printed_without_the_plug_in_too(
    tmp_path: Path, cache: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = "dataset.images={train: 4, val: 4, testA: 4, testB: 4}"
    run = tmp_path / "registered"
    words = ["trivial", "dataset=refshapes", images, cache, "split=val", "task=centre_hit", "eval.bootstrap=20"]
    assert main(["score", *METRIC, *words, "--register", str(run)]) == 0
    slices = json.loads((run / "record.json").read_text())["results"][0]["slices"]
    assert slices["hit"]["location words"].keys() == {"without", "with"}
    monkeypatch.setattr(registry.metrics, "_added", {})
    capsys.readouterr()
    assert main(["compare", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "## centre_hit on embedded (rendered) data" in printed
    assert "refshapes val hit" in printed


def test_a_variant_that_cannot_be_computed_is_refused_before_the_training(
    tmp_path: Path, cache: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins.load(str(EXAMPLES / "centre_hit.py"))
    options = [*METHOD, *small(cache, tmp_path)]
    assert main(["run", *options, "eval.variants=[centre_miss/strict]"]) == 2
    assert "no task 'centre_miss'" in capsys.readouterr().err
    assert main(["run", *options, "eval.variants=[centre_hit/loose]"]) == 2
    assert "no variant 'loose' of centre_hit" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/record.json"))


def test_what_a_task_needs() -> None:
    points = task_of("pointing")
    assert points.applies({"pointing"}, {"rec"}) and not points.applies({"rec"}, {"pointing"})
    assert task_of("phrase").applies({"rec"}, {"phrase"}) and not task_of("phrase").applies({"rec"}, {"rec"})
    assert task_of("res").applies({"res"}, {"res"}) and not task_of("res").applies({"res"}, {"res"}, masks=False)
    assert task_of("nobody knows") == Task("nobody knows")
    assert (Task("a", "b").headline, Task("a", "b").gradual, Task("a", "b").title) == (("b",), "b", "a")


def test_a_plug_in_cannot_take_the_name_of_a_task(tmp_path: Path) -> None:
    source = (EXAMPLES / "centre_hit.py").read_text().replace('Task("centre_hit"', 'Task("rec"')
    (tmp_path / "stolen_task.py").write_text(source)
    with pytest.raises(UserError, match="'rec' already"):
        plugins.load(str(tmp_path / "stolen_task.py"))
