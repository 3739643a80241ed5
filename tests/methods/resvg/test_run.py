"""Priors, augmentation and the run that uses both, through the command line, on a very small RefShapes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vgbench.cli.main import main
from vgbench.data.additional import AdditionalData
from vgbench.data.table import AnnotationTable
from vgbench.datasets.refshapes import RefShapes
from vgbench.methods.resvg.priors import find_priors, make_priors
from vgbench.methods.resvg.sketch import SketchGenerator, ThumbnailEncoder
from vgbench.records import store
from vgbench.records.record import Record

TINY = [
    "method.bert.layers=1",
    "method.encoder_layers=1",
    "method.stages=1",
    "method.averaged_layers=1",
    "method.width=16",
    "method.encoder_ffn=16",
    "method.decoder_ffn=16",
    "method.bert.hidden_size=16",
    "method.bert.intermediate_size=16",
    "method.backbone.planes=[8,8,8]",
    "method.backbone.stem=8",
    "recipe.batch_size=16",
    "recipe.epochs=1",
    "weights=null",
    "eval.splits=[val]",
    "eval.control=[val]",
    "eval.examples=0",
    "eval.bootstrap=10",
    "trainer=cpu",
    "workers=0",
]


@pytest.fixture(scope="module")
def data(few_scenes: Callable[[str], list[str]]) -> list[str]:
    return few_scenes("train:24,val:6,testA:4,testB:4")


@pytest.fixture(scope="module")
def scenes(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "scenes"
    assert main(["data", "augment", *data, "amount=5", f"out={folder}"]) == 0
    return folder


def run(folder: Path, *overrides: str) -> Record:
    assert main(["run", "method=resvg", f"runs={folder}", *TINY, *overrides]) == 0
    return store.read(folder / "resvg-refshapes")


def test_scenes_are_of_refshapes(scenes: Path) -> None:
    extra = AdditionalData.open(scenes)
    assert len(set(extra.table.column("image"))) == 5 and extra.table.has_masks
    assert all(name.startswith("refshapes:") for name in extra.table.info["painted_from"])
    for row in extra.table:
        relation, category = row.expression.split()
        assert relation in ("left", "right", "top", "bottom", "middle") and row.categories == (category,)
        assert extra.image_path(row.image).is_file()


def test_run_with_both(data: list[str], scenes: Path, tmp_path: Path) -> None:
    file = tmp_path / "priors.parquet"
    priors = ["data", "priors", *data, "generator=sketch", f"extra_train={scenes}", f"out={file}"]
    assert main(priors) == 0
    entry = run(tmp_path, *data, f"method.priors={file}", f"recipe.extra_train={scenes}")
    assert entry.training is not None
    own, made = entry.training.data
    table = AdditionalData.open(scenes).table
    assert (own.dataset, own.split) == ("refshapes", "train") and own.expressions
    assert (made.dataset, made.expressions, made.data_hash) == ("resvg-augmentation", len(table), table.hash)
    assert entry.training.steps == (own.expressions + len(table)) // 16
    assert not any("prior" in note for note in entry.notes)
    assert all(result.leaked_images == 0 for result in entry.results)
    assert entry.config["recipe"]["extra_train"] == str(scenes)

    # the same weights, with sketches painted at once: the same predictions
    checkpoint = f"checkpoint={tmp_path / 'resvg-refshapes'}"
    assert main(["eval", "method=resvg", *data, *TINY, checkpoint, "method.priors=sketch", f"runs={tmp_path}"]) == 0
    again = store.read(tmp_path / "eval-resvg-refshapes")
    for first, second in zip(entry.results, again.results, strict=True):
        assert {k: m.value for k, m in first.metrics.items()} == {k: m.value for k, m in second.metrics.items()}
        assert {k: m.value for k, m in first.controls["shuffled text"].items()} == {
            k: m.value for k, m in second.controls["shuffled text"].items()
        }


def test_predict_with_and_without_a_prior(
    data: list[str], scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, *data, "method.priors=sketch", "recipe.train_split=val")
    extra = AdditionalData.open(scenes)
    image = extra.image_path(extra.table.row(0).image)
    common = ["predict", str(image), "left circle", "method=resvg", *data, f"checkpoint={tmp_path / 'resvg-refshapes'}"]
    capsys.readouterr()
    assert main([*common, f"--output={tmp_path / 'out.png'}"]) == 0
    told = capsys.readouterr()
    assert "without" not in told.err
    box = json.loads(told.out)["boxes"]

    file = tmp_path / "few.parquet"
    make_priors(["another text"], file, SketchGenerator(RefShapes.sketcher()), ThumbnailEncoder())
    assert main([*common, f"method.priors={file}", f"--output={tmp_path / 'out.png'}"]) == 0
    told = capsys.readouterr()
    assert "grounded without prior" in told.err and "'left circle'" in told.err
    assert json.loads(told.out)["boxes"] != box


def test_record_says_that_there_was_no_prior(data: list[str], tmp_path: Path) -> None:
    entry = run(tmp_path, *data)
    assert any("prior was switched off" in note for note in entry.notes)
    assert entry.training is not None and len(entry.training.data) == 1


def test_priors_go_on_and_come_in_shards(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, first, second = (tmp_path / f"{name}.parquet" for name in ("whole", "first", "second"))
    common = ["data", "priors", *data, "generator=sketch", "split=val"]
    assert main([*common, f"out={whole}"]) == 0
    assert main([*common, f"out={whole}"]) == 0
    assert ": 0 priors made" in capsys.readouterr().out
    for number, file in enumerate((first, second)):
        assert main([*common, f"out={file}", f"shard={number}/2"]) == 0
    root = Path(next(item for item in data if "data_root" in item).partition("=")[2])
    table = AnnotationTable.open(next((root / "tables").glob("refshapes-val-*.arrow")))
    one, other = find_priors(whole, table), find_priors([first, second], table)
    assert all((one[key] == other[key]).all() for key in one) and len(one) == len(table)
    sketched = find_priors("sketch", table)
    assert all((one[key] == sketched[key]).all() for key in one)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["priors"], "dataset= is missing"),
        (["priors", "dataset=refshapes"], "generator= is missing"),
        (["priors", "dataset=refcoco", "generator=sketch"], "words of RefShapes only, not of refcoco"),
        (["priors", "dataset=refshapes", "generator=sketch", "out=a.pth"], "a name that ends in .parquet"),
        (["priors", "dataset=refshapes", "generator=sketch", "shard=2/2"], "shard=2/2"),
        (["priors", "dataset=refshapes", "generator=sketch", "batch=none"], "batch=none"),
        (["priors", "dataset=refshapes", "generator=sketch", "encoder=nowhere"], "nowhere: not a local CLIP"),
        (["priors", "dataset=refshapes", "generator=sketch", "extra_train=nowhere"], "nowhere: holds no"),
        (["augment"], "dataset= is missing"),
        (["augment", "dataset=refshapes"], "out= is missing"),
        (["augment", "dataset=refshapes", "out=x", "split=val"], "scenes made of its images would leak"),
        (["augment", "dataset=refshapes", "out=x", "amount=0"], "amount=0"),
        (["augment", "dataset=refshapes", "out=x", "counts=3"], "counts=3"),
        (["augment", "dataset=refshapes", "out=x", "amuont=3"], "amuont"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, data: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = data[1:] if "dataset=refshapes" in arguments else []
    assert main(["data", *arguments, *small]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.priors=nowhere.parquet"], "nowhere.parquet: no such file"),
        (["recipe.extra_train=nowhere"], "nowhere: holds no annotations.arrow"),
        (["method.priors=sketch", "method.prior_dim=12"], "48 numbers per expression, the model takes 12"),
    ],
)
def test_bad_runs(overrides: list[str], message: str, data: list[str], tmp_path: Path, capsys) -> None:
    assert main(["run", "method=resvg", f"runs={tmp_path}", *TINY, *data, *overrides]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir()), "what is missing is said before a run folder is made"


def test_priors_of_training_are_checked_for_the_evaluation_first(data: list[str], tmp_path: Path, capsys) -> None:
    file = tmp_path / "priors.parquet"
    assert main(["data", "priors", *data, "generator=sketch", "split=train", f"out={file}"]) == 0
    assert main(["run", "method=resvg", f"runs={tmp_path / 'runs'}", *TINY, *data, f"method.priors={file}"]) == 2
    assert "no prior for" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
