"""An installed wheel works away from the repository and owns no top-level name but its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a fresh environment with our wheel; the dependencies are lent by the present environment."""
    folder = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns(".git", ".venv", "build", "runs", "*.egg-info", "__pycache__", ".*_cache")
    source = shutil.copytree(ROOT, folder / "source", ignore=ignore)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)
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
        " ('vgbench.methods', 'alvg/weights/refshapes.safetensors')]:\n"
        "    print(name, files(package).joinpath(name).is_file())"
    )
    done = subprocess.run([str(installed), "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "False" not in done.stdout and done.stdout.count("True") == 5


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
