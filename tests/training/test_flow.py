"""Flows: what their stages are, and that a stopped one goes on where it was stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from vgbench.cli.main import main
from vgbench.config.compose import compose
from vgbench.core.errors import UserError
from vgbench.leaderboard import tables
from vgbench.leaderboard.columns import inference_rate
from vgbench.methods.simvg import SimVG
from vgbench.records import store
from vgbench.training import flow, run
from vgbench.training.score import score_splits

SMALL = [
    "dataset=refshapes",
    "+dataset.images={pretrain:8,val:2,train:1,testA:1,testB:1}",
    "method.encoder_layers=1",
    "method.encoder_width=16",
    "method.encoder_ffn=32",
    "method.width=16",
    "method.ffn=16",
    "method.query_ffn=16",
    "recipe.batch_size=16",
    "recipe.epochs=1",
    "eval.examples=0",
    "eval.batch_size=4",
    "eval.bootstrap=0",
    "eval.control=null",
    "trainer=cpu",
    "workers=0",
    "checkpoint_every=1",
]
TWO = ["flow=simvg-twostage", *SMALL, "stage1:recipe.ema=0.999"]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refshapes")


def places(data_root: Path, runs: Path) -> list[str]:
    return [f"dataset.data_root={data_root}", f"dataset.cache_dir={data_root}", f"runs={runs}"]


# what the stages are ------------------------------------------------------------------------------------------------

REC = ("refcoco", "refcoco+", "refcocog", "referit", "flickr30k")
OFFERED = {
    "simvg-onestage": (*REC, "grefcoco"),
    "simvg-twostage": (*REC, "grefcoco", "refshapes", "grefshapes"),
    "simvg-pretrain_mixed": ("refcoco", "refcoco+", "refcocog"),
    "simvg-pretrain_cocoall": ("refcoco", "refcoco+", "refcocog"),
    "simvg_large-onestage": REC,
    "simvg_large-twostage": REC,
    "alvg-embedded": ("grefshapes",),
}


def test_every_flow_offers_the_datasets_of_the_official_configurations() -> None:
    assert set(flow.names()) == set(OFFERED)
    for name, datasets in OFFERED.items():
        for dataset in datasets:
            flow.plan([f"flow={name}", f"dataset={dataset}"])


def test_two_stages() -> None:
    made, (first, second) = flow.plan(["flow=simvg_large-twostage", "dataset=refcoco+", "trainer=gpu", "data_root=d"])
    assert made.about.startswith("SimVG large")
    one, two = compose(first.overrides), compose(second.overrides)
    assert one.method.encoder_layers == two.method.encoder_layers == 24
    assert (one.method.token_weight, two.method.token_weight) == (0.0, 1.0)
    assert (one.recipe.epochs, two.recipe.epochs) == (30, 10)
    assert one.weights is None and two.weights == "runs/flow-simvg_large-twostage-refcoco+/stage1" == one.run_dir
    assert two.run_dir == "runs/flow-simvg_large-twostage-refcoco+/stage2"
    assert {one.dataset.data_root, two.dataset.data_root} == {"d"} and one.trainer == two.trainer


def test_pretraining_is_on_its_own_dataset_and_both_later_stages_start_from_it() -> None:
    _, stages = flow.plan(
        [
            *("flow=simvg-pretrain_cocoall", "dataset=refcocog", "split_by=umd", "pretrain:data_root=all"),
            *("finetune:data_root=g", "distill:data_root=g", "pretrain:recipe.epochs=5", "runs=my runs"),
        ]
    )
    pretrain, finetune, distill = (compose(stage.overrides) for stage in stages)
    assert [stage.name for stage in stages] == ["pretrain", "finetune", "distill"]
    assert pretrain.dataset._target_.endswith("CocoAll") and pretrain.method.image_size == 512
    assert (pretrain.recipe.epochs, finetune.recipe.epochs, distill.recipe.epochs) == (5, 10, 20)
    assert finetune.weights == distill.weights == pretrain.run_dir
    assert pretrain.run_dir == "my runs/flow-simvg-pretrain_cocoall-refcocog/pretrain"
    assert (pretrain.dataset.data_root, finetune.dataset.data_root) == ("all", "g")
    assert finetune.dataset.split_by == "umd" and finetune.method.distill_weight == 0 < distill.method.distill_weight


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["flow=simvg-threestage", "dataset=refcoco"], ["simvg-threestage", "simvg-twostage"]),
        (["flow=simvg-twostage"], ["dataset=NAME"]),
        (["flow=simvg-twostage", "dataset=amc_vg"], ["recipe=stage/simvg-stage1-amc_vg"]),
        (
            ["flow=simvg-twostage", "dataset=refcoco", "weights=a.pth"],
            ["weights=a.pth", "stage stage2", "leave it out"],
        ),
        (["flow=simvg-twostage", "dataset=refcoco", "-m"], ["neither -m"]),
        (["dataset=refcoco", "recipe=stage/simvg-stage1-refcocoo"], ["did you mean stage/simvg-stage1-refcoco?"]),
    ],
)
def test_what_cannot_be_is_one_line(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert all(word in line for word in words), line


def test_cfg_job_prints_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "flow=simvg-twostage", "dataset=refcoco", "--cfg", "job"]) == 0
    first, second = yaml.safe_load_all(capsys.readouterr().out)
    assert first["recipe"]["ema"] == 0.999 and second["weights"] == first["run_dir"]


def test_flows_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "flows"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in OFFERED) and "pretrain, finetune, distill" in out


# running ------------------------------------------------------------------------------------------------------------


class PowerCut(Exception):
    pass


def test_it_goes_on_where_it_was_stopped(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped four times: before the first checkpoint, in an evaluation, in stage 2, and not at all."""
    ran: list[tuple[str, bool]] = []

    def here(command: Sequence[str]) -> int:
        if "--check" in command:
            return flow.check(command[command.index("--check") + 1 :])
        overrides = list(command[command.index("run") + 1 :])
        config = compose(overrides)
        ran.append((Path(config.run_dir).name, config.resume))
        try:
            run.run(config)
        except PowerCut:
            return 137
        return 0

    forward, evaluate = SimVG.forward, score_splits
    left = 0

    def failing(self: SimVG, batch: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise PowerCut
        return forward(self, batch)

    def not_evaluating(*_: Any, **__: Any) -> float:
        raise PowerCut

    monkeypatch.setattr(flow, "_child", here)
    monkeypatch.setattr(SimVG, "forward", failing)
    command = [*TWO, *places(data_root, tmp_path)]
    folder = tmp_path / "flow-simvg-twostage-refshapes"

    assert flow.run(command) == 137  # before the first checkpoint
    assert ran == [("stage1", False)] and not list(folder.rglob("*.ckpt"))
    left = 1000
    monkeypatch.setattr(run, "score_splits", not_evaluating)
    assert flow.run(command) == 137  # trained, not evaluated
    assert ran[1:] == [("stage1", False)]
    steps = 1000 - left
    monkeypatch.setattr(run, "score_splits", evaluate)
    left = 2
    assert flow.run(command) == 137  # stage 1 is evaluated without another step, stage 2 does two steps
    assert ran[2:] == [("stage1", True), ("stage2", False)] and left < 0
    first = (folder / "stage1" / "record.json").read_bytes()
    left = 1000
    assert flow.run(command) == 0
    assert ran[4:] == [("stage2", True)] and 1000 - left == steps - 2
    assert flow.run(command) == 0 and len(ran) == 5  # nothing is left to do

    assert (folder / "stage1" / "record.json").read_bytes() == first
    one, two = store.read(folder / "stage1"), store.read(folder / "stage2")
    assert {result.prediction_set for result in one.results} == {"decoder"}
    assert {result.prediction_set for result in two.results} == {"decoder", "token"}
    rows = {row.label for table in tables.tables([one, two]) for row in table.rows}
    assert {label.partition(" (")[0] for label in rows} == {"SimVG-DB", "SimVG-TB"}
    assert set(two.cost.set_samples_per_s) == {"decoder", "token"} and not one.cost.set_samples_per_s
    for name, rate in two.cost.set_samples_per_s.items():
        assert inference_rate(two, name) == rate > 0
    assert two.notes == [f"started from weights={folder / 'stage1'}"]
    assert sorted(path.name for path in folder.iterdir()) == ["stage1", "stage2"]
    averaged, raw = (load_file(folder / "stage1" / name) for name in ("model.safetensors", "model.raw.safetensors"))
    assert averaged.keys() == raw.keys()
    assert not torch.equal(averaged["decoder_head.class_embed.weight"], raw["decoder_head.class_embed.weight"])

    with pytest.raises(
        UserError, match=r"stage2: made with another configuration \(recipe.lr is 0.0006 there, 0.1 now"
    ):
        flow.run([*command, "stage2:recipe.lr=0.1"])
    (folder / "stage1").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="stage2: began from a model of stage stage1 that is no longer there"):
        flow.run(command)
    (folder / "stage2").rename(tmp_path / "too")
    (folder / "stage1").mkdir()
    (folder / "stage1" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not a run folder"):
        flow.run(command)
    assert len(ran) == 5


def test_a_stage_is_a_process_of_its_own(data_root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vgbench.cli", "run", "flow=simvg-onestage", *SMALL, "recipe.train_split=pretrain"]
    command += ["weights=null", "eval.splits=[val]", *places(data_root, tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "stage 1 of 1, onestage: started" in done.stdout
    assert store.read(tmp_path / "flow-simvg-onestage-refshapes" / "onestage").results


def test_the_stage_is_stopped_with_the_flow(tmp_path: Path) -> None:
    """SIGTERM to the flow ends the child too, and the exit code says so."""
    note = tmp_path / "child"
    child = f"import os, pathlib, time; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(600)"
    code = f"import sys; from vgbench.training import flow; sys.exit(flow._child([sys.executable, '-c', {child!r}]))"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (note.exists() and note.read_text()) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_processes_of_a_launcher_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="starts its own processes"):
        flow.run(["flow=simvg-twostage", "dataset=refcoco"])
