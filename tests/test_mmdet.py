"""The adapter of MMDetection against a stand-in that records what it is given (the library needs a compiler)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from vgbench.errors import UserError
from vgbench.loader import collate, plain_sample
from vgbench.methods.mmdet import MMDet


class Detector(nn.Module):
    """Answers with two boxes, the worse one first."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.cfg = {"pipeline": [SimpleNamespace(type="LoadImageFromFile")]}
        self.data_preprocessor = SimpleNamespace(device=torch.device("cpu"))
        self.seen: list[dict] = []

    def test_step(self, data: dict) -> list[SimpleNamespace]:
        self.seen += data["data_samples"]
        boxes, scores = torch.tensor([[0.0, 0, 5, 5], [1, 2, 30, 20]]), torch.tensor([0.2, 0.7])
        return [SimpleNamespace(pred_instances=SimpleNamespace(bboxes=boxes, scores=scores)) for _ in data["inputs"]]


@pytest.fixture
def method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stand_in(name: str, **members) -> None:
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)

    stand_in("mmdet")
    stand_in("mmcv")
    stand_in("mmdet.apis", init_detector=lambda config, checkpoint, device: Detector())
    stand_in("mmdet.utils", get_test_pipeline_cfg=lambda config: config["pipeline"])
    pack = lambda data: {"inputs": torch.from_numpy(data["img"].copy()), "data_samples": data}  # noqa: E731
    stand_in("mmcv.transforms", Compose=lambda steps: pack)
    (tmp_path / "tiny_dino.py").write_text("model = dict()")
    return lambda **options: MMDet(str(tmp_path / "tiny_dino.py"), canvas=64, **options)


def test_the_detector_gets_the_original_image_as_bgr_and_the_sentence(method) -> None:
    model = method()
    picture = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    other = torch.zeros(3, 40, 10, dtype=torch.uint8)
    transform = model.eval_transform()
    samples = [transform(plain_sample(picture, "the red mug")), transform(plain_sample(other, "Nothing."))]
    batch = collate(samples, model.tokenize)
    assert batch is not None
    first, _ = model.predict(batch)["main"]
    seen = model.detector.seen
    np.testing.assert_array_equal(seen[0]["img"], picture.numpy().transpose(1, 2, 0)[:, :, ::-1])
    assert seen[1]["img"].shape == (40, 10, 3)
    assert (seen[0]["text"], seen[0]["tokens_positive"], seen[0]["custom_entities"]) == ("the red mug", -1, False)
    assert first.boxes.tolist() == [[1, 2, 30, 20], [0, 0, 5, 5]]  # best first
    assert first.scores.tolist() == pytest.approx([0.7, 0.2])
    assert model.title == "tiny_dino"


def test_a_sentence_can_be_a_class_name_and_boxes_are_limited(method) -> None:
    model = method(entity=True, top=1)
    batch = collate(
        [model.eval_transform()(plain_sample(torch.zeros(3, 8, 8, dtype=torch.uint8), "cat"))], model.tokenize
    )
    assert batch is not None
    (only,) = model.predict(batch)["main"]
    assert len(only.boxes) == 1
    assert model.detector.seen[0]["custom_entities"] is True and "tokens_positive" not in model.detector.seen[0]


def test_weights_must_be_complete_and_extra_keys_are_reported(method) -> None:
    model = method()
    state = {name: torch.ones_like(value) for name, value in model.detector.state_dict().items()}
    report = model.load_official({**state, "optimizer": torch.zeros(1)})
    assert report.unused == ("optimizer",) and set(report.used) == set(state)
    assert torch.equal(model.detector.layer.weight, torch.ones(2, 2))
    with pytest.raises(UserError, match=r"no weights for 'layer\.bias'"):
        model.load_official({"layer.weight": state["layer.weight"]})


def test_a_large_image_is_refused_by_its_size(method) -> None:
    with pytest.raises(UserError, match=r"80x10 pixels is larger than method\.canvas=64"):
        method().eval_transform()(plain_sample(torch.zeros(3, 10, 80, dtype=torch.uint8), "x"))


@pytest.mark.skipif(importlib.util.find_spec("mmdet") is not None, reason="MMDetection is installed")
def test_without_the_library_the_extra_is_named() -> None:
    with pytest.raises(UserError, match=r'pip install "vgbench\[mmdet\]"'):
        MMDet("config.py")
