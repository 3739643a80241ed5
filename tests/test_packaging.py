"""An installed wheel works away from the repository and owns no top-level name but its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from vgbench.cli.hints import MODEL_PACKAGES

ROOT = Path(__file__).resolve().parents[1]


def build(kind: str, source: Path, out: Path) -> str:
    """What building a wheel, an editable wheel or an sdist prints."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    command = [sys.executable, "-c", code]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def warnings_of(output: str) -> list[str]:
    """Lines of a build that are no plain step (the newest setuptools printed a thousand of "would be ignored")."""
    steps = ("copying ", "adding ", "creating ", "running ", "writing ", "removing ", "reading ")
    lines = (line.strip() for line in output.splitlines())
    return [line for line in lines if re.search("warning|deprecat|ignored", line, re.I) and not line.startswith(steps)]


def copy(folder: Path) -> Path:
    ignore = shutil.ignore_patterns(".git", ".venv", "build", "runs", "*.egg-info", "__pycache__", ".*_cache")
    return shutil.copytree(ROOT, folder / "source", ignore=ignore)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a fresh environment with our wheel; the dependencies are lent by the present environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    assert not warnings_of(build("wheel", copy(folder), folder))
    (wheel,) = folder.glob("vgbench-*.whl")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", str(wheel)], check=True, capture_output=True)
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    lent = sysconfig.get_paths()["purelib"]  # as a plain path: its editable install of ourselves stays inactive
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    (Path(own) / "lent.pth").write_text(lent + "\n")
    subprocess.run([*pip, "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)], check=True)
    return python


def test_wheel_runs_from_another_directory(installed: Path, tmp_path: Path) -> None:
    where = [str(installed), "-c", "import vgbench, vgbench.configs; print(vgbench.__file__)"]
    place = subprocess.run(where, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert str(installed.parent.parent) in place
    done = subprocess.run(
        [str(installed.parent / "vgbench"), "list"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "alvg" in done.stdout and "refcoco" in done.stdout and "alvg-refcoco" in done.stdout


def test_wheel_has_configurations_weights_and_published_numbers(installed: Path, tmp_path: Path) -> None:
    code = (
        "from importlib.resources import files\n"
        "for package, name in [('vgbench.configs', 'run.yaml'), ('vgbench.configs', 'recipe/alvg/refcoco.yaml'),"
        " ('vgbench.leaderboards', 'published.csv'), ('vgbench.methods', 'alvg/README.md'),"
        " ('vgbench', 'templates/project/dot-github/workflows/test.yml.in'),"
        " ('vgbench.methods', 'alvg/weights/refshapes.safetensors')]:\n"
        "    print(name, files(package).joinpath(name).is_file())"
    )
    done = subprocess.run([str(installed), "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "False" not in done.stdout and done.stdout.count("True") == 6


def test_wheel_has_every_file_of_its_folders(installed: Path) -> None:
    """A file of a new kind would be left out without a word. Pictures of the cards stay in the repository."""
    folders = ["vgbench", "methods", "datasets", "configs", "leaderboards"]
    listing = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode or not listing.stdout:
        pytest.skip("a source without its git history")
    (wheel,) = installed.parents[2].glob("vgbench-*.whl")
    packed = {name.removeprefix("vgbench/") for name in zipfile.ZipFile(wheel).namelist()}
    files = [Path(line.removeprefix("vgbench/")) for line in listing.stdout.splitlines() if (ROOT / line).is_file()]
    assert not [file for file in files if file.as_posix() not in packed and file.suffix not in (".png", ".jpg")]


def test_wheel_claims_no_foreign_top_level_name(installed: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util\n"
        "for name in ('datasets', 'methods', 'configs', 'leaderboards', 'tests'):\n"
        "    spec = importlib.util.find_spec(name)\n"
        "    print(name, spec.origin if spec else None)"
    )
    done = subprocess.run([str(installed), "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    own = str(installed.parent.parent)
    assert not [
        line for line in done.stdout.splitlines() if own in line or (str(ROOT) in line and "site-packages" not in line)
    ]


def test_every_package_of_the_tree_is_in_the_wheel() -> None:
    tomllib = pytest.importorskip("tomllib")
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {"vgbench"}
    for top, package in (("vgbench", "vgbench"), *((name, f"vgbench.{name}") for name in ("methods", "datasets"))):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / top).parts
            found.add(".".join([package, *parts]))
    found |= {"vgbench.configs", "vgbench.leaderboards"}
    assert listed == found


def test_editable_build_warns_of_nothing(tmp_path: Path) -> None:
    assert not warnings_of(build("editable", copy(tmp_path), tmp_path / "out"))


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``vgbench`` of an environment with vgbench-core and nothing that only models need."""
    folder = tmp_path_factory.mktemp("core")
    build("wheel", copy(folder) / "packaging" / "core", folder)
    (wheel,) = folder.glob("vgbench_core-*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", str(wheel)], check=True)
    lent = folder / "lent"
    lent.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if entry.name.partition(".")[0].lower() not in MODEL_PACKAGES and not entry.name.startswith(("vgbench", "__")):
            (lent / entry.name).symlink_to(entry)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(f"{lent}\n")
    return python.parent / "vgbench"


def test_core_scores_and_compares_without_pytorch(light: Path, tmp_path: Path) -> None:
    def vgbench(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(light), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)

    images = "dataset.images={train: 4, val: 4, testA: 3, testB: 3}"
    data = ["dataset=refshapes", f"++{images}", f"dataset.cache_dir={tmp_path}"]
    for command in (
        ["score", "trivial", *data, "split=val", "eval.bootstrap=10", "--variant", "rec/canvas@640"],
        ["data", "convert", *data, "split=val", "layout=mdetr", "out=converted"],
        ["data", "browse", *data, "split=val", "out=sheet"],
        ["compare", "--committed"],
    ):
        done = vgbench(*command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    done = vgbench("run", "method=alvg", *data)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "pip install vgbench" in done.stderr


def test_every_requirement_says_from_which_version_on() -> None:
    """The oldest allowed packages can be asked for (`.ci/compatibility PYTHON oldest`): of `wheel` that was 0.1."""
    project = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = [*project["dependencies"], *(need for needs in project["optional-dependencies"].values() for need in needs)]
    open_ended = [need for need in needs if not need.startswith("vgbench[") and ">=" not in need.partition(";")[0]]
    assert open_ended == ["transformers<5"]  # of the extra mmdet, an upper bound beside the project's own lower one
