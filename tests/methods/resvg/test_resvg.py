from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.models import resnet50
from transformers import BertConfig, BertModel

from vgbench.batches.collate import collate
from vgbench.conform.case import Case
from vgbench.core.errors import UserError
from vgbench.methods.resvg import ResVG
from vgbench.methods.resvg.checkpoint import official_name
from vgbench.methods.resvg.loss import score_loss
from vgbench.methods.resvg.method import content_map, original_boxes
from vgbench.methods.resvg.transforms import EvalTransform, TrainTransform
from vgbench.text.wordpiece import WordPiece, build_vocabulary
from vgbench.training.weights import load
from vgbench.types import Sample

HERE = Path(__file__).parents[2]


def test_a_changed_number_fails(tmp_path):
    case = Case(HERE / "conformance" / "resvg-rec-a")
    case.weights["trans_decoder.decoder.extra_encoder_layers.0.tf_sigma"] += 0.01
    from vgbench.conform.compare import compare
    from vgbench.methods.resvg.conformance import run

    result = compare(run(case), case.expected, case.spec)
    assert "verify_score" in result.failures and "pred_boxes" in result.failures
    assert "img_memory" not in result.failures


def tiny(**options) -> ResVG:
    texts = ["the red ball on the left", "right bright cup"]
    sizes = {
        "image_size": 64,
        "max_tokens": 12,
        "tokenizer": WordPiece(build_vocabulary(texts, 64)),
        "freeze_epochs": 2,
        "backbone": {"depths": (1, 1, 1, 1), "planes": (4, 4, 8, 8), "stem": 4, "block": "basic"},
        "bert": {"vocab_size": 64, "hidden_size": 16, "layers": 4, "heads": 2, "intermediate_size": 16},
        "width": 16,
        "heads": 2,
        "encoder_layers": 1,
        "encoder_ffn": 16,
        "stages": 2,
        "decoder_ffn": 16,
        "prior_dim": 8,
        "max_offset": 2,
    }
    torch.manual_seed(0)
    return ResVG(**{**sizes, **options})


def sample(height: int, width: int, text: str = "the red ball", box=(10.0, 5.0, 20.0, 25.0), prior: int = 8) -> Sample:
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    boxes = tv_tensors.BoundingBoxes(torch.tensor([box]), format="XYXY", canvas_size=(height, width))
    extra = {"auxiliary": {"prior": torch.randn(prior)}} if prior else {}
    return {"image": tv_tensors.Image(image), "boxes": boxes, "text": text, "key": "0", **extra}


def batch_for(method: ResVG, train: bool = False, prior: int = 8):
    transform = method.train_transform() if train else method.eval_transform()
    samples = [sample(40, 90, prior=prior), sample(90, 40, "right bright cup", prior=prior)]
    return collate([transform(item) for item in samples], method.tokenize)


# names and sizes of the official checkpoints


def official_shapes() -> dict[str, tuple[int, ...]]:
    """The checkpoint layout of the specification at full size, from torchvision, transformers and the tables."""
    with torch.device("meta"):
        resnet, bert = resnet50(), BertModel(BertConfig())
    shapes = {
        f"backbone.0.body.{name}": tuple(value.shape)
        for name, value in resnet.state_dict().items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    shapes |= {
        f"bert.{name}": tuple(value.shape) for name, value in bert.state_dict().items() if "position_ids" not in name
    }

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes.update({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)})

    def norm(name: str) -> None:
        shapes.update({f"{name}.weight": (256,), f"{name}.bias": (256,)})

    def attention(name: str) -> None:
        shapes.update({f"{name}.in_proj_weight": (768, 256), f"{name}.in_proj_bias": (768,)})
        linear(f"{name}.out_proj", 256, 256)

    shapes.update({"input_proj.weight": (256, 2048, 1, 1), "input_proj.bias": (256,)})
    for index in range(6):
        layer = f"trans_encoder.encoder.layers.{index}"
        attention(f"{layer}.self_attn")
        linear(f"{layer}.linear1", 256, 2048)
        linear(f"{layer}.linear2", 2048, 256)
        norm(f"{layer}.norm1")
        norm(f"{layer}.norm2")
    linear("bert_proj", 768, 256)
    decoder = "trans_decoder.decoder"
    extra = f"{decoder}.extra_encoder_layers.0"
    shapes.update({f"{extra}.tf_scale": (1,), f"{extra}.tf_sigma": (1,)})
    for name in ("img2text_attn", "img2textcond_attn", "img2img_attn"):
        attention(f"{extra}.{name}")
    linear(f"{extra}.text_proj.layers.0", 256, 256)
    linear(f"{extra}.img_proj.layers.0", 256, 256)
    shapes.update({f"{extra}.img2img_attn.pos_x": (41, 128), f"{extra}.img2img_attn.pos_y": (41, 128)})
    norm(f"{extra}.norm_img")
    norm(f"{extra}.norm_text_cond_img")
    for index in range(6):
        stage = f"{decoder}.layers.{index}"
        attention(f"{stage}.word_attn")
        attention(f"{stage}.img_attn")
        linear(f"{stage}.ffn.0", 256, 2048)
        linear(f"{stage}.ffn.3", 2048, 256)
        for number in range(3):
            norm(f"{stage}.norm.{number}")
    norm(f"{decoder}.norm")
    shapes.update({f"{decoder}.vis_query_embed.weight": (1, 256), f"{decoder}.text_query_embed.weight": (1, 256)})
    linear(f"{decoder}.ffn.0", 512, 512)
    linear(f"{decoder}.ffn.3", 512, 256)
    linear("bbox_embed.layers.0", 256, 256)
    linear("bbox_embed.layers.1", 256, 256)
    linear("bbox_embed.layers.2", 256, 4)
    return shapes


def meta_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def full() -> ResVG:
    with torch.device("meta"):
        return ResVG()


def test_official_layout_at_full_size(full):
    shapes = official_shapes()
    assert len(shapes) == 686
    assert sum(
        torch.Size(s).numel() for n, s in shapes.items() if "running" not in n and ".pos_" not in n
    ) == pytest.approx(152.47e6 + 53120, abs=2e4), (
        "152.47 M parameters, and 53120 affine numbers of frozen batch norm that are buffers"
    )
    # What the first public commit and current libraries add has no effect.
    state = meta_state(shapes) | meta_state(
        {
            "trans_decoder.decoder.mlp.0.weight": (512, 512),
            "bert.embeddings.position_ids": (1, 512),
            "backbone.0.body.bn1.num_batches_tracked": (),
        }
    )
    report = full.load_official(state)
    assert set(report.used) | set(report.unused) == set(state)
    assert set(report.unused) == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "trans_decoder.decoder.mlp.0.weight",
        "bert.embeddings.position_ids",
        "backbone.0.body.bn1.num_batches_tracked",
    }


def test_old_bert_names(full):
    shapes = official_shapes()
    old = {
        re.sub(r"LayerNorm\.weight$", "LayerNorm.gamma", re.sub(r"LayerNorm\.bias$", "LayerNorm.beta", name)): shape
        for name, shape in shapes.items()
    }
    assert "bert.embeddings.LayerNorm.gamma" in old
    assert set(full.load_official(meta_state(old)).used) > {"bert.embeddings.LayerNorm.gamma"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("bert_proj.bias"), "'bert_proj.bias'"),
        (lambda s: s.update(extra=torch.zeros(1)), "'extra'"),
        (lambda s: s.update({"input_proj.bias": torch.zeros(7)}), r"'input_proj.bias' is \[7\]"),
        (
            lambda s: [s.pop(name) for name in [*s] if name.startswith("trans_decoder.decoder.ffn.")],
            r"method\.prior_dim=null",
        ),
    ],
)
def test_strict_loading(full, change, message):
    state = meta_state(official_shapes())
    change(state)
    with pytest.raises(UserError, match=message):
        full.load_official(state)


def test_vltvg_checkpoint():
    with torch.device("meta"):
        method = ResVG(prior_dim=None)
    shapes = {n: s for n, s in official_shapes().items() if not n.startswith("trans_decoder.decoder.ffn.")}
    assert len(method.load_official(meta_state(shapes)).used) == len(shapes) - 2
    assert not method.auxiliary_shapes


def test_file_with_namespace(tmp_path):
    """The authors store their argparse options beside the weights."""
    source, target = tiny(), tiny()
    for value in source.model.parameters():
        value.data.normal_()
    state = {official_name(name): value for name, value in source.model.state_dict().items()}
    file = tmp_path / "best_checkpoint.pth"
    torch.save({"model": state, "epoch": 3, "args": argparse.Namespace(model_config={"dec": {"d_model": 256}})}, file)
    report = load(target, file)
    assert len(report.used) == len(state)
    for name, value in source.model.state_dict().items():
        assert torch.equal(target.model.state_dict()[name], value), name


def test_pretrained_folder(tmp_path):
    """DETR and BERT files are recognised by content; each fills its part and nothing else."""
    source, method = tiny(), tiny()
    for value in source.model.parameters():
        value.data.normal_()
    state = {official_name(name): value for name, value in source.model.state_dict().items()}
    detr = {
        n.replace("trans_encoder", "transformer"): v
        for n, v in state.items()
        if n.startswith(("backbone", "trans_enc", "input_proj"))
    }
    detr |= {"transformer.decoder.norm.weight": torch.ones(16), "class_embed.bias": torch.ones(92)}
    detr |= {"query_embed.weight": torch.ones(100, 16), "bbox_embed.layers.0.bias": torch.ones(16)}
    torch.save({"model": detr}, tmp_path / "detr-r50-unc.pth")
    bert = {n: v for n, v in state.items() if n.startswith("bert.")}
    bert = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for n, v in bert.items()
    }
    bert |= {"cls.predictions.bias": torch.ones(64), "bert.pooler.dense.bias": torch.ones(16)}
    (tmp_path / "bert-base-uncased").mkdir()
    torch.save(bert, tmp_path / "bert-base-uncased" / "pytorch_model.bin")

    before = {name: value.clone() for name, value in method.model.state_dict().items()}
    report = method.load_pretrained(tmp_path)
    assert len(report.used) + len(report.unused) == len(detr) + len(bert)
    for name, value in method.model.state_dict().items():
        filled = name.startswith(("backbone.", "input_proj.", "encoder.", "bert."))
        assert torch.equal(value, (source.model.state_dict() if filled else before)[name]), name

    torch.save({"model": state}, tmp_path / "vltvg.pth")
    method = tiny()
    method.load_pretrained(tmp_path / "vltvg.pth")
    assert torch.equal(method.model.decoder.vis_query, source.model.decoder.vis_query)
    assert torch.equal(method.model.prior_mlp[0].weight, before["prior_mlp.0.weight"])

    (tmp_path / "other.pth").unlink(missing_ok=True)
    torch.save({"fc.weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth"):
        method.load_pretrained(tmp_path / "other.pth")


# training


def test_freezing_and_groups():
    method = tiny()
    groups = {group["name"]: group for group in method.param_groups(1e-4)}
    assert {name: group["lr"] for name, group in groups.items()} == {
        "rest": 1e-4, "backbone": 1e-5, "vis_enc": 1e-5, "bert": 1e-5
    }  # fmt: skip
    counted = sum(len(group["params"]) for group in groups.values())
    never = [
        name for name, _ in method.model.named_parameters() if name.startswith(("backbone.conv1", "backbone.layer1"))
    ]
    assert counted == len(list(method.model.parameters())) - len(never) and len(never) == 3

    data = batch_for(method, train=True)
    method.train()
    late = [*groups["backbone"]["params"], *groups["vis_enc"]["params"], *groups["bert"]["params"]]
    for epoch, learns in ((0, False), (1, False), (2, True), (3, True)):
        method.zero_grad()
        method.on_step(epoch, 0, 1)
        method(data)["total"].backward()
        reached = [value.grad is not None for value in late]
        assert all(value.grad is not None for value in groups["rest"]["params"])
        assert all(reached) if learns else not any(reached), epoch
        assert sum(len(group["params"]) for group in method.param_groups(1.0)) == counted


def test_loss_by_hand():
    """Boxes with known L1 and GIoU: l1 sums the four coordinates, both are averaged over the batch."""
    from vgbench.methods.resvg.loss import stage_losses

    target = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.4, 0.4]])
    shifted = torch.tensor([[0.7, 0.5, 0.2, 0.2], [0.5, 0.5, 0.4, 0.4]])  # beside it, touching: IoU 0, hull filled
    losses = stage_losses(torch.stack([shifted, target]), target)
    assert losses["l1_0"].item() == pytest.approx(0.1)
    assert losses["giou_0"].item() == pytest.approx(0.5, abs=1e-6)
    assert losses["l1"].item() == 0 and losses["giou"].item() == pytest.approx(0, abs=1e-6)
    assert losses["total"].item() == pytest.approx(5 * 0.1 + 2 * 0.5, abs=1e-5)


def test_prior_switch():
    method = tiny().eval()
    data, without = batch_for(method), batch_for(method, prior=0)
    with torch.no_grad():
        first = method.network(data).boxes
        off = method.network(without).boxes
    assert not torch.allclose(first, off)
    assert "switched off" in method.notes()[0] and not tiny(priors="priors.parquet").notes()
    assert "VLTVG" in tiny(prior_dim=None).notes()[0]
    data.auxiliary["prior"] = data.auxiliary["prior"][:, None]
    with pytest.raises(ValueError, match="prior"):
        method.network(data)


def test_image_mask_is_an_option():
    official, masked = tiny(), tiny(use_image_mask=True)
    assert batch_for(official).image_pad is None
    pad = batch_for(masked).image_pad
    # 40 x 90 becomes 28 x 64 on 64 x 64: 18 rows of padding above and below
    assert pad is not None and pad[0].all(1).sum() == 36 and pad[0, :18].all() and not pad[0, 18:46].any()
    masked.eval()
    with torch.no_grad():
        data = batch_for(masked)
        first = masked.network(data).boxes
        data.image_pad = None
        assert not torch.allclose(first, masked.network(data).boxes)


# data and predictions


def test_words_and_substrings():
    text = "Laptop in bright light, LEFT one"
    for whole, expected in ((False, "laptop in bleft light, right one"), (True, "laptop in bright light, right one")):
        out = TrainTransform(64, whole_words=whole, flip_p=1.0, crop_p=1.0)(sample(60, 80, text))
        assert out["text"] == expected
    crop = TrainTransform(64, flip_p=0.0, jitter_p=0.0, crop_p=1.0, long_sizes=[64])
    whole = TrainTransform(64, flip_p=0.0, jitter_p=0.0, crop_p=1.0, long_sizes=[64], whole_words=True)
    # "laptop" holds a direction word only as a substring, so only the whole-word variant crops
    torch.manual_seed(1)
    kept = {crop(sample(60, 80, "laptop"))["geometry"].scale for _ in range(5)}
    cropped = {whole(sample(60, 80, "laptop"))["geometry"].scale for _ in range(5)}
    assert kept == {(0.8, 0.8)} and len(cropped) > 1


def test_train_transform_keeps_the_box_on_its_pixels():
    """A bright rectangle is the target: after scale, crop, flip and placement the box still frames it."""
    torch.manual_seed(0)
    transform = TrainTransform(128, jitter_p=0.0)
    for _ in range(12):
        raw = sample(100, 150, "cup", box=(60.0, 30.0, 110.0, 80.0))
        raw["image"] = tv_tensors.Image(torch.full((3, 100, 150), 10, dtype=torch.uint8))
        raw["image"][:, 30:80, 60:110] = 240
        out = transform(raw)
        rows, columns = (out["image"].as_subclass(Tensor)[0] > 0.3).nonzero().unbind(1)
        found = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (out["boxes"].as_subclass(Tensor)[0] - found).abs().max() <= 1.5
        assert out["image"].shape == (3, 128, 128) and out["image"].dtype == torch.float32


def test_geometry_inverts_the_eval_transform():
    raw = sample(37, 91, box=(3.0, 2.0, 80.0, 30.0))
    out = EvalTransform(64)(raw)
    back = out["geometry"].to_original(out["boxes"].as_subclass(Tensor))
    assert torch.allclose(back, torch.tensor([[3.0, 2.0, 80.0, 30.0]]), atol=1e-4)
    relative = torch.tensor([[0.5, 0.5, 3.0, 3.0]])
    clipped = original_boxes(relative, [out["geometry"]])
    assert clipped.tolist() == [[0.0, 0.0, 91.0, 37.0]]


def test_vocabulary_must_fit():
    method = tiny(
        tokenizer=WordPiece(build_vocabulary(["abcdefghijklmnopqrstuvwxyz"] * 2, 200)), bert={"vocab_size": 20}
    )
    with pytest.raises(UserError, match=r"method\.tokenizer has 57 pieces.*20 rows"):
        method.tokenize(["a"])


def test_predict():
    method = tiny().eval()
    data = batch_for(method)
    with torch.no_grad():
        predictions = method.predict(data)["main"]
    assert len(predictions) == 2
    for prediction, frame in zip(predictions, data.geometry, strict=True):
        height, width = frame.size
        box = prediction.boxes[0]
        assert prediction.boxes.shape == (1, 4) and prediction.scores.tolist() == [1.0]
        assert (box >= 0).all() and box[2] <= width and box[3] <= height
        assert prediction.heatmap.ndim == 2 and torch.isfinite(prediction.heatmap).all()


def test_heatmap_leaves_the_padding_out():
    frame = EvalTransform(64)(sample(32, 64))["geometry"]  # rows 16 to 48 of the canvas
    score = torch.zeros(1, 4, 4)
    score[0, 0] = score[0, 3] = 100.0  # cells that lie in the padding
    score[0, 1], score[0, 2] = 1.0, 2.0
    heat = content_map(score, [frame])
    assert heat.shape == (1, 4, 4)
    assert heat[0, 1:3].min() >= 1.0 and heat[0, 1:3].max() <= 2.0


def test_feature_grid_beyond_the_tables():
    method = tiny(image_size=96)
    assert torch.isfinite(method.network(batch_for(method)).boxes).all(), "its tables span the grid"
    with pytest.raises(ValueError, match="relative-position"):
        tiny(image_size=64).network(batch_for(method))


def test_bf16_autocast():
    method = tiny().train()
    data = batch_for(method, train=True)
    with torch.autocast("cpu", torch.bfloat16):
        losses = method(data)
    assert losses["total"].dtype == torch.float32 and torch.isfinite(losses["total"])
    losses["total"].backward()


def test_score_loss_is_the_cross_entropy_with_the_cells_in_the_box():
    score = torch.tensor([[[1.0, 3.0], [2.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]]])
    target = torch.tensor([[0.75, 0.5, 0.4, 1.0], [0.5, 0.5, 0.1, 0.1]])  # right column; between all cells: nothing
    expected = -(torch.tensor(3 / 8).log() + torch.tensor(2 / 8).log()) / 2
    torch.testing.assert_close(score_loss(score, target), expected / 2)
    torch.testing.assert_close(score_loss(7 * score, target), expected / 2)  # the scale of s is free
