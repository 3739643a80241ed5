"""The door for Python, used as in a notebook."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vgbench
from vgbench import UserError
from vgbench.api.overrides import as_overrides
from vgbench.api.pictures import as_pixels

IMAGES = {"train": 4, "val": 6, "testA": 3, "testB": 3}


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> vgbench.Split:
    cache = tmp_path_factory.mktemp("cache")
    return vgbench.dataset("refshapes", split="val", images=IMAGES, cache_dir=cache)


@pytest.fixture(scope="module")
def model() -> vgbench.Model:
    return vgbench.load("shipped:alvg", device="cpu")


def test_import_is_quick_and_brings_nothing_along() -> None:
    heavy = {"torch", "numpy", "hydra", "lightning"}
    code = f"import sys, vgbench; print({heavy} & set(sys.modules), 'load' in dir(vgbench))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "True"]


def test_pictures_of_every_kind_are_one_answer(model: vgbench.Model, split: vgbench.Split, tmp_path: Path) -> None:
    example = split[0]
    file = tmp_path / "picture.png"
    example.image.save(file)
    tensor = torch.from_numpy(example.pixels).permute(2, 0, 1)
    kinds = [file, str(file), example.image, example.pixels, tensor, tensor / 255, example.pixels / 255]
    answers = [model.predict(kind, example.text) for kind in kinds]
    for answer in answers:
        assert np.allclose(answer.boxes, answers[0].boxes, atol=1e-4) and answer.rle == answers[0].rle
    one = answers[0]
    assert one.mask is not None and one.mask.shape == example.pixels.shape[:2] and one.box is not None
    assert one.draw().width >= 480 and one._repr_png_().startswith(b"\x89PNG") and "boxes" in repr(one)
    assert json.loads(json.dumps(one.as_dict()))["text"] == example.text


def test_batches_say_what_single_questions_say(model: vgbench.Model, split: vgbench.Split) -> None:
    first = split[0]
    texts = [first.text, "the red circle", "the left square"]
    together = model.predict(first.image, texts)
    assert [answer.text for answer in together] == texts
    for answer in together:
        assert np.allclose(answer.boxes, model.predict(first.image, answer.text).boxes, atol=1e-2)
    pairs = model.predict([split[0].image, split[len(split) - 1].image], [split[0].text, split[len(split) - 1].text])
    assert np.allclose(pairs[0].boxes, together[0].boxes, atol=1e-2)
    with pytest.raises(UserError, match="2 images and 3 texts"):
        model.predict([first.image, first.image], texts)
    with pytest.raises(UserError, match="no output 'nobody'"):
        model.predict(first.image, "x", output="nobody")
    with pytest.raises(UserError, match="no expression"):
        model.predict(first.image, " ")
    with pytest.raises(UserError, match="has no word"):
        model.predict(first.image, "...")


def test_scores_are_those_of_the_command_line(model: vgbench.Model, split: vgbench.Split, tmp_path: Path) -> None:
    part = split[:12]
    predictions = model.predict_split(part)
    report = vgbench.evaluate(predictions, part, tasks=["rec", "res"], bootstrap=50)
    answers = [model.predict(example.pixels, example.text) for example in part]
    again = vgbench.evaluate(answers, part, tasks=["rec"], bootstrap=0)
    by_key = vgbench.evaluate(dict(zip([one.key for one in part], answers, strict=True)), part, tasks=["rec"])
    assert report.values["rec/prec@0.5"] == again.values["rec/prec@0.5"] == by_key.values["rec/prec@0.5"]
    score = report.scores["rec/prec@0.5"]
    assert score.low <= score.value <= score.high and score.n == 12
    assert "rec/prec@0.5" in str(report)
    pytest.importorskip("pandas")
    assert report.frame().loc["rec/prec@0.5", "value"] == score.value
    with pytest.raises(UserError, match="3 answers for 12 expressions"):
        vgbench.evaluate(answers[:3], part)


def test_torchmetric_gives_the_same_numbers(model: vgbench.Model, split: vgbench.Split) -> None:
    part = split[:10]
    answers = [model.predict(example.pixels, example.text) for example in part]
    meters = [vgbench.GroundingMeter(task) for task in ("rec", "res")]
    for start in range(0, 10, 4):
        group = range(start, min(start + 4, 10))
        preds = [
            {
                "boxes": torch.tensor(answers[i].boxes),
                "scores": torch.tensor(answers[i].scores),
                "mask": answers[i].mask,
            }
            for i in group
        ]
        target = [{"boxes": torch.tensor(part[i].boxes), "masks": torch.tensor(part[i].masks)} for i in group]
        for meter in meters:
            meter.update(preds, target)
    report = vgbench.evaluate(answers, part, tasks=["rec", "res"], bootstrap=0)
    for meter in meters:
        for name, value in meter.compute().items():
            assert value.item() == report.values[f"{meter.rule.task.name}/{name}"]
    meter = vgbench.GroundingMeter("grec")
    meter.update([{"boxes": []}], [{"boxes": []}])
    assert meter.compute()["n_acc"].item() == 100
    meter.reset()
    with pytest.raises(UserError, match="1 predictions for 0 targets"):
        meter.update([{"boxes": []}], [])


def test_a_split_in_the_hands_of_other_libraries(split: vgbench.Split) -> None:
    assert len(split) == len(list(split)) and split.splits[:4] == ("train", "val", "testA", "testB")
    coco = split.to_coco()
    assert len(coco["expressions"]) == len(split) and len(coco["images"]) == 6
    first = split[0]
    annotation = coco["annotations"][0]
    x, y, width, height = annotation["bbox"]
    assert np.allclose([x, y, x + width, y + height], first.boxes[0]) and annotation["expression"] == first.text
    assert annotation["area"] == first.masks[0].sum()
    json.dumps(coco)
    assert first.draw().size[0] >= 480 and first.text in repr(first)
    with pytest.raises(UserError, match="did you mean 'refcoco'"):
        vgbench.dataset("refcocoo")
    with pytest.raises(UserError, match="data_root"):
        vgbench.dataset("refcoco", split="val")


def test_datasets_library(split: vgbench.Split, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as checkout:
        checkout.setitem(sys.modules, "datasets", types.ModuleType("datasets"))
        checkout.setattr(sys.modules["datasets"], "__file__", "datasets/__init__.py", raising=False)
        with pytest.raises(UserError, match="outside of the checkout"):
            split.to_datasets()
    root = Path(__file__).parents[2]
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place and Path(place).resolve() != root])
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    pytest.importorskip("datasets")
    whole = split[:3].to_datasets()
    assert whole.num_rows == 3 and whole[1]["expression"] == split[1].text
    assert np.array_equal(np.array(whole[0]["image"].convert("RGB")), split[0].pixels)
    assert np.allclose(whole[2]["boxes"], split[2].boxes)


def test_supervision(model: vgbench.Model, split: vgbench.Split) -> None:
    pytest.importorskip("supervision")
    targets = split[0].detections()
    assert np.allclose(targets.xyxy, split[0].boxes) and targets.mask.sum() == split[0].masks.sum()
    answer = model.predict(split[0].image, split[0].text)
    assert len(answer.detections()) == len(answer.boxes) and answer.detections().data["class_name"][0] == answer.text


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        ("nowhere.jpg", "missing"),
        (np.zeros((4, 5, 7), np.uint8), r"shape \(4, 5, 7\)"),
        (np.full((4, 5, 3), 300), "from 0 to 255"),
        (np.full((4, 5, 3), 2.0), "from 0 to 1"),
        (torch.zeros(4, 5, 3, 1), "shape"),
    ],
)
def test_what_is_no_picture(picture: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        as_pixels(picture)  # type: ignore[arg-type]


def test_grey_pictures_and_files_of_other_modes(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(as_pixels(grey), as_pixels(tmp_path / "grey.png"))


def test_models_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        vgbench.load(tmp_path / "nowhere")
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "official.pth")
    with pytest.raises(UserError, match="does not say which method"):
        vgbench.load(tmp_path / "official.pth")
    assert vgbench.load("shipped:simvg/grefshapes", device="cpu").outputs == ("decoder", "token")


def test_committed_runs_as_a_frame() -> None:
    pytest.importorskip("pandas")
    results = Path(vgbench.__file__).parents[1] / "leaderboards" / "results"
    frame = vgbench.compare(results)
    assert frame.loc["SimVG-DB", ("refshapes val", "Prec@0.5")] == pytest.approx(87.78, abs=0.01)
    long = vgbench.compare([results], long=True, all_metrics=True)
    assert {"value", "low", "high", "seed", "run"} <= set(long.columns) and len(long) > frame.size
    with pytest.raises(UserError, match="say what to train"):
        vgbench.run()


def test_values_as_overrides() -> None:
    values = {"a": None, "b": True, "c": 1e-4, "d": "x y's", "e": ["val", 2], "f": {"k": 1}, "g": Path("/a/b")}
    assert as_overrides(values) == [
        "a=null", "b=true", "c=0.0001", r"d='x y\'s'", "e=[val,2]", 'f={k:1}', "g=/a/b",
    ]  # fmt: skip
    with pytest.raises(UserError, match="give a number"):
        as_overrides({"x": object()})
