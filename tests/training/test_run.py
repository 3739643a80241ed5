"""Training, resuming, evaluating and predicting through the runner, with a very small ALVG on very few scenes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from PIL import Image
from safetensors.torch import load_file

from vgbench.cli.main import main
from vgbench.core.errors import UserError
from vgbench.methods.alvg.method import ALVG
from vgbench.predictions.reader import read_predictions
from vgbench.records import store
from vgbench.training import run, weights
from vgbench.training.callbacks import ExponentialMovingAverage
from vgbench.training.folder import run_folder
from vgbench.training.run import evaluate

SMALL = [
    "method=alvg",
    "dataset=refshapes",
    "weights=null",
    "+dataset.images={train:16,val:6,testA:4,testB:4}",
    "method.encoder_layers=1",
    "method.encoder_width=16",
    "method.encoder_ffn=32",
    "method.width=16",
    "method.ffn=16",
    "method.query_ffn=16",
    "method.mask_channels=8",
    "method.drop_path=0.2",
    "recipe.batch_size=16",
    "recipe.epochs=2",
    "eval.splits=[val]",
    "eval.examples=2",
    "eval.bootstrap=100",
    "logger.every_n_steps=1",
    "trainer=cpu",
    "workers=0",
]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refshapes")


def config_of(data_root: Path, folder: Path, *overrides: str) -> DictConfig:
    roots = [f"dataset.data_root={data_root}", f"dataset.cache_dir={data_root}", f"runs={folder}"]
    with initialize_config_module("vgbench.configs", version_base="1.3"):
        return compose("run", [*SMALL, *roots, *overrides], return_hydra_config=True)


def losses(folder: Path) -> pd.Series:
    table = pd.read_csv(folder / "logs" / "metrics.csv").dropna(subset=["train/total"])
    return table.set_index("step")["train/total"]


@pytest.fixture(scope="module")
def finished(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("straight")
    run.run(config_of(data_root, folder))
    return folder / "alvg-refshapes"


def test_run_folder_is_complete(finished: Path) -> None:
    entry = store.read(finished)
    assert {result.task for result in entry.results} == {"rec", "res"}
    for result in entry.results:
        assert result.embedded and result.split == "val" and result.controls["shuffled text"]
        primary = result.metrics["prec@0.5" if result.task == "rec" else "miou"]
        assert primary.low is not None and primary.high is not None and primary.low <= primary.value <= primary.high
    assert entry.training is not None and entry.training.epochs == 2 and entry.cost.flops
    assert entry.cost.parameters == sum(p.numel() for p in ALVG(**_node(finished)).parameters())
    for name in ("config.yaml", "model.safetensors", "predictions/val.parquet", "curves.png", "checkpoints/last.ckpt"):
        assert (finished / name).stat().st_size > 0, name
    assert len(list((finished / "examples" / "val").glob("*.png"))) >= 2
    assert not [path for path in finished.rglob(".*") if path.is_file()], "temporary files are left"


def _node(folder: Path) -> dict[str, Any]:
    node = weights.method_config(folder / "model.safetensors")
    assert node is not None
    return {name: value for name, value in node.items() if name != "_target_"}


def test_an_interrupted_run_continues_exactly(
    data_root: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of the second epoch: same losses, same weights as the run that was not stopped."""
    steps = len(losses(finished))
    stop_at = steps // 2 + 3
    calls = 0
    forward = ALVG.forward

    def failing(self: ALVG, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > stop_at:
            raise RuntimeError("power cut")
        return forward(self, batch)

    monkeypatch.setattr(ALVG, "forward", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        run.run(config_of(data_root, tmp_path, "checkpoint_every=1"))
    monkeypatch.setattr(ALVG, "forward", forward)
    run.run(config_of(data_root, tmp_path, "checkpoint_every=1", "resume=true"))
    resumed = tmp_path / "alvg-refshapes"
    pd.testing.assert_series_equal(losses(resumed), losses(finished), check_exact=True)
    states = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
        for folder in (finished, resumed)
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def validated_epochs(folder: Path) -> list[int]:
    table = pd.read_csv(folder / "logs" / "metrics.csv").dropna(subset=["val/rec/prec@0.5"])
    return table["epoch"].astype(int).tolist()


@pytest.mark.parametrize(
    ("every", "first", "epochs"),
    [(1, 0, [0, 1, 2, 3]), (1, 2, [2, 3]), (2, 0, [1, 3]), (2, 2, [2]), (2, 1, [1, 3]), (1, 4, [])],
)
def test_validation_begins_and_repeats_as_the_recipe_says(
    data_root: Path, tmp_path: Path, every: int, first: int, epochs: list[int]
) -> None:
    """Epochs count from 0; where none is validated the last model is what is scored."""
    options = ["recipe.epochs=4", f"recipe.eval_every={every}", f"recipe.eval_from={first}", "eval.control=null"]
    result = run.run(config_of(data_root, tmp_path, *options, "eval.examples=0", "checkpoint_every=1"))
    assert result.record is not None and result.primary == result.record.results[0].metrics["prec@0.5"].value
    if epochs:
        assert validated_epochs(result.folder) == epochs
        return
    assert "val/rec/prec@0.5" not in pd.read_csv(result.folder / "logs" / "metrics.csv").columns
    last = torch.load(result.folder / "checkpoints" / "last.ckpt", weights_only=False)
    model = load_file(result.folder / "model.safetensors")
    average = last["callbacks"].get("ExponentialMovingAverage")
    assert average is None
    for name, value in model.items():
        assert torch.equal(value, last["state_dict"][f"method.{name}"]), name


def test_nothing_to_resume_is_said(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="resume=true, but no run folder"):
        run.run(config_of(data_root, tmp_path, "resume=true"))


def test_runs_are_never_written_over(data_root: Path, tmp_path: Path) -> None:
    config = config_of(data_root, tmp_path)
    folders = [run_folder(config, "alvg-refshapes") for _ in range(3)]
    assert [folder.name for folder in folders] == ["alvg-refshapes", "alvg-refshapes-2", "alvg-refshapes-3"]


def test_evaluating_the_run_gives_its_numbers_again(data_root: Path, finished: Path, tmp_path: Path) -> None:
    config = config_of(data_root, tmp_path, f"checkpoint={finished}", "eval.control=null")
    evaluate(config)
    again, first = store.read(tmp_path / "eval-alvg-refshapes"), store.read(finished)
    for ours, theirs in zip(again.results, first.results, strict=True):
        assert ours.metrics == theirs.metrics and ours.data_hash == theirs.data_hash
    tables = [
        read_predictions(folder / "predictions" / "val.parquet").arrow
        for folder in (finished, tmp_path / "eval-alvg-refshapes")
    ]
    assert tables[0].equals(tables[1])


def test_shuffled_text_changes_the_text_only(data_root: Path, finished: Path, tmp_path: Path) -> None:
    evaluate(config_of(data_root, tmp_path, f"checkpoint={finished}", "eval.shuffle_text=true"))
    shuffled = store.read(tmp_path / "eval-alvg-refshapes")
    control = store.read(finished).results[0].controls["shuffled text"]
    assert shuffled.results[0].metrics == control
    assert any("shuffled" in note for note in shuffled.notes)


def test_predict_draws_into_the_working_directory_and_prints_json(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs, here = tmp_path / "photographs", tmp_path / "here"
    photographs.mkdir(), here.mkdir()
    Image.new("RGB", (200, 100), "white").save(photographs / "scene.png")
    monkeypatch.chdir(here)
    given = [*SMALL[:2], f"checkpoint={finished}", "trainer=cpu"]
    assert main(["predict", str(photographs / "scene.png"), "the red circle", *given]) == 0
    answer = json.loads(capsys.readouterr().out)
    (box,) = answer["boxes"]
    assert 0 <= box[0] <= box[2] <= 200 and 0 <= box[1] <= box[3] <= 100
    assert answer["mask"]["size"] == [100, 200]
    assert answer["picture"] == "scene.grounded.png" and Image.open(here / "scene.grounded.png").width > 200
    assert [path.name for path in photographs.iterdir()] == ["scene.png"]


def test_weights_of_another_configuration_are_refused(data_root: Path, finished: Path, tmp_path: Path) -> None:
    config = config_of(data_root, tmp_path, f"weights={finished}", "method.width=24")
    with pytest.raises(UserError, match="does not fit this configuration"):
        run.run(config)


def test_moving_average_by_hand() -> None:
    """Two updates: decay 1/10, then 2/11."""

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = torch.nn.Parameter(torch.tensor([1.0]))

    method: Any = Module()
    average = ExponentialMovingAverage(0.999)
    average._average = [method.p.detach().clone()]
    from vgbench.optim import ema_update

    for step, value in enumerate((2.0, 4.0)):
        ema_update(average._average, [torch.tensor([value])], step, 0.999)
    first = 1.0 * 0.1 + 2.0 * 0.9
    assert average.averaged_state(method)["p"].item() == pytest.approx(first * 2 / 11 + 4.0 * 9 / 11)


@pytest.mark.slow
def test_two_processes_train_and_score_every_expression_once(data_root: Path, tmp_path: Path) -> None:
    roots = [f"dataset.data_root={data_root}", f"dataset.cache_dir={data_root}", f"runs={tmp_path}"]
    small = [item for item in SMALL if item != "trainer=cpu"]
    command = [sys.executable, "-m", "vgbench.cli", "run", *small, *roots, "recipe.epochs=1"]
    command += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    entry = store.read(tmp_path / "alvg-refshapes")
    predictions = read_predictions(tmp_path / "alvg-refshapes" / "predictions" / "val.parquet")
    assert len(predictions) == entry.results[0].expressions == len(set(predictions.keys.to_pylist()))
    assert entry.training is not None and entry.training.batch == 32
    assert len(list(tmp_path.glob("alvg-refshapes*"))) == 1
