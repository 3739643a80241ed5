"""Runs of two processes, end to end on the CPU: started by Lightning, torchrun and SLURM; DDP and FSDP."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from vgbench.config.compose import compose
from vgbench.methods.simvg.method import SimVG
from vgbench.predictions.reader import read_predictions
from vgbench.records import store
from vgbench.training import run

pytestmark = pytest.mark.slow

SIZES = "encoder_layers=2 encoder_width=16 encoder_ffn=32 width=16 ffn=16 query_ffn=16 drop_path=0.2"
SMALL = ["dataset=refshapes", "weights=null", "+dataset.images={train:16,val:6,testA:2,testB:2}"]
SMALL += ["recipe.batch_size=16", "recipe.epochs=1", "eval.splits=[val]", "eval.examples=0", "eval.bootstrap=20"]
SMALL += ["eval.control=null", "logger.every_n_steps=1", "workers=0"]
SMALL += ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true"]
MIXED = "trainer.precision=bf16-mixed"  # replicated weights are cast once per step, sharded ones by FSDP or autocast


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refshapes")


def command(data_root: Path, runs: Path, *overrides: str, method: str = "simvg") -> list[str]:
    sizes = [f"method.{size}" for size in SIZES.split()] if method == "simvg" else []
    places = [f"dataset.data_root={data_root}", f"dataset.cache_dir={data_root}", f"runs={runs}"]
    return ["run", f"method={method}", *SMALL, *sizes, *places, *overrides]


def start(arguments: list[str], *launcher: str, **environment: str) -> subprocess.Popen[str]:
    starter = launcher or (sys.executable,)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "VGBENCH_RUN"))}
    return subprocess.Popen([*starter, "-m", "vgbench.cli", *arguments], text=True, env=clean | environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def wait(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors[-3000:]


def losses(folder: Path) -> pd.Series:
    table = pd.read_csv(folder / "logs" / "metrics.csv").dropna(subset=["train/total"])
    return table.set_index("step")["train/total"]


def test_torchrun_makes_one_run_of_its_processes(data_root: Path, tmp_path: Path) -> None:
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    wait(start(command(data_root, tmp_path, "trainer=ddp", MIXED), *launcher))
    (replicated,) = tmp_path.glob("simvg-*")
    record = store.read(replicated)
    assert record.training is not None and record.training.batch == 32
    predictions = read_predictions(replicated / "predictions" / "val-token.parquet")
    assert len(set(predictions.keys.to_pylist())) == len(predictions) == record.results[0].expressions


def cut_off_and_resumed(rank: int, port: int, overrides: list[list[str]], stop_at: int) -> None:
    """One of two processes as torchrun starts them; the first of its runs is cut off after some steps."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "a"}
    stopped, again, replicated = (compose(part) for part in overrides)
    forward, calls = SimVG.forward, 0

    def failing(self: SimVG, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > stop_at:
            raise RuntimeError("power cut")
        return forward(self, batch)

    SimVG.forward = failing  # type: ignore[method-assign]
    with contextlib.suppress(RuntimeError):
        run.run(stopped)
    SimVG.forward = forward  # type: ignore[method-assign]
    for config in (again, replicated):
        os.environ.pop("VGBENCH_RUN_FOLDER", None)
        run.run(config)


def test_sharded_training_is_cut_off_goes_on_and_writes_one_whole_model(data_root: Path, tmp_path: Path) -> None:
    """FSDP, cut off and resumed: what the run computed that kept everything everywhere (DDP)."""
    common = ["recipe.ema=0.99", "recipe.epochs=2", "checkpoint_every=1"]
    sharded, whole = (command(data_root, tmp_path / kind, f"trainer={kind}", *common)[1:] for kind in ("fsdp", "ddp"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # not forked: another test of this process may have run a backward pass, which a child of its cannot do again
    mp.spawn(cut_off_and_resumed, (port, [sharded, [*sharded, "resume=true"], whole], 6), nprocs=2)
    (folder,), (replicated,) = tmp_path.glob("fsdp/simvg-*"), tmp_path.glob("ddp/simvg-*")
    assert len(losses(folder)) == len(losses(replicated)) > 6
    pd.testing.assert_series_equal(losses(folder), losses(replicated), rtol=1e-4)
    for name in ("model.safetensors", "model.raw.safetensors"):
        ours, theirs = load_file(folder / name), load_file(replicated / name)
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=1e-3, atol=1e-4, msg=key)


def test_slurm_makes_one_run_of_its_tasks(data_root: Path, tmp_path: Path) -> None:
    """Two tasks as srun starts them, one of them late: one run folder, made by the first. AMC is sharded too."""
    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "vg", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    job |= {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost", "MASTER_ADDR": "127.0.0.1"}
    arguments = command(data_root, tmp_path, "trainer=fsdp", MIXED, "recipe.batch_size=8", method="amc")
    tasks = [start(arguments, **job, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)) for rank in (1, 0)]
    wait(*tasks)
    (folder,) = tmp_path.glob("amc-*")
    record = store.read(folder)
    assert record.training is not None and record.training.batch == 16 and record.results


MEETINGS = """
import os
from pathlib import Path
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.strategies import DDPStrategy

def note(name):
    def called(*arguments, **options):
        with Path(os.environ["MEETINGS"]).open("a") as file:
            print(name, file=file)
        return arguments[1] if len(arguments) > 1 else None
    return called

DDPStrategy.reduce = note("reduce")
_TrainingEpochLoop._broadcast_sigterm_tensor = note("broadcast")
"""


def test_processes_that_are_told_to_stop_agree_on_the_host_and_go_on_later(data_root: Path, tmp_path: Path) -> None:
    """No value of a step is waited for on the device, by us or by Lightning; the signal comes to one process alone."""
    folder, environment = tmp_path / "run", {"MEETINGS": str(tmp_path / "meetings.txt"), "PYTHONPATH": str(tmp_path)}
    (tmp_path / "sitecustomize.py").write_text(MEETINGS)
    run = command(data_root, tmp_path, f"run_dir={folder}", "trainer=ddp", "recipe.epochs=60", "recipe.eval_from=60")
    process = start(run, **environment)
    log, deadline = folder / "logs" / "metrics.csv", time.monotonic() + 150
    while not (log.exists() and len(log.read_text().splitlines()) > 3) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1][-2000:]
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM and "stopped after step" in errors, errors[-2000:]
    assert "Traceback" not in errors
    wait(start([*run, "resume=true"], **environment))
    assert store.read(folder).training is not None
    meetings = (tmp_path / "meetings.txt").read_text().split()
    assert "broadcast" not in meetings and len(meetings) < len(losses(folder)) / 4  # loaders that are set up
