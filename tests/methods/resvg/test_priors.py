from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from vgbench.core.errors import UserError
from vgbench.data.table import AnnotationTable
from vgbench.datasets.refshapes import RefShapes
from vgbench.datasets.refshapes.sketch import described
from vgbench.methods.resvg.priors import (
    ClipEncoder,
    DiffusionGenerator,
    find_priors,
    load_priors,
    make_priors,
    prompt_seed,
)
from vgbench.methods.resvg.sketch import SketchGenerator, ThumbnailEncoder

TEXTS = ["The red ball", "left cup", "the red ball", "big dog", "second left cup"]


def table(expressions) -> AnnotationTable:
    rows = [
        {
            "key": f"k{number}", "image_id": number, "image": f"train2014/{number:03d}.jpg", "width": 8, "height": 8,
            "expression": text, "boxes": [[0, 0, 4, 4]], "masks": [], "polygons": [], "ann_ids": [], "categories": [],
            "ref_id": number, "sent_id": number, "group": number, "source": "coco", "split": "train",
        }
        for number, text in enumerate(expressions)
    ]  # fmt: skip
    return AnnotationTable.from_rows(rows, {})


class Painter:
    """Paints a colour that follows from prompt and seed; may be told to break down."""

    name = "painter"

    def __init__(self, budget: int = 10**9) -> None:
        self.budget, self.painted = budget, []

    def __call__(self, prompts, seeds):
        if self.budget <= 0:
            raise KeyboardInterrupt
        self.budget -= 1
        self.painted += prompts
        return [
            PILImage.new("RGB", (4, 4), (seed % 256, len(text), 7)) for text, seed in zip(prompts, seeds, strict=True)
        ]


class Mean:
    name = "mean"

    def __call__(self, images):
        return torch.stack([torch.from_numpy(np.array(image)).float().mean((0, 1)) for image in images])


def test_one_feature_per_distinct_expression(tmp_path):
    file, painter = tmp_path / "priors.parquet", Painter()
    seen = []
    assert make_priors(TEXTS, file, painter, Mean(), batch_size=3, progress=lambda *state: seen.append(state)) == 4
    assert painter.painted == ["the red ball", "left cup", "big dog", "second left cup"]
    assert seen == [(3, 4), (4, 4)]
    priors = load_priors(file, table(TEXTS))
    assert set(priors) == {f"k{number}" for number in range(5)}
    assert torch.equal(priors["k0"], priors["k2"]) and not torch.equal(priors["k0"], priors["k1"])
    assert priors["k3"][1].item() == len("big dog") and priors["k3"].dtype == torch.float32
    # another split adds what is new and keeps the rest
    painter = Painter()
    assert make_priors(["left cup", "new one"], file, painter, Mean()) == 1
    assert painter.painted == ["new one"]
    assert torch.equal(load_priors(file, table(TEXTS))["k3"], priors["k3"])


def test_resumes_after_a_stop(tmp_path):
    whole, file = tmp_path / "whole.parquet", tmp_path / "priors.parquet"
    texts = [f"text {number}" for number in range(12)]
    make_priors(texts, whole, Painter(), Mean(), batch_size=2, save_every=2)
    with pytest.raises(KeyboardInterrupt):
        make_priors(texts, file, Painter(budget=5), Mean(), batch_size=2, save_every=2)
    assert not file.exists()
    painter = Painter()
    assert make_priors(texts, file, painter, Mean(), batch_size=2, save_every=2) == 4, "two parts of four were saved"
    assert painter.painted == texts[8:]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["priors.parquet", "whole.parquet"]
    one, other = load_priors(file, table(texts)), load_priors(whole, table(texts))
    assert all(torch.equal(one[key], other[key]) for key in other)


def test_other_settings_are_refused(tmp_path):
    file = tmp_path / "priors.parquet"
    make_priors(["a"], file, Painter(), Mean())
    with pytest.raises(UserError, match=r"priors\.parquet.*'seed': 0.*'seed': 1"):
        make_priors(["b"], file, Painter(), Mean(), seed=1)
    with pytest.raises(UserError, match=r"1 of 2 expressions.*'b'"):
        load_priors(file, table(["A", "b"]))
    make_priors(["b"], tmp_path / "other.parquet", Painter(), Mean(), seed=1)
    with pytest.raises(UserError, match=r"other\.parquet: made with .* use files made alike"):
        find_priors([file, tmp_path / "other.parquet"], table(["A", "b"]))
    with pytest.raises(UserError, match="knows the words of RefShapes only, not of coco"):
        find_priors("sketch", table(["a"]))
    with pytest.raises(UserError, match=r"nowhere\.parquet: no such file"):
        find_priors("nowhere.parquet", table(["a"]))
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"priors\.parquet: not a file of priors"):
        load_priors(file, table(["a"]))


def test_official_features(tmp_path):
    """Row i of <split>_fea.pth belongs to record i of the index file, in whatever order the table is."""
    records = [
        ("COCO_x/001.jpg", "1.png", np.array([1, 2, 3, 4]), "Left Cup", [("r1", ["none"])]),
        ("000.jpg", "0.png", np.array([1.5, 2, 3, 4]), "the red ball", []),
    ]
    features = torch.randn(2, 512).half()
    torch.save(features, tmp_path / "testA_fea.pth")
    torch.save(records, tmp_path / "unc_testA.pth")
    priors = load_priors(tmp_path / "testA_fea.pth", table(["The red ball", "left cup"]), tmp_path / "unc_testA.pth")
    assert torch.equal(priors["k0"], features[1].float()) and torch.equal(priors["k1"], features[0].float())
    torch.save([("000.jpg", [1.0, 2.0, 3.0, 4.0], "the red ball")], tmp_path / "flickr_test.pth")
    torch.save(features[:1], tmp_path / "test_fea.pth")
    priors = load_priors(tmp_path / "test_fea.pth", table(["the red ball"]), tmp_path / "flickr_test.pth")
    assert torch.equal(priors["k0"], features[0].float())
    with pytest.raises(UserError, match=r"1 records, but testA_fea\.pth has 2 rows"):
        load_priors(tmp_path / "testA_fea.pth", table(["x"]), tmp_path / "flickr_test.pth")
    with pytest.raises(UserError, match="no record for 1 of 1"):
        load_priors(tmp_path / "test_fea.pth", table(["x"]), tmp_path / "flickr_test.pth")
    official = table(["The red ball", "left cup"])
    official.info["split"] = "testA"
    found = find_priors(tmp_path, official)
    assert torch.equal(found["k0"], features[1].float()) and torch.equal(found["k1"], features[0].float())
    official.info["split"] = "train"
    with pytest.raises(UserError, match=r"no train_fea\.pth with one"):
        find_priors(str(tmp_path), official)
    torch.save(features, tmp_path / "new_train_fea.pth")
    torch.save(records, tmp_path / "unc_new_train.pth")
    assert torch.equal(find_priors(str(tmp_path), official)["k0"], features[1].float())
    with pytest.raises(UserError, match="index file"):
        load_priors(tmp_path / "test_fea.pth", table(["x"]))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16,
        projection_dim=8,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_clip_encoder(clip_folder):
    from transformers import CLIPVisionModelWithProjection

    encoder = ClipEncoder(clip_folder)
    grey = PILImage.new("RGB", (32, 32), (100, 150, 200))
    features = encoder([grey, PILImage.new("RGB", (64, 32))])
    assert features.shape == (2, 8) and features.dtype == torch.float32
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = ((torch.tensor([100, 150, 200]) / 255 - mean) / std)[:, None, None].expand(3, 32, 32)
    with torch.no_grad():
        model = CLIPVisionModelWithProjection.from_pretrained(clip_folder).eval()
        expected = model(pixel_values=pixels[None]).image_embeds[0]
    assert torch.allclose(features[0], expected, atol=1e-5)
    with pytest.raises(UserError, match="not a local CLIP checkpoint"):
        ClipEncoder(clip_folder.parent)


@pytest.fixture(scope="module")
def diffusion_folder(tmp_path_factory):
    """A random Stable Diffusion of a few thousand parameters."""
    diffusers = pytest.importorskip("diffusers")
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny-diffusion"
    words = folder / "words"
    words.mkdir(parents=True)
    letters = [chr(code) for code in range(97, 123)]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (words / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(pieces), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=77, bos_token_id=52, eos_token_id=53, pad_token_id=53,
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, sample_size=8, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32, attention_head_dim=8,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=[32, 32], in_channels=3, out_channels=3, latent_channels=4,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
    )  # fmt: skip
    diffusers.StableDiffusionPipeline(
        unet=unet, vae=vae, scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
         tokenizer=CLIPTokenizer.from_pretrained(words, model_max_length=77),
        text_encoder=CLIPTextModel(text), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_diffusion_to_priors(diffusion_folder, clip_folder, tmp_path):
    generator = DiffusionGenerator(diffusion_folder, steps=2, size=16)
    pair = generator(["red ball", "left cup"], [1, 2])
    alone = generator(["left cup"], [2])
    assert pair[0].size == (16, 16) and pair[0].mode == "RGB"
    difference = np.abs(np.asarray(pair[1], dtype=int) - np.asarray(alone[0], dtype=int)).max()
    assert difference <= 2, "a drawing depends on its own prompt and seed only"
    assert np.abs(np.asarray(pair[0], dtype=int) - np.asarray(pair[1], dtype=int)).max() > 2
    file = tmp_path / "priors.parquet"
    assert make_priors(TEXTS, file, generator, ClipEncoder(clip_folder), batch_size=2) == 4
    priors = load_priors(file, table(TEXTS))
    assert priors["k0"].shape == (8,) and torch.isfinite(priors["k0"]).all()
    with pytest.raises(UserError, match=r"model_index\.json"):
        DiffusionGenerator(tmp_path)


def test_diffusers_is_an_extra(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r'pip install "vgbench\[priors\]"'):
        DiffusionGenerator(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Small red ball", {"size": "small", "colour": "red", "shape": "circle"}),
        (
            "the violet cross with stripes left of the big ring",
            {"colour": "purple", "shape": "cross", "texture": "striped"},
        ),
        ("left blue object", {"colour": "blue"}),
        ("something else", {}),
    ],
)
def test_what_is_sketched(text, expected):
    assert described(text) == expected


def test_sketches_show_what_is_said(tmp_path):
    file = tmp_path / "priors.parquet"
    texts = ["red circle", "big red ball on the left", "white circle", "striped green square"]
    make_priors(texts, file, SketchGenerator(RefShapes.sketcher()), ThumbnailEncoder(), batch_size=3)
    priors = load_priors(file, table(texts))
    middle = {key: value.view(4, 4, 3)[1:3, 1:3].mean((0, 1)) for key, value in priors.items()}
    assert middle["k0"][0] > middle["k0"][1:].max() + 0.3 and middle["k1"][0] > middle["k1"][1:].max() + 0.3
    assert middle["k2"].min() > 0.0 and middle["k3"].argmax() == 1
    again = ThumbnailEncoder()(SketchGenerator(RefShapes.sketcher())(["red circle"], [prompt_seed("red circle")]))
    assert torch.equal(again[0], priors["k0"])
