"""Several processes: what launchers may do, and one run folder for all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from vgbench.batches.samplers import EvalBatches, share
from vgbench.core.errors import UserError
from vgbench.core.processes import process_rank
from vgbench.predictions.reader import read_predictions
from vgbench.records import store
from vgbench.training.checks import check_machine


def config_of(*overrides: str) -> DictConfig:
    with initialize_config_module("vgbench.configs", version_base="1.3"):
        return compose("run", ["method=alvg", "dataset=refshapes", *overrides], return_hydra_config=True)


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_a_launch_that_would_train_the_same_thing_twice_is_refused(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "2")
    with pytest.raises(UserError, match=r"2 processes were launched.*trainer=ddp trainer.devices=N"):
        check_machine(config_of("trainer=cpu"))
    monkeypatch.setenv(variable, "1")
    check_machine(config_of("trainer=cpu"))


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_notebook", "ddp_fork"])
def test_copies_of_the_first_process_are_refused(strategy: str) -> None:
    with pytest.raises(UserError, match=f"trainer.strategy={strategy}.*take trainer=ddp"):
        check_machine(config_of("trainer=cpu", "trainer.devices=2", f"trainer.strategy={strategy}"))


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, 0),
        ({"RANK": "3", "LOCAL_RANK": "1"}, 3),
        ({"SLURM_PROCID": "2"}, 2),
        ({"NODE_RANK": "0", "LOCAL_RANK": "0"}, 0),
        ({"NODE_RANK": "1"}, 1),  # the first process of the second node
    ],
)
def test_the_first_process_of_a_launch(variables: dict[str, str], rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert process_rank() == rank


def test_every_expression_is_on_one_process_and_every_process_takes_part() -> None:
    for expressions, processes in ((7, 3), (2, 4), (1, 2)):
        shares = [share(range(expressions), rank, processes) for rank in range(processes)]
        assert sorted(number for part in shares for image in part for number in image) == list(range(expressions))
        assert all(len(EvalBatches(range(expressions), 4, rank, processes)) for rank in range(processes))


SMALL = [
    *("run", "method=alvg", "dataset=refshapes", "weights=null", "+dataset.images={train:16,val:6,testA:4,testB:4}"),
    *("method.encoder_layers=1", "method.encoder_width=16", "method.encoder_ffn=32", "method.width=16"),
    *("method.ffn=16", "method.query_ffn=16", "method.mask_channels=8", "recipe.batch_size=8", "eval.splits=[val]"),
    *("eval.examples=0", "eval.bootstrap=0", "eval.control=null", "logger.tensorboard=false", "workers=0"),
    *("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"),
]


def command(place: Path, *overrides: str) -> list[str]:
    places = [f"dataset.data_root={place}", f"dataset.cache_dir={place}", f"runs={place / 'runs'}"]
    return [sys.executable, "-m", "vgbench.cli", *SMALL, *places, *overrides]


@pytest.mark.slow
def test_a_sweep_with_two_processes_has_a_folder_per_value_and_more_processes_than_expressions(tmp_path: Path) -> None:
    sweep = command(tmp_path, "recipe.epochs=1", "eval.limit=1", "-m", "seed=1,2")
    done = subprocess.run(sweep, capture_output=True, text=True, cwd=tmp_path, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    folders = sorted((tmp_path / "runs").glob("alvg-refshapes*"))
    assert [store.read(folder).seed for folder in folders] == [1, 2]
    assert all(len(read_predictions(folder / "predictions" / "val.parquet")) == 1 for folder in folders)
    assert not list((tmp_path / "runs").rglob(".*.part*"))


def _child(parent: int) -> int | None:
    """A process that was started by another, where /proc tells."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            status = (place / "stat").read_text().rpartition(")")[2].split()
            if int(status[1]) == parent and "vgbench.cli" in (place / "cmdline").read_text():
                return int(place.name)
        except OSError:
            continue
    return None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("first", [True, False])
def test_a_killed_process_ends_the_others(tmp_path: Path, first: bool) -> None:
    process = subprocess.Popen(
        command(tmp_path, "recipe.epochs=5000", "checkpoint_every=4"), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 200
        while not list(tmp_path.glob("runs/*/checkpoints/step.ckpt")) and time.monotonic() < deadline:
            time.sleep(0.2)
        other = _child(process.pid)
        assert other is not None
        os.kill(process.pid if first else other, signal.SIGKILL)
        assert process.wait(60) != 0
        deadline = time.monotonic() + 60
        while Path(f"/proc/{other}").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not Path(f"/proc/{other}").exists()
        if not first:
            assert process.stderr is not None and "process 1 was killed by signal 9" in process.stderr.read()
    finally:
        process.kill()
