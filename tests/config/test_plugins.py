"""Methods, datasets and metrics from elsewhere: files, folders, installed packages; skeletons of ``vgbench new``."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from vgbench.cli.main import build_parser, main
from vgbench.cli.new import new
from vgbench.config import plugins
from vgbench.config.compose import compose
from vgbench.core import registry
from vgbench.core.errors import UserError
from vgbench.metrics import catalog

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test starts without plugins and leaves none."""
    for kind in (registry.methods, registry.datasets, registry.metrics):
        monkeypatch.setattr(kind, "_added", {})
    monkeypatch.setattr(plugins, "_FOLDERS", {})
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("centre", "centre_hit", "pets", "mine", "mybird", "mypets"):
            del sys.modules[name]


def copied(tmp_path: Path, name: str) -> Path:
    return Path(shutil.copy(EXAMPLES / name, tmp_path / name))


def test_a_method_from_a_file_is_a_choice_with_its_defaults(tmp_path: Path) -> None:
    plugins.load(str(copied(tmp_path, "centre.py")))
    config = compose(["method=centre", "dataset=refshapes", "method.image_size=32"])
    assert config.method == {"_target_": "centre.Centre", "image_size": 32}
    assert config.hydra.runtime.choices.method == "centre"
    assert registry.methods.name_of(sys.modules["centre"].Centre) == "centre"


def test_a_dataset_from_a_file_takes_the_options_of_all_datasets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = copied(tmp_path, "pets.py")
    (tmp_path / "pets.csv").write_text("image,width,height,x1,y1,x2,y2,text\ncat.png,40,30,10,5,30,25,the cat\n")
    arguments = ["dataset=pets", f"data_root={tmp_path}", f"dataset.cache_dir={tmp_path}/cache"]
    assert main(["data", "build", "--plugin", str(file), *arguments]) == 0
    assert capsys.readouterr().out == "pets test: 1 expressions\n"
    assert set(compose(["dataset=pets"]).dataset) == {
        *("_target_", "data_root", "image_root", "image_template", "cache_dir", "on_bad_sample", "filter")
    }


def test_a_metric_from_a_file_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "centre_hit" not in catalog.variants()
    plugins.load(str(copied(tmp_path, "centre_hit.py")))
    assert catalog.variants()["centre_hit"] == {"strict": "a centre on the border is outside"}
    assert catalog.make_metric("centre_hit/strict").rule.strict
    assert catalog.primary_metric(["centre_hit"]) == "centre_hit/hit"
    assert catalog.primary_metric(["centre_hit", "rec"]) == "rec/prec@0.5"
    small = ["dataset.images={train: 4, val: 4, testA: 4, testB: 4}", f"dataset.cache_dir={tmp_path}/cache"]
    assert (
        main(["score", "trivial", "dataset=refshapes", "split=val", "task=centre_hit", "eval.bootstrap=20", *small])
        == 0
    )
    assert "centre_hit/hit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("x = 1", "defines no method, dataset, metric, probe or answer style"),
        ("import nowhere_at_all", "nowhere_at_all"),
        ("from vgbench.methods.alvg import ALVG", "defines no method"),
        ("from vgbench.methods.alvg import ALVG as A\nclass B(A):\n    name = 'ALVG'", "'alvg' already"),
    ],
)
def test_what_is_no_plugin_is_refused_in_one_line(
    content: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(content)
    assert main(["list", "--plugin", str(tmp_path / "mine.py")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line


def test_a_plugin_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for spec in (str(tmp_path / "no.py"), str(tmp_path), "no_such_module_anywhere"):
        with pytest.raises(UserError, match=r"--plugin"):
            plugins.load(spec)
    (tmp_path / "json.py").write_text("")
    with pytest.raises(UserError, match="a module 'json' is loaded already"):
        plugins.load(str(tmp_path / "json.py"))


def run_own_tests(project: Path, tmp_path: Path) -> int:
    """Call the test functions that a skeleton brings; how many there were."""
    (file,) = (project / "tests").glob("test_*.py")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    for test in tests:
        test(*([tmp_path] if inspect.signature(test).parameters else []))
    return len(tests)


def check_project(project: Path, name: str) -> None:
    """What a package brings besides its code: git leaves out what runs make, CI runs its tests, a card has commands."""
    ignored = (project / ".gitignore").read_text().splitlines()
    assert {"runs/", "__pycache__/", "*.ckpt"} <= set(ignored)
    (job,) = yaml.safe_load((project / ".github/workflows/test.yml").read_text())["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == ['pip install "$VGBENCH" -e ".[test]"', "python -m pytest"]
    extras = tomllib.loads((project / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras == {"test": ["pytest"]}
    card = (project / "README.md").read_text()
    assert card.count(f"--plugin {name}") >= 2 and "mymethod" not in card and "mydata" not in card
    for line in re.findall(r"^ {4}vgbench (.*)$", card, re.M):
        build_parser().parse_known_args(shlex.split(line))


def test_the_skeleton_of_a_dataset_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "dataset", "mypets", str(tmp_path / "project")]) == 0
    assert "--plugin" in capsys.readouterr().out
    plugins.load(str(tmp_path / "project"))
    assert run_own_tests(tmp_path / "project", tmp_path) == 1
    check_project(tmp_path / "project", "mypets")
    assert compose(["dataset=mypets"]).dataset._target_ == "mypets.Mypets"


def test_the_skeleton_of_a_method_works_and_is_clean(tmp_path: Path) -> None:
    project = new("method", "mybird", tmp_path / "project")
    plugins.load(str(project / "mybird"))
    assert run_own_tests(project, tmp_path) == 2
    check_project(project, "mybird")
    config = compose(["method=mybird", "dataset=refshapes"])
    assert config.method.width == 32 and config.recipe.epochs == 2  # its own YAML and recipe, not the defaults
    from vgbench.conform.run import runner_of

    assert runner_of("mybird").__module__ == "mybird.conformance"
    ruff = Path(sys.executable).with_name("ruff")
    if ruff.exists():
        settings = Path(__file__).parents[2] / "pyproject.toml"
        subprocess.run(
            [ruff, "check", "--quiet", "--no-cache", "--ignore", "I001", "--config", str(settings), str(project)],
            check=True,
        )
    assert not [path for path in project.rglob("*") if "mymethod" in path.name.lower()]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("My-Method", "not a name"),
        ("json", "not a name"),
        ("class", "not a name"),
        ("alvg", "already"),
        ("yaml", "is installed"),
    ],
)
def test_a_bad_name_is_refused(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        new("method", name, tmp_path / "new")
    with pytest.raises(UserError, match="exists already"):
        new("method", "mine", tmp_path)


def test_an_installed_method_trains_and_appears_on_the_leaderboard(tmp_path: Path) -> None:
    """``vgbench new``, an installation with pip, a training on RefShapes, the leaderboard; all in fresh processes."""
    project = new("method", "mybird", tmp_path / "project")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", str(tmp_path / "site"), str(project)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"}

    def vgbench(*arguments: str) -> str:
        command = [sys.executable, "-m", "vgbench.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    vgbench(
        *("run", "method=mybird", "dataset=refshapes", "dataset.images={train: 30, val: 10, testA: 5, testB: 5}"),
        *(f"dataset.cache_dir={tmp_path}/cache", "trainer=cpu", "workers=0", "recipe.epochs=1", "eval.splits=[val]"),
        *("recipe.batch_size=16", "eval.bootstrap=50", "eval.examples=0"),
    )
    board = vgbench("compare")
    assert "| Mybird" in board and "refshapes val Prec@0.5" in board
    assert (tmp_path / "runs" / "mybird-refshapes" / "record.json").exists()
