from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from pycocotools import mask as coco
from torch import Tensor
from torchvision import tv_tensors

from vgbench import optim
from vgbench.batches.collate import collate
from vgbench.config.compose import compose as compose_run
from vgbench.core.errors import UserError
from vgbench.data.rle import encode
from vgbench.data.table import AnnotationTable
from vgbench.layers.boxes import iou, xyxy_to_cxcywh
from vgbench.layers.vitdet import ViTDet
from vgbench.methods.vglaw import VGLAW
from vgbench.methods.vglaw.bench import encoder_table, explicit_projection, projection_table
from vgbench.methods.vglaw.model import adapted_projection
from vgbench.methods.vglaw.optim import AdamWeightDecay, WarmupStep
from vgbench.methods.vglaw.transforms import EvalTransform, TrainTransform, multi_scale_sizes
from vgbench.metrics.evaluator import evaluate_predictions
from vgbench.predictions.table import Predictions
from vgbench.text.wordpiece import WordPiece, build_vocabulary
from vgbench.types import Geometry, Sample

HERE = Path(__file__).parents[2]
TEXTS = ["the red ball on the left", "right bright cup"]


def tiny(**options) -> VGLAW:
    sizes = {
        "image_size": 64,
        "dim": 24,
        "depth": 3,
        "heads": 2,
        "window_size": 3,
        "global_blocks": (2,),
        "pretrain_image_size": 64,
        "drop_path": 0.0,
        "tokenizer": WordPiece(build_vocabulary(TEXTS, 64)),
        "max_tokens": 12,
        "vocab_size": 64,
        "text_dim": 48,
        "text_layers": 1,
        "text_heads": 4,
        "text_ffn": 32,
        "max_positions": 16,
        "rank": 4,
        "key_dim": 8,
        "box_dim": 16,
        "mask_dim": 8,
    }
    torch.manual_seed(0)
    return VGLAW(**{**sizes, **options})


def scene(height: int, width: int, box: tuple[int, int, int, int], text: str = TEXTS[0]) -> Sample:
    """A dark image whose object is a bright rectangle with whole-numbered corners."""
    x1, y1, x2, y2 = box
    image = torch.full((3, height, width), 30, dtype=torch.uint8)
    image[:, y1:y2, x1:x2] = 220
    mask = torch.zeros(1, height, width, dtype=torch.uint8)
    mask[:, y1:y2, x1:x2] = 1
    return {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes(torch.tensor([box]).float(), format="XYXY", canvas_size=(height, width)),
        "masks": tv_tensors.Mask(mask),
        "text": text,
        "key": "0",
    }


def batch_of(method: VGLAW, *samples: Sample):
    transform = method.eval_transform()
    return collate([transform(sample) for sample in samples], method.tokenize)


# --- network ---------------------------------------------------------------------------------------------------------


def test_low_rank_application_equals_explicit_weights():
    layer = torch.nn.Linear(12, 36)
    S, D = torch.randn(36, 5), torch.randn(5, 12)
    tokens, core = torch.randn(3, 7, 12), torch.randn(3, 5, 5)
    low_rank = adapted_projection(layer, tokens, S, core, D)
    torch.testing.assert_close(low_rank, explicit_projection(layer, tokens, S, core, D), atol=1e-4, rtol=1e-4)
    by_hand = layer(tokens[1]) + tokens[1] @ (S @ core[1] @ D).T
    torch.testing.assert_close(low_rank[1], by_hand, atol=1e-4, rtol=1e-4)


def naive_attention(attention, qkv: Tensor) -> Tensor:
    """ViTDet's attention with its position bias written out query by query and key by key."""
    grids, height, width, _ = qkv.shape
    q, k, v = qkv.reshape(grids, height * width, 3, attention.heads, -1).permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    for a in range(height * width):
        for b in range(height * width):
            down = attention.rel_pos_h[a // width - b // width + height - 1]
            right = attention.rel_pos_w[a % width - b % width + width - 1]
            logits[:, :, a, b] += (q[:, :, a] * (down + right)).sum(-1)
    out = (logits.softmax(-1) @ v).transpose(1, 2).reshape(grids, height, width, -1)
    return attention.proj(out)


def test_attention_with_decomposed_positions():
    torch.manual_seed(0)
    attention = ViTDet(64, 16, dim=24, depth=1, heads=2, global_blocks=(0,), pretrain_image_size=64).blocks[0].attn
    torch.nn.init.normal_(attention.rel_pos_h)
    torch.nn.init.normal_(attention.rel_pos_w)
    qkv = torch.randn(2, 4, 4, 72)
    with torch.no_grad():
        torch.testing.assert_close(attention(qkv), naive_attention(attention, qkv), atol=1e-5, rtol=1e-5)


def test_window_blocks_see_their_window_only():
    torch.manual_seed(0)
    backbone = ViTDet(96, 16, dim=24, depth=2, heads=2, window_size=3, global_blocks=(), pretrain_image_size=96).eval()
    image = torch.randn(1, 3, 96, 80)  # 6 x 5 tokens: the last column of windows is filled up
    changed = image.clone()
    changed[:, :, :48, :48] += 1
    with torch.no_grad():
        difference = (backbone(changed) - backbone(image)).abs().sum(1)[0]
    assert (difference[:3, :3] > 0).all()
    assert difference[3:].max() == 0 and difference[:, 3:].max() == 0


def test_position_table_is_resized_in_the_forward_pass():
    backbone = ViTDet(96, 16, dim=4, depth=1, heads=1, global_blocks=(0,), pretrain_image_size=64)
    table = backbone.pos_embed[:, 1:].reshape(1, 4, 4, 4).permute(0, 3, 1, 2)
    wanted = F.interpolate(table, (6, 6), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    torch.testing.assert_close(backbone.positions(6, 6), wanted)
    torch.testing.assert_close(backbone.positions(4, 4), table.permute(0, 2, 3, 1))


def test_training_starts_from_the_unchanged_backbone():
    method = tiny(text_dropout=0.0)
    method.train()
    batch = batch_of(method, scene(64, 48, (8, 8, 24, 32)), scene(40, 64, (3, 4, 30, 20)))
    output = method.network(batch)
    assert output.cores.abs().max() == 0
    torch.testing.assert_close(output.visual, method.model.visual_encoder(batch.image), atol=1e-5, rtol=1e-5)
    method(batch)["total"].backward()
    generator = method.model.weight_generator
    moved = {name for name, parameter in generator.named_parameters() if parameter.grad.abs().max() > 0}
    assert moved == {"proj.fc2_weight", "proj.fc2_bias"}


def test_every_parameter_learns_once_the_generator_does():
    method = tiny()
    torch.nn.init.normal_(method.model.weight_generator.proj.fc2_weight)
    batch = batch_of(method, scene(64, 48, (8, 8, 24, 32)), scene(40, 64, (3, 4, 30, 20)))
    method(batch)["total"].backward()
    still = [name for name, parameter in method.named_parameters() if parameter.grad is None]
    assert not still


def test_the_sentence_changes_the_visual_features():
    method = tiny().eval()
    torch.nn.init.normal_(method.model.weight_generator.proj.fc2_weight)
    one, other = (batch_of(method, scene(64, 64, (8, 8, 24, 32), text)) for text in TEXTS)
    with torch.no_grad():
        first, second = method.network(one), method.network(other)
    assert (first.visual - second.visual).abs().max() > 1e-3


def test_padding_words_are_ignored():
    method = tiny().eval()
    torch.nn.init.normal_(method.model.weight_generator.proj.fc2_weight)
    batch = batch_of(method, scene(64, 64, (8, 8, 24, 32)))
    with torch.no_grad():
        wanted = method.network(batch)
        batch.text_ids[batch.text_pad] = 7
        found = method.network(batch)
    torch.testing.assert_close(found.boxes, wanted.boxes)
    torch.testing.assert_close(found.mask_logits, wanted.mask_logits)


def test_official_parameter_count():
    """The counts of the official modules, less the pooler (768 * 768 + 768) that it never evaluates."""
    with torch.device("meta"):
        model = VGLAW().model
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert counts == {
        "text_encoder": 66_955_008 - 590_592,
        "visual_encoder": 85_852_160,
        "weight_generator": 1_153_728,
        "ada_gap": 98_432,
        "up_sample": 1_574_400,
        "bbox_pred": 263_684,
    }
    assert sum(counts.values()) == 155_897_412 - 590_592


def test_bfloat16_autocast():
    method = tiny()
    batch = batch_of(method, scene(64, 48, (8, 8, 24, 32)), scene(40, 64, (3, 4, 30, 20)))
    with torch.autocast("cpu", torch.bfloat16):
        losses = method(batch)
    losses["total"].backward()
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    gradients = [parameter.grad for parameter in method.trainable()]
    assert len(gradients) > 60 and all(grad is not None and grad.isfinite().all() for grad in gradients)
    assert sum(bool(grad.any()) for grad in gradients) > 40  # those behind FC2, which starts at zero, get none yet


# --- modes -----------------------------------------------------------------------------------------------------------


def test_rec_mode_has_no_masks():
    method = tiny(mode="rec")
    assert not method.wants_masks and method.tasks == {"rec"} and method.model.up_sample is None
    sample = scene(64, 48, (8, 8, 24, 32))
    del sample["masks"]
    batch = batch_of(method, sample)
    losses = method(batch)
    assert set(losses) == {"total", "bbox", "xiou"}
    torch.testing.assert_close(losses["total"], losses["bbox"] + losses["xiou"])
    prediction = method.eval().predict(batch)["main"][0]
    assert prediction.mask is None and prediction.canvas_mask is None and prediction.boxes.shape == (1, 4)


def test_errors_name_the_fix():
    method = tiny()
    sample = scene(64, 48, (8, 8, 24, 32))
    del sample["masks"]
    with pytest.raises(UserError, match=r"method\.mode=rec"):
        method(batch_of(method, sample))
    with pytest.raises(UserError, match=r"method\.mode=segment"):
        tiny(mode="segment")
    with pytest.raises(UserError, match=r"method\.vocab_size="):
        tiny(vocab_size=10).tokenize(["ball"])
    with pytest.raises(UserError, match=r"method\.tokenizer"):
        tiny(tokenizer=None).tokenize(["ball"])
    assert tiny(vocab_size=None).text_shape == (12, len(build_vocabulary(TEXTS, 64)))


# --- prediction ------------------------------------------------------------------------------------------------------


def with_output(method: VGLAW, monkeypatch, **changes):
    """Let the network say what we want it to say."""
    network = method.network

    def answer(batch):
        output = network(batch)
        for name, value in changes.items():
            setattr(output, name, value)
        return output

    monkeypatch.setattr(method, "network", answer)


def table_of(size: tuple[int, int], box: list[int], mask: np.ndarray) -> AnnotationTable:
    """One expression, key "0", for one object."""
    row = dict.fromkeys(("image_id", "ref_id", "sent_id", "group"), 0)
    row |= {"key": "0", "image": "0.jpg", "width": size[1], "height": size[0], "expression": TEXTS[0], "boxes": [box]}
    row |= {"masks": [encode(mask)["counts"]], "polygons": [1], "ann_ids": [0]}
    row |= {"categories": ["ball"], "source": "test", "split": "val"}
    return AnnotationTable.from_rows([row], {"dataset": "test", "split": "val", "task": "rec"})


def test_predictions_are_in_original_pixels(monkeypatch):
    """A 128 x 64 image is halved and lies 16 pixels below the top of the 64 x 64 canvas."""
    method = tiny().eval()
    batch = batch_of(method, scene(64, 128, (20, 10, 60, 50)))
    assert batch.geometry[0] == Geometry((0.5, 0.5), (0.0, 16.0), (64, 128), (64, 64))
    logits = torch.full((1, 64, 64), -9.0)
    logits[0, 16 + 5 : 16 + 25, 10:30] = 9.0
    logits[0, :10] = 9.0  # in the padding: must not show up in the original image
    attention = torch.zeros(1, 4, 4)
    attention[0, 2, 3] = 1.0
    box = torch.tensor([[20 / 64, (16 + 15) / 64, 20 / 64, 20 / 64]])
    with_output(method, monkeypatch, boxes=box, mask_logits=logits, attention=attention)
    prediction = method.predict(batch)["main"][0]
    torch.testing.assert_close(prediction.boxes, torch.tensor([[20.0, 10.0, 60.0, 50.0]]))
    wanted = np.zeros((64, 128), dtype=np.uint8)
    wanted[10:50, 20:60] = 1
    found = coco.decode([{**prediction.mask, "counts": prediction.mask["counts"].encode()}])[..., 0]
    assert found.shape == (64, 128)
    assert (found != wanted).sum() <= 160  # the object's outline
    assert found[12:48, 22:58].all() and not found[:8].any() and not found[:, 64:].any()
    canvas = coco.decode([{**prediction.canvas_mask, "counts": prediction.canvas_mask["counts"].encode()}])[..., 0]
    np.testing.assert_array_equal(canvas, (logits[0] > 0).numpy())
    assert prediction.heatmap.shape == (2, 4) and prediction.heatmap.argmax() == 7
    assert prediction.scores.tolist() == [1.0] and prediction.geometry == batch.geometry[0]


def test_mask_threshold_and_clipping(monkeypatch):
    method = tiny().eval()
    batch = batch_of(method, scene(64, 64, (20, 10, 60, 50)))
    box = torch.tensor([[0.0, 0.5, 0.5, 1.5]])
    for probability, area in ((0.34, 0), (0.36, 64 * 64)):
        logits = torch.full((1, 64, 64), math.log(probability / (1 - probability)))
        with_output(method, monkeypatch, boxes=box, mask_logits=logits)
        prediction = method.predict(batch)["main"][0]
        for mask in (prediction.mask, prediction.canvas_mask):
            assert coco.area({**mask, "counts": mask["counts"].encode()}) == area
        torch.testing.assert_close(prediction.boxes, torch.tensor([[0.0, 0.0, 16.0, 64.0]]))


def test_masks_cut_at_other_probabilities_are_a_metric_variant(monkeypatch):
    method = tiny(mask_cuts=[20, 50]).eval()
    batch = batch_of(method, scene(64, 64, (0, 0, 32, 64)))
    probability = torch.full((1, 64, 64), 0.01)
    probability[0, :, :32], probability[0, :, 32:48] = 0.6, 0.4  # the left half surely, the next quarter perhaps
    with_output(method, monkeypatch, mask_logits=torch.logit(probability))
    found = method.predict(batch)["main"]
    areas = [coco.area({**mask, "counts": mask["counts"].encode()}) for mask in found[0].masks_at.values()]
    assert areas == [64 * 48, 64 * 32] and list(found[0].masks_at) == [20, 50]
    truth = np.zeros((64, 64), dtype=bool)
    truth[:, :32] = True
    table = table_of((64, 64), [0, 0, 32, 64], truth)
    predictions = Predictions.from_list(["0"], found)
    values = evaluate_predictions(table, predictions, ["res"], ["res/cut@50", "res/cut@20"], bootstrap=0).values
    miou = {name: round(value, 2) for name, value in values.items() if name.endswith("miou")}
    assert miou == {"res/miou": 66.67, "res/cut@50/miou": 100.0, "res/cut@20/miou": 66.67}
    for wrong, problem in (("res/cut", "cut@50"), ("res/cut@40", "masks_at"), ("res/canvas+cut@50", "original size")):
        with pytest.raises(UserError, match=problem):
            evaluate_predictions(table, predictions, ["res"], [wrong], bootstrap=0)


# --- transforms ------------------------------------------------------------------------------------------------------


def extent(mask: Tensor) -> list[int]:
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def test_evaluation_centres_the_image():
    sample = EvalTransform(96)(scene(32, 48, (6, 8, 30, 20)))
    assert sample["image"].shape == (3, 96, 96)
    assert sample["geometry"] == Geometry((2.0, 2.0), (0.0, 16.0), (32, 48), (96, 96))
    assert sample["boxes"].tolist() == [[12.0, 32.0, 60.0, 56.0]]
    assert extent(sample["masks"][0]) == [12, 32, 60, 56]
    assert sample["pad"].sum() == 96 * 32 and sample["image"][:, sample["pad"]].abs().max() == 0
    box = sample["boxes"].as_subclass(Tensor)
    torch.testing.assert_close(sample["geometry"].to_original(box), torch.tensor([[6.0, 8.0, 30.0, 20.0]]))


def test_training_moves_image_boxes_masks_and_words_together():
    transform = TrainTransform(96, (96,))
    flips, places = 0, set()
    for seed in range(24):
        torch.manual_seed(seed)
        sample = transform(scene(32, 48, (6, 8, 30, 20), "bright, on the left"))
        assert extent(sample["masks"][0]) == sample["boxes"][0].tolist()
        assert extent(sample["image"].as_subclass(Tensor)[0] > 0.03) == sample["boxes"][0].tolist()
        flipped = int(sample["boxes"][0, 0]) == 96 - 60
        assert sample["text"] == ("bleft, on the right" if flipped else "bright, on the left")
        flips += flipped
        places.add(sample["geometry"].offset)
    assert 4 < flips < 20 and len(places) > 8
    torch.manual_seed(23)
    again = transform(scene(32, 48, (6, 8, 30, 20), "bright, on the left"))
    assert torch.equal(again["image"], sample["image"])


def test_flip_of_whole_words_is_an_option():
    transform = tiny(flip_whole_words=True).train_transform()
    texts = set()
    for seed in range(12):
        torch.manual_seed(seed)
        texts.add(transform(scene(32, 48, (6, 8, 30, 20), "bright, on the left"))["text"])
    assert texts == {"bright, on the left", "bright, on the right"}


def test_multi_scale_crops_keep_the_object():
    assert multi_scale_sizes(448) == (320, 352, 384, 416, 448, 480, 512, 544, 576)
    method = tiny(image_size=160, pretrain_image_size=160, multi_scale=True)
    transform = method.train_transform()
    sides = set()
    for seed in range(40):
        torch.manual_seed(seed)
        sample = transform(scene(100, 160, (40, 24, 80, 56), "the cup"))
        x1, y1, x2, y2 = sample["boxes"][0].tolist()
        assert 0 <= x1 < x2 <= 160 and 0 <= y1 < y2 <= 160
        sides.add(round((x2 - x1) / 40 * 160))
        assert [round(v) for v in (x1, y1, x2, y2)] == pytest.approx(extent(sample["masks"][0]), abs=1)
    assert min(sides) < 96 and max(sides) > 224
    for seed in range(20):
        torch.manual_seed(seed)
        sample = transform(scene(100, 160, (40, 24, 80, 56), "the cup in the middle"))
        assert sample["boxes"][0, 2] - sample["boxes"][0, 0] <= 40.01  # never enlarged, so never cropped


def test_tokens():
    ids, pad = tiny().tokenize(["ball " * 30, "ball"])
    assert ids.shape == (2, 12)
    assert not pad[0].any() and pad[1].tolist() == [False] * 3 + [True] * 9
    assert ids[0, -1] == ids[1, 2] and ids[1, 3:].tolist() == [0] * 9  # [SEP] survives the cut


# --- optimisation ----------------------------------------------------------------------------------------------------


def test_optimiser_against_its_formula():
    random = np.random.default_rng(0)
    start = [random.normal(size=(3, 2)), random.normal(size=4)]
    parameters = [torch.nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in start]
    frozen = torch.nn.Parameter(torch.ones(2))
    groups = [{"params": parameters[:1], "lr": 0.1}, {"params": [parameters[1], frozen], "lr": 0.01}]
    optimizer = AdamWeightDecay(groups, weight_decay=0.02)
    m, v = [np.zeros_like(value) for value in start], [np.zeros_like(value) for value in start]
    for step in range(3):
        if step == 2:  # a run that goes on elsewhere
            state = optimizer.state_dict()
            optimizer = AdamWeightDecay(groups)
            optimizer.load_state_dict(state)
        for index, rate in enumerate((0.1, 0.01)):
            gradient = random.normal(size=start[index].shape)
            parameters[index].grad = torch.tensor(gradient)
            m[index] = 0.9 * m[index] + 0.1 * gradient
            v[index] = 0.999 * v[index] + 0.001 * gradient**2
            start[index] -= rate * (m[index] / (np.sqrt(v[index]) + 1e-6) + 0.02 * start[index])
        optimizer.step()
        for parameter, value in zip(parameters, start, strict=True):
            np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-10)
    assert torch.equal(frozen, torch.ones(2))


def test_optimiser_options_and_tensor_rate():
    parameter = torch.nn.Parameter(torch.zeros(1))
    for options in ({"betas": (1.0, 0.9)}, {"eps": 0.0}):
        with pytest.raises(ValueError):
            AdamWeightDecay([parameter], **options)
    optimizer = AdamWeightDecay([parameter], lr=torch.tensor(0.1))
    optimizer.param_groups[0]["initial_lr"] = 0.1
    optim.set_learning_rate(optimizer, 0.5)

    def closure():
        parameter.grad = torch.ones(1)
        return torch.tensor(3.0)

    assert optimizer.step(closure) == 3.0
    assert parameter.item() == pytest.approx(-0.05 * 0.1 / math.sqrt(0.001), rel=1e-3)


def test_groups_have_the_official_rates():
    method = tiny()
    groups = {group["name"]: group for group in method.param_groups(1e-4)}
    assert {name: group["lr"] for name, group in groups.items()} == pytest.approx(
        {"visual_encoder": 1e-5, "text_encoder": 1e-5, "rest": 1e-4}
    )
    counted = [id(parameter) for group in groups.values() for parameter in group["params"]]
    assert sorted(counted) == sorted(map(id, method.parameters()))
    qkv = method.model.visual_encoder.blocks[0].attn.qkv.weight
    assert any(parameter is qkv for parameter in groups["visual_encoder"]["params"])


def test_schedules():
    steps = WarmupStep(drop_epoch=10, warmup_steps=100)
    assert steps(0, 0, 400) == pytest.approx(0.01)
    assert steps(0, 50, 400) == pytest.approx(0.505)
    assert steps(0, 100, 400) == steps(9, 399, 400) == 1.0
    assert steps(10, 0, 400) == steps(19, 3, 400) == pytest.approx(0.1)
    constant = WarmupStep(drop_epoch=None, warmup_steps=0)
    assert constant(0, 0, 400) == constant(19, 0, 400) == 1.0


@pytest.mark.parametrize("dataset", ["refcoco", "refcoco+", "refcocog", "referit"])
def test_official_recipes(dataset):
    pair = ["method=vglaw", f"dataset={dataset}"]
    config, constant, restart = (
        compose_run([*pair, *more]) for more in ([], ["recipe=vglaw-constant"], ["recipe=vglaw-constant-restart"])
    )
    recipe = config.recipe
    assert (recipe.lr, recipe.epochs, recipe.clip_norm, recipe.sampling) == (1e-4, 20, 0.15, "expression")
    assert recipe.batch_size * recipe.accumulate * 4 == 256
    optimizer = instantiate(recipe.optimizer)([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, AdamWeightDecay) and optimizer.defaults["weight_decay"] == 1e-4
    at = [(0, 0), (0, 125), (9, 470), (10, 0), (19, 470)]
    assert [instantiate(recipe.schedule)(*when, 471) for when in at] == pytest.approx([0.01, 1, 1, 0.1, 0.1])
    for variant, lr in ((constant, 1e-4), (restart, 1e-5)):
        assert variant.recipe.lr == lr and variant.recipe.clip_norm == 0.15
        assert [instantiate(variant.recipe.schedule)(*when, 471) for when in at] == [1] * 5


def test_configuration_builds_the_official_model():
    with initialize_config_module("vgbench.configs", version_base="1.3"):
        config = compose("run", ["method=vglaw", "dataset=refcoco"])
    with torch.device("meta"):
        configured, default = instantiate(config.method), VGLAW()
    shapes = {name: value.shape for name, value in default.state_dict().items()}
    assert {name: value.shape for name, value in configured.state_dict().items()} == shapes
    assert (configured.options.mask_threshold, configured.options.max_tokens, configured.image_size) == (0.35, 40, 448)


# --- the price of adaptation -----------------------------------------------------------------------------------------


def test_low_rank_keeps_less_memory_than_explicit_weights():
    static, low_rank, explicit = (
        row["kept MB/sample"] for row in projection_table(2, 36, 48, 4, torch.device("cpu"), repeats=1)
    )
    assert static < low_rank < explicit
    extra = 4 * (36 * 4 * 2 + 4 * 4)  # float32: [36, 4] after D and after Phi, and Phi itself
    assert low_rank - static == pytest.approx(extra / 1e6)
    rows = encoder_table(tiny().model, 64)
    assert rows[0]["kept MB/sample"] < rows[1]["kept MB/sample"] < rows[2]["kept MB/sample"]


def test_learns_to_tell_two_objects_apart_by_the_words():
    method = tiny(dim=32, rank=8).train()
    first, second = scene(64, 64, (4, 8, 28, 40), TEXTS[0]), scene(64, 64, (36, 20, 60, 60), TEXTS[1])
    second["image"] = first["image"] = tv_tensors.Image(torch.maximum(first["image"], second["image"]))
    batch = batch_of(method, first, second)
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        method(batch)["total"].backward()
        optimizer.step()
    method.eval()
    for prediction, sample in zip(method.predict(batch)["main"], (first, second), strict=True):
        assert iou(prediction.boxes, sample["boxes"].as_subclass(Tensor)).item() > 0.5
        found = coco.decode([{**prediction.mask, "counts": prediction.mask["counts"].encode()}])[..., 0]
        wanted = sample["masks"][0].numpy()
        assert (found & wanted).sum() / (found | wanted).sum() > 0.5


def test_official_metric_in_the_network_frame(monkeypatch):
    """The target as the network sees it, predicted exactly, has an mIoU of 1 at the canvas (as the authors measure)."""
    method = tiny().eval()
    sample = scene(50, 90, (13, 7, 61, 40))
    batch = batch_of(method, sample)
    logits = batch.masks[:, 0].float() * 20 - 10
    with_output(method, monkeypatch, mask_logits=logits, boxes=xyxy_to_cxcywh(batch.boxes[:, 0] / 64))
    predictions = Predictions.from_list(batch.keys, method.predict(batch)["main"])
    table = table_of((50, 90), [13, 7, 61, 40], sample["masks"][0].numpy())
    report = evaluate_predictions(table, predictions, ["rec", "res"], ["res/canvas+eps_one"], bootstrap=0)
    values = report.values  # percent
    assert values["res/canvas+eps_one/miou"] == pytest.approx(100)
    assert 90 < values["res/miou"] <= 100 and values["rec/prec@0.5"] == 100
