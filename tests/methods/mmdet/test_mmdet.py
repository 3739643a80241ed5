"""The adapter of MMDetection: against a stand-in that records what it is given, and, where the library is installed
(its operators need a compiler), tiny models of it against its own inference."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vgbench.batches.collate import collate
from vgbench.batches.samples import plain_sample
from vgbench.core.errors import UserError
from vgbench.methods.mmdet import MMDet


class Settings(dict):
    """A config: keys are attributes too."""

    __setattr__ = dict.__setitem__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself looks for
            raise AttributeError(name)
        return self.get(name)


class Pipeline:
    def __init__(self, steps: list[Settings]) -> None:
        self.steps = steps

    def __call__(self, data: dict) -> dict:
        return {"inputs": torch.from_numpy(data["img"].copy()), "data_samples": data}


class Detector(nn.Module):
    """Answers with two boxes, the worse one first."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.settings = settings
        self.language_model = SimpleNamespace(tokenizer=SimpleNamespace(batch_encode_plus=None))
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
    stand_in("mmengine")
    stand_in("mmengine.config", Config=SimpleNamespace(fromfile=lambda path: settings))
    stand_in("mmdet.apis", init_detector=lambda config, checkpoint, palette, device: Detector(config))
    stand_in("mmdet.utils", get_test_pipeline_cfg=lambda config: config["pipeline"])
    stand_in("mmcv.transforms", Compose=Pipeline)
    settings = Settings(
        model=Settings(
            type="GroundingDINO",
            language_model=Settings(name="bert-base-uncased"),
            bbox_head=Settings(lang_model_name="bert-base-uncased"),
            backbone=Settings(with_cp=True, init_cfg=Settings(checkpoint="https://...")),
            encoder=Settings(num_cp=6),
        ),
        pipeline=[Settings(type="LoadImageFromFile"), Settings(type="PackDetInputs", meta_keys=("ori_shape", "text"))],
    )
    (tmp_path / "tiny_dino.py").write_text("model = dict()")

    def build(**options) -> MMDet:
        return MMDet(str(tmp_path / "tiny_dino.py"), canvas=64, **options)

    build.settings = settings  # type: ignore[attr-defined]
    return build


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


def test_the_config_is_read_for_evaluation(method, tmp_path: Path) -> None:
    made = method(language_model=str(tmp_path))
    built, steps = made.detector.settings, made.pipeline.steps
    assert built.model.language_model.name == built.model.bbox_head.lang_model_name == str(tmp_path)
    assert (built.model.backbone.with_cp, built.model.backbone.init_cfg, built.model.encoder.num_cp) == (False, None, 0)
    assert steps[0].type == "mmdet.LoadImageFromNDArray"
    assert steps[1].meta_keys == ("ori_shape", "text", "custom_entities", "tokens_positive")


def test_a_folder_or_a_config_that_is_none_is_named(method, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"method\.language_model=.*nowhere: no such folder"):
        method(language_model=str(tmp_path / "nowhere"))
    method.settings.model.type = "GLIP"
    with pytest.raises(UserError, match=r"tiny_dino\.py: GLIP looks for class names only; set method\.entity=true"):
        method()
    del method.settings.model["language_model"]
    with pytest.raises(UserError, match=r"tiny_dino\.py: model\.language_model is missing"):
        method()


def test_a_large_image_is_refused_by_its_size(method) -> None:
    with pytest.raises(UserError, match=r"80x10 pixels is larger than method\.canvas=64"):
        method().eval_transform()(plain_sample(torch.zeros(3, 10, 80, dtype=torch.uint8), "x"))


INSTALLED = all(importlib.util.find_spec(name) is not None for name in ("mmdet", "mmcv"))


@pytest.mark.skipif(INSTALLED, reason="MMDetection is installed")
def test_without_the_library_the_extra_is_named() -> None:
    with pytest.raises(UserError, match=r'pip install "vgbench\[mmdet\]"'):
        MMDet("config.py")


SMALL_SWIN = {
    "backbone.embed_dims": 24,
    "backbone.depths": [1, 1, 1, 1],
    "backbone.num_heads": [1, 2, 4, 8],
    "neck.in_channels": [48, 96, 192],
}
SMALL_DINO = {"num_queries": 20, "test_cfg.max_per_img": 20, "encoder.num_layers": 1, "decoder.num_layers": 1}
TINY = {
    "mm_grounding_dino/refcoco/grounding_dino_swin-t_pretrain_zeroshot_refexp.py": {**SMALL_SWIN, **SMALL_DINO},
    "grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco.py": {**SMALL_SWIN, **SMALL_DINO},
    "glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365.py": {**SMALL_SWIN, "test_cfg.score_thr": 0.0},
}


@pytest.mark.skipif(not INSTALLED, reason='needs pip install "vgbench[mmdet]"')
@pytest.mark.parametrize(
    ("config", "entity"),
    [(config, entity) for config in TINY for entity in (False, True) if entity or "glip" not in config],
)
def test_a_model_of_the_library_answers_as_its_own_inference(tmp_path: Path, config: str, entity: bool) -> None:
    from mmdet.apis import DetInferencer
    from mmengine.config import Config
    from transformers import BertConfig, BertModel, BertTokenizer

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "the", "red", "mug", "on", "left"]
    bert = tmp_path / "bert"
    bert.mkdir()
    (bert / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(bert / "vocab.txt")).save_pretrained(bert)
    sizes = BertConfig(
        vocab_size=len(words), hidden_size=768, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    BertModel(sizes, add_pooling_layer=False).save_pretrained(bert)
    base = Path(importlib.util.find_spec("mmdet").origin).parent / ".mim" / "configs" / config  # type: ignore
    settings = Config.fromfile(str(base))
    settings.merge_from_dict({f"model.{key}": value for key, value in TINY[config].items()})
    settings.dump(str(tmp_path / "tiny.py"))

    method = MMDet(str(tmp_path / "tiny.py"), entity=entity, language_model=str(bert), top=10, canvas=64)
    torch.save({"state_dict": method.detector.state_dict()}, tmp_path / "tiny.pth")
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    other = torch.randint(0, 256, (3, 48, 36), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    texts = ["the red mug", "mug on the left"]
    transform = method.eval_transform()
    samples = [transform(plain_sample(*pair)) for pair in zip((image, other), texts, strict=True)]
    batch = collate(samples, method.tokenize)
    assert batch is not None
    with torch.no_grad():
        ours = method.eval().predict(batch)["main"]

    whole = Config.fromfile(str(tmp_path / "tiny.py"))
    whole.model.language_model.name = str(bert)
    if config.startswith("glip"):
        whole.model.bbox_head.lang_model_name = str(bert)
    else:
        whole.model.encoder.num_cp = 0  # wants fairscale, which only training needs
    whole.model.backbone.init_cfg = None
    parts = whole.test_dataloader.dataset
    if "datasets" in parts:  # their inference does not look into a list of data sets for the pipeline
        whole.test_dataloader.dataset = parts.datasets[0]
    last = whole.test_dataloader.dataset.pipeline[-1]
    last.meta_keys = (*last.meta_keys, "tokens_positive")  # without it, it parses the sentence with nltk
    theirs = DetInferencer(whole, str(tmp_path / "tiny.pth"), device="cpu", show_progress=False)
    for pixels, text, found in zip((image, other), texts, ours, strict=True):
        wanted = theirs(
            pixels.flip(0).permute(1, 2, 0).numpy(),
            texts=text,
            custom_entities=entity,
            tokens_positive=None if entity else -1,
            no_save_vis=True,
        )["predictions"][0]
        scores, order = torch.tensor(wanted["scores"]).sort(descending=True, stable=True)
        assert len(found.scores) == 10
        torch.testing.assert_close(found.scores, scores[:10], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.boxes, torch.tensor(wanted["bboxes"])[order][:10], atol=1e-2, rtol=1e-4)
