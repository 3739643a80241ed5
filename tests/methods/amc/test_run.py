"""AMC through the command line on very few scenes: heat maps, proposals, export without what only training needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from vgbench.cli.main import main
from vgbench.pictures.palette import PREDICTED
from vgbench.predictions.reader import read_predictions
from vgbench.records import store
from vgbench.records.record import Record

TINY = [
    "method=amc",
    "trainer=cpu",
    "workers=0",
    "eval.splits=[val]",
    "eval.examples=2",
    "eval.bootstrap=20",
]
SIZES = ["method.vision_width=16", "method.vision_depth=1", "method.text_width=16", "method.text_ffn=16"]
SIZES += ["method.itc_block=0", "method.queue_size=32", "recipe.batch_size=16", "recipe.epochs=1", "weights=null"]


@pytest.fixture(scope="module")
def data(few_scenes: Callable[[str], list[str]]) -> list[str]:
    return few_scenes("train:12,val:5,testA:3,testB:3")


@pytest.fixture(scope="module")
def finished(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert main(["run", *TINY, *data, *SIZES, f"runs={folder}"]) == 0
    return folder / "amc-refshapes"


@pytest.fixture(scope="module")
def slim(finished: Path) -> Path:
    path = finished.with_name("slim.safetensors")
    assert main(["export", str(finished), str(path), "--half", "--slim"]) == 0
    return path


def names(path: Path) -> set[str]:
    with safe_open(path, framework="pt") as file:
        return set(file.keys())


def values(entry: Record) -> dict[tuple[str, str, str], float | None]:
    return {(r.task, r.prediction_set, name): m.value for r in entry.results for name, m in r.metrics.items()}


def test_record_and_pictures_of_a_run(finished: Path) -> None:
    entry = store.read(finished)
    assert {(result.task, result.prediction_set) for result in entry.results} == {
        ("pointing", "main"),  # without proposals its boxes are none: no row of zeros for them
        ("rec", "heat_box"),
    }
    losses = entry.training.final_losses if entry.training else {}
    assert {"train/gcam_masked1", "train/gcam_masked2", "train/mlm", "train/ita", "train/itm"} <= set(losses)
    folder = finished / "examples" / "val"
    (first, *_) = json.loads((folder / "examples.json").read_text())["examples"]
    assert first["predictions"]["main"]["heatmap"] and first["predictions"]["main"]["point"]
    assert Image.open(folder / "00.png").width == 2 * 360 + 4  # the image, and the one heat map of both prediction sets
    stored = read_predictions(finished / "predictions" / "val.parquet")
    assert stored.has("heatmap") and stored.prediction(0).heatmap.shape == (8, 8)


def test_heat_map_is_drawn_by_predict(finished: Path, data: list[str], tmp_path: Path, capsys: Any) -> None:
    Image.fromarray(np.full((60, 100, 3), 90, np.uint8)).save(tmp_path / "scene.png")
    checkpoint = [f"checkpoint={finished}", "method.heat_box=false", f"--output={tmp_path / 'answer.png'}"]
    assert main(["predict", str(tmp_path / "scene.png"), "the red circle", "method=amc", *data, *checkpoint]) == 0
    answer = json.loads(capsys.readouterr().out)
    x, y = answer["point"]
    assert 0 <= x < 100 and 0 <= y < 60 and answer["boxes"] == []
    picture = np.asarray(Image.open(answer["picture"]).convert("RGB"))
    assert picture.shape[1] == 2 * 480 + 4
    cross = picture[round((y + 0.5) * 4.8), round((x + 0.5) * 4.8)]
    assert tuple(cross) == PREDICTED[0]
    assert np.ptp(picture[:288, 484:].astype(int), axis=-1).max() > 60  # colours over a grey image


def test_proposals_of_a_detector_are_ranked(finished: Path, data: list[str], tmp_path: Path) -> None:
    root = Path(data[2].partition("=")[2])
    (instances,) = root.glob("**/base/refshapes/instances.json")
    found: dict[str, list[Any]] = {}
    for annotation in json.loads(instances.read_text())["annotations"]:
        found.setdefault(str(annotation["image_id"]), []).append([*annotation["bbox"], 0.9])
    (tmp_path / "dets.json").write_text(json.dumps(found))
    given = [f"checkpoint={finished}", f"method.proposals={tmp_path / 'dets.json'}"]
    assert main(["eval", *TINY, *data, *given, f"runs={tmp_path}", "eval.variants=[rec/inclusive_intersection]"]) == 0
    folder = tmp_path / "eval-amc-refshapes"
    entry = store.read(folder)
    scored = {(result.task, result.prediction_set) for result in entry.results}
    assert scored == {("rec", "main"), ("rec", "heat_box"), ("pointing", "main")}
    # every target is among the proposals, so an answer either is the target or another object
    assert values(entry)["rec", "main", "prec@0.5"] == values(entry)["rec", "main", "prec@0.9"]
    stored = read_predictions(folder / "predictions" / "val.parquet")
    boxes = {tuple(np.round([x, y, x + w, y + h], 2)) for one in found.values() for x, y, w, h, _ in one}
    for place in range(len(stored)):
        assert {tuple(np.round(box, 2)) for box in stored.prediction(place).boxes.numpy().astype(float)} <= boxes


def test_slim_file_leaves_out_what_only_training_needs(finished: Path, slim: Path, capsys: Any) -> None:
    whole, kept = names(finished / "model.safetensors"), names(slim)
    assert whole - kept == {name for name in whole if "_m." in name or "queue" in name} and kept < whole
    assert slim.stat().st_size < 0.4 * (finished / "model.safetensors").stat().st_size
    again = slim.with_name("again.safetensors")
    assert main(["export", str(slim), str(again), "--slim"]) == 0
    assert "without momentum model, pointers, queues" in capsys.readouterr().out


def test_slim_file_evaluates_and_starts_a_training(
    finished: Path, slim: Path, data: list[str], tmp_path: Path, capsys: Any
) -> None:
    assert main(["eval", *TINY, *data, f"checkpoint={slim}", f"runs={tmp_path}"]) == 0
    assert "file lacks momentum model, pointers, queues" in capsys.readouterr().out
    ours, theirs = (store.read(folder) for folder in (tmp_path / "eval-amc-refshapes", finished))
    assert {key[:2] for key in values(ours)} == {key[:2] for key in values(theirs)}
    maps = [
        read_predictions(folder / "predictions" / "val.parquet").prediction(0).heatmap
        for folder in (tmp_path / "eval-amc-refshapes", finished)
    ]
    assert maps[0] is not None and maps[1] is not None
    torch.testing.assert_close(maps[0], maps[1], rtol=0.05, atol=0.05 * float(maps[1].max()))  # weights are half here
    assert main(["run", *TINY, *data, *SIZES, f"runs={tmp_path}", f"weights={slim}"]) == 0
    assert "file lacks momentum model, pointers, queues" in capsys.readouterr().out


def test_plain_albef_has_its_own_row(data: list[str], tmp_path: Path, capsys: Any) -> None:
    assert main(["run", *TINY, *data, *SIZES, f"runs={tmp_path}", "method.mask_consistency=false"]) == 0
    entry = store.read(tmp_path / "amc-refshapes")
    assert entry.variant == "without mask consistency"
    assert entry.training is not None and not any("gcam" in name for name in entry.training.final_losses)
    capsys.readouterr()
    assert main(["compare", str(tmp_path)]) == 0
    assert "without mask consistency" in capsys.readouterr().out


def test_bench_shows_training_with_and_without_the_grad_cam_losses(tmp_path: Path, capsys: Any) -> None:
    sizes = {"image_size": 32, "eval_size": 32, "patch_size": 8, "vocab_size": 128, "dropout": 0.0, "itc_block": 0}
    sizes |= {f"vision_{name}": value for name, value in (("width", 16), ("depth", 1), ("heads", 2))}
    sizes |= {f"text_{name}": value for name, value in (("width", 16), ("layers", 2), ("heads", 2), ("ffn", 16))}
    sizes |= {"fusion_layer": 1, "gradcam_layer": 1, "queue_size": 8}
    options = [f"method.{name}={value}" for name, value in sizes.items()]
    options += ["trainer=cpu", "bench.steps=1", "bench.warmup=0", f"bench.json={tmp_path / 'bench.json'}"]
    assert main(["bench", "method=amc", *options]) == 0
    both, without = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert (both["options"], without["options"]) == ("as configured", "mask_consistency=False")
    assert both["train GFLOP/sample"] > without["train GFLOP/sample"]
    assert both["kept for backward MB/sample"] > without["kept for backward MB/sample"]
    assert "mask_consistency=False" in capsys.readouterr().out
