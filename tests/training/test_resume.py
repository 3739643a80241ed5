"""Runs that end early and go on: everything that they leave behind is what an uninterrupted run leaves."""

from __future__ import annotations

import csv
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from safetensors.torch import load_file

from vgbench.batches.samplers import TrainBatches
from vgbench.core.errors import Stopped, UserError
from vgbench.core.stop import listening
from vgbench.methods.alvg.method import ALVG
from vgbench.records import store
from vgbench.records.record import Cost, Record
from vgbench.training import run as runs
from vgbench.training.evaluation import Evaluation
from vgbench.training.folder import run_folder
from vgbench.training.module import GroundingModule

SMALL = [
    *("method=alvg", "dataset=refshapes", "weights=null", "+dataset.images={train:4,val:2,testA:2,testB:2}"),
    *("method.encoder_layers=1", "method.encoder_width=16", "method.encoder_ffn=32", "method.width=16"),
    *("method.ffn=16", "method.query_ffn=16", "method.mask_channels=8", "method.drop_path=0.2", "recipe.ema=0.99"),
    *("recipe.batch_size=8", "recipe.epochs=2", "eval.splits=[val]", "eval.examples=0", "eval.bootstrap=0"),
    *("eval.control=null", "logger.every_n_steps=1", "trainer=cpu", "workers=0", "checkpoint_every=2"),
]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refshapes")


def config_of(data_root: Path, folder: Path, *overrides: str) -> DictConfig:
    roots = [f"dataset.data_root={data_root}", f"dataset.cache_dir={data_root}", f"runs={folder}"]
    with initialize_config_module("vgbench.configs", version_base="1.3"):
        return compose("run", [*SMALL, *roots, *overrides], return_hydra_config=True)


def log_of(folder: Path) -> str:
    return (folder / "logs" / "metrics.csv").read_text()


def timeless(record: Record) -> Record:
    """A record without what is measured with a clock, and without where it lies."""
    training = record.training
    assert training is not None and training.wall_s > 0
    cost = Cost(parameters=record.cost.parameters, flops=record.cost.flops)
    config = {
        key: value
        for key, value in record.config.items()
        if key not in ("runs", "run_dir", "resume", "checkpoint_every")
    }
    same: dict[str, Any] = {"environment": None}  # of a checkout that is worked on
    return replace(record, cost=cost, config=config, training=replace(training, wall_s=0.0), created="", **same)


def assert_equal_runs(one: Path, other: Path) -> None:
    """Weights, moving average, log and record, bit for bit."""
    for name in ("model.safetensors", "model.raw.safetensors"):
        first, second = load_file(one / name), load_file(other / name)
        assert all(torch.equal(first[key], second[key]) for key in first), name
    assert log_of(one) == log_of(other)
    assert timeless(store.read(one)) == timeless(store.read(other))


@pytest.fixture(scope="module")
def whole(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was not stopped."""
    return runs.run(config_of(data_root, tmp_path_factory.mktemp("whole"))).folder


class PowerCut(BaseException):
    pass


def at_call(number: int, function: Callable[..., Any], act: Callable[[], None]) -> Callable[..., Any]:
    """``function`` that does something before its call of that number."""
    calls = 0

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            act()
        return function(*arguments, **options)

    return counting


def cut() -> None:
    raise PowerCut


def tell(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def steps_of(whole: Path) -> int:
    return sum(bool(line["train/total"]) for line in csv.DictReader(log_of(whole).splitlines()))


@pytest.mark.parametrize("call", [1, 2])
def test_a_validation_that_did_not_happen_is_done(
    call: int, data_root: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies in the validation of an epoch; a checkpoint of its last batch is there."""
    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, "finish", at_call(call, Evaluation.finish, cut))
        with pytest.raises(PowerCut):
            runs.run(config_of(data_root, tmp_path, "checkpoint_every=1"))
    result = runs.run(config_of(data_root, tmp_path, "checkpoint_every=1", "resume=true"))
    assert_equal_runs(whole, result.folder)


@pytest.mark.parametrize("where", ["step", "validation", "evaluation"])
def test_a_signal_ends_a_run_with_what_it_saved(
    where: str, data_root: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = steps_of(whole)
    with monkeypatch.context() as patch, listening(), pytest.raises(Stopped) as stopped:
        if where == "step":
            patch.setattr(ALVG, "forward", at_call(steps // 2 + 2, ALVG.forward, tell))
        else:
            patch.setattr(Evaluation, "add", at_call(1 if where == "validation" else 3, Evaluation.add, tell))
        runs.run(config_of(data_root, tmp_path, "checkpoint_every=null"))
    saved = {"step": steps // 2 + 2, "validation": steps // 2, "evaluation": steps}[where]
    if where == "evaluation":
        assert "resume=true goes on with the evaluation" in str(stopped.value)
    else:
        assert str(stopped.value) == f"stopped after step {saved}; resume=true goes on from step {saved}"
    assert stopped.value.signal == signal.SIGTERM
    assert not (tmp_path / "alvg-refshapes" / "record.json").exists()
    result = runs.run(config_of(data_root, tmp_path, "checkpoint_every=null", "resume=true"))
    assert_equal_runs(whole, result.folder)


class NoMemory(Exception):
    pass


@pytest.mark.parametrize("where", ["forward", "last forward", "loader", "update", "validation"])
def test_an_error_within_an_epoch_costs_the_step_at_hand(
    where: str,
    data_root: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two epochs of four steps; a weight update that is half done, or a validation, is not saved."""

    def fail() -> None:
        raise NoMemory

    def batches(self: TrainBatches) -> Iterator[Any]:
        for number, batch in enumerate(made(self), self.start):
            if (self.epoch, number) == (1, 3):
                fail()
            yield batch

    made = TrainBatches.__iter__
    clip = GroundingModule.configure_gradient_clipping
    owner, name, failing = {
        "forward": (ALVG, "forward", at_call(6, ALVG.forward, fail)),
        "last forward": (ALVG, "forward", at_call(8, ALVG.forward, fail)),
        "loader": (TrainBatches, "__iter__", batches),
        "update": (GroundingModule, "configure_gradient_clipping", at_call(6, clip, fail)),
        "validation": (Evaluation, "add", at_call(1, Evaluation.add, fail)),
    }[where]
    with monkeypatch.context() as patch, pytest.raises(NoMemory):
        patch.setattr(owner, name, failing)
        runs.run(config_of(data_root, tmp_path, "checkpoint_every=null"))
    step = {"forward": 5, "last forward": 7, "loader": 7}.get(where)
    assert (f"resume=true goes on from step {step}" in capsys.readouterr().out) == (step is not None)
    result = runs.run(config_of(data_root, tmp_path, "checkpoint_every=null", "resume=true"))
    assert_equal_runs(whole, result.folder)


def test_slurm_is_asked_to_start_the_job_again_and_the_run_goes_on(
    data_root: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path / "asked"}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(scontrol.parent), prepend=os.pathsep)
    job = {"SLURM_JOB_ID": "71", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"}
    job |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS_PER_NODE": "1"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    with monkeypatch.context() as patch, listening(), pytest.raises(Stopped, match="job 71 is requeued"):
        patch.setattr(ALVG, "forward", at_call(3, ALVG.forward, lambda: tell(signal.SIGUSR1)))
        runs.run(config_of(data_root, tmp_path))
    assert (tmp_path / "asked").read_text() == "requeue 71\n"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    result = runs.run(config_of(data_root, tmp_path))
    assert result.folder.name == "alvg-refshapes" and not list(tmp_path.glob("alvg-refshapes-*"))
    assert_equal_runs(whole, result.folder)
    monkeypatch.setenv("SLURM_JOB_ID", "72")  # another job makes a run of its own
    assert not runs.continues(config_of(data_root, tmp_path), "alvg-refshapes")


def test_more_epochs_go_on_where_the_schedule_allows(data_root: Path, tmp_path: Path) -> None:
    steps = ("~recipe.schedule", "+recipe.schedule={_target_:vgbench.optim.WarmupMultiStep,milestones:[2]}")
    whole = runs.run(config_of(data_root, tmp_path / "whole", *steps)).folder
    first = runs.run(config_of(data_root, tmp_path, "recipe.epochs=1", *steps)).folder
    longer = runs.run(config_of(data_root, tmp_path, *steps, "resume=true"))
    assert longer.folder == first
    assert_equal_runs(whole, first)
    runs.run(config_of(data_root, tmp_path, "recipe.epochs=1"))  # a cosine over all epochs
    with pytest.raises(UserError, match=r"recipe.epochs is 1 there, 2 now.*recipe.schedule.epochs.*another one"):
        runs.run(config_of(data_root, tmp_path, "resume=true"))
    with pytest.raises(UserError, match=r"recipe.batch_size is 8 there, 4 now"):
        runs.run(config_of(data_root, tmp_path, *steps, "recipe.batch_size=4", f"run_dir={first}", "resume=true"))


def test_patience_ends_a_training_and_it_stays_ended(data_root: Path, tmp_path: Path) -> None:
    """With a learning rate of nothing, the second validation is no better than the first."""
    options = ["recipe.lr=0.0", "recipe.epochs=9", "recipe.early_stop=1"]
    result = runs.run(config_of(data_root, tmp_path, *options))
    assert result.record is not None and result.record.training is not None
    assert result.record.training.epochs == 2
    (note,) = [note for note in result.record.notes if "early_stop" in note]
    assert "no better val/rec/prec@0.5 in 1 validations" in note
    again = runs.run(config_of(data_root, tmp_path, *options, "resume=true", "checkpoint=last"))
    assert again.record is not None and again.record.training is not None
    assert again.record.training.steps == result.record.training.steps
    assert again.record.checkpoint is not None and again.record.checkpoint.name == "last.ckpt"
    more = runs.run(config_of(data_root, tmp_path, *options[:-1], "recipe.early_stop={patience: 2}", "resume=true"))
    assert more.record is not None and more.record.training is not None and more.record.training.epochs == 3


def test_a_time_limit_ends_a_training_with_a_validation(data_root: Path, tmp_path: Path) -> None:
    options = ["recipe.epochs=500", "recipe.eval_every=500", "recipe.max_time={milliseconds: 1}"]
    result = runs.run(config_of(data_root, tmp_path, *options))
    assert result.record is not None and result.record.training is not None
    assert result.record.training.steps <= 1
    assert any("recipe.max_time" in note for note in result.record.notes)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("recipe.early_stop=0", "at least 1"),
        ("recipe.early_stop={min_delta: 1}", "at least 1"),
        ("recipe.early_stop={patience: 1, foo: 2}", "foo"),
        ("recipe.max_time='12'", "DD:HH:MM:SS"),
        ("recipe.max_time=12", "DD:HH:MM:SS"),
        ("recipe.max_time={hours: -1}", "more than nothing"),
        ("recipe.ema=2", "below 1"),
        ("recipe.clip_norm=no", "above 0"),
        ("recipe.sampling=objects", "object, expression"),
        ("compile=maybe", "auto"),
        ("checkpoint=shipped", "weights="),
        ("recipe.optimizer.weight_decay=no", "recipe.optimizer"),
        ("+recipe.optimizer.wieght_decay=1", "wieght_decay"),
        ("+recipe.schedule.foo=1", "recipe.schedule"),
        ("eval.limit=0", "eval.limit"),
    ],
)
def test_what_cannot_be_is_said_before_a_folder_is_made(
    override: str, words: str, data_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        runs.run(config_of(data_root, tmp_path, override))
    assert words in str(error.value) and override.lstrip("+").partition("=")[0].rpartition(".")[0] in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_killed_before_it_had_a_configuration_begins(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    config = config_of(data_root, tmp_path, f"run_dir={tmp_path / 'cut'}", "resume=true")
    assert run_folder(config, "alvg-refshapes") == tmp_path / "cut"
    assert (tmp_path / "cut" / "config.yaml").is_file()


def test_best_and_last_of_the_newest_run(data_root: Path, whole: Path, tmp_path: Path) -> None:
    for name in ("best", "last"):
        config = config_of(data_root, whole.parent, f"checkpoint={name}", f"run_dir={tmp_path / name}")
        record = runs.evaluate(config).record
        assert record is not None
        assert record.checkpoint is not None and record.checkpoint.name == (
            "model.safetensors" if name == "best" else "last.ckpt"
        )
    with pytest.raises(UserError, match=r"no run .*alvg-refshapes"):
        runs.evaluate(config_of(data_root, tmp_path / "none", "checkpoint=last"))


def test_a_folder_is_one_run_at_a_time(whole: Path, data_root: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    other = os.open(whole, os.O_RDONLY)
    config = config_of(data_root, whole.parent, f"run_dir={whole}", "resume=true")
    try:
        pid = os.fork()
        if pid == 0:  # a process that holds nothing yet
            from vgbench.training import folder

            code = 1
            try:
                folder._held.clear()
                fcntl.flock(other, fcntl.LOCK_UN)
                folder.run_folder(config, "alvg-refshapes")
            except UserError as error:
                code = 0 if "another run is at work there" in str(error) else 2
            os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        os.close(other)


KILLS = 30
SEED = 17


def attempt(root: Path, folder: Path, seconds: float | None) -> bool:
    """Start or continue the run in a process of its own, killed after so many seconds; whether it came to its end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            runs.run(config_of(root, folder.parent, f"run_dir={folder}", "resume=true"))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, f"{folder}: exit code {os.waitstatus_to_exitcode(status)}"
            return True
        if deadline is not None and time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return False
        time.sleep(0.005)


def phase(folder: Path) -> str:
    """How far a killed run had come, from what it left."""
    marks = {"record.json": "end", "curves.png": "record", "predictions": "evaluation", "validation": "later epochs"}
    reached = next((name for mark, name in marks.items() if (folder / mark).exists()), None)
    return reached or ("first epoch" if list(folder.glob("checkpoints/*.ckpt")) else "before the first checkpoint")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_killed_at_random_moments(data_root: Path, whole: Path, tmp_path: Path) -> None:
    """Weights, metrics, log and record of every run that was killed are those of the run that was not."""
    generator = random.Random(SEED)
    started = time.monotonic()
    assert attempt(data_root, tmp_path / "measured", None)
    length = time.monotonic() - started
    phases: Counter[str] = Counter()
    number = 0
    while phases.total() < KILLS:
        number += 1
        folder = tmp_path / f"run-{number}"
        while not attempt(data_root, folder, generator.uniform(0.1, length)):
            phases[phase(folder)] += 1
        assert_equal_runs(whole, folder)
        hidden = [path for path in folder.rglob(".*") if path.is_file()]
        assert not hidden, f"left behind: {hidden}"
    print(f"{phases.total()} kills in {number} runs of {length:.1f} s: {dict(phases)}")
