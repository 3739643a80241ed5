"""A sweep stands in one folder; given again it does what is missing; launchers of others do the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vgbench.cli import main
from vgbench.records import store

ROOT = Path(__file__).parents[2]
TINY = [
    *(
        "method=centre",
        "dataset=refshapes",
        "+dataset.images={train:2,val:1}",
        "recipe.epochs=1",
        "recipe.batch_size=8",
    ),
    *("eval.splits=[val]", "eval.examples=0", "eval.bootstrap=0", "eval.control=null", "trainer=cpu", "workers=0"),
]
PLUGIN = ["--plugin", str(ROOT / "tests" / "examples" / "centre.py")]


def arguments(folder: Path, data: Path, *more: str) -> list[str]:
    places = [f"dataset.data_root={data}", f"dataset.cache_dir={data}", f"runs={folder}"]
    return ["run", "-m", *PLUGIN, *TINY, *places, *more]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refshapes")


def test_a_sweep_given_again_does_what_is_missing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path, data, "seed=1,2", "sweep=seeds")) == 0
    printed = capsys.readouterr().out
    assert "(2 seeds)" in printed and "2 of 2 points" in printed
    first, second = (tmp_path / "seeds" / f"centre-refshapes-seed{seed}" for seed in (1, 2))
    created = store.read(first).created
    (second / "record.json").unlink()  # as if it had been stopped before its record
    assert main(arguments(tmp_path, data, "seed=1,2,3", "sweep=seeds")) == 0
    printed = capsys.readouterr().out
    assert f"{first}: done already" in printed and f"{second}: done already" not in printed
    assert store.read(first).created == created
    assert [store.read(path).seed for path in sorted((tmp_path / "seeds").iterdir())] == [1, 2, 3]


def test_a_sweep_is_named_by_its_command_and_names_its_folders(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for word in ("run_dir=here", "resume=true"):
        assert main(arguments(tmp_path, data, "seed=1,2", word)) == 2
        assert "leave out run_dir= and resume=" in capsys.readouterr().err
    single = [item for item in arguments(tmp_path, data, "sweep=x") if item != "-m"]
    assert main(single) == 2 and "add -m" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "module"), [("processes", "submitit"), ("ray", "ray")])
def test_launchers_do_the_same(launcher: str, module: str, data: Path, tmp_path: Path) -> None:
    pytest.importorskip(module)
    command = [sys.executable, "-m", "vgbench.cli", *arguments(tmp_path, data, "seed=1,2", "sweep=seeds")]
    done = subprocess.run(
        [*command, f"hydra/launcher={launcher}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "2 of 2 points" in done.stdout
    assert [store.read(path).seed for path in sorted((tmp_path / "seeds").iterdir())] == [1, 2]
