"""AMC: official numbers, checkpoints, losses, transforms, prediction."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors

from vgbench.core.errors import UserError
from vgbench.methods.amc import AMC
from vgbench.methods.amc import heat as decisions
from vgbench.methods.amc import loss as losses
from vgbench.methods.amc.gradcam import Expressions, normalise_map
from vgbench.methods.amc.step import Pairs, Trace
from vgbench.methods.amc.transforms import (
    RandAugment,
    augment_crop,
    choose_box,
    clamp_boxes,
    clean_caption,
    colour_jitter,
)
from vgbench.text.wordpiece import WordPiece
from vgbench.types import Batch, Geometry, Sample

ROOT = Path(__file__).resolve().parents[2]
SIZES: dict[str, Any] = {
    "image_size": 32,
    "eval_size": 48,
    "patch_size": 8,
    "vision_width": 24,
    "vision_depth": 2,
    "vision_heads": 2,
    "text_width": 16,
    "text_layers": 4,
    "text_heads": 2,
    "text_ffn": 32,
    "max_positions": 40,
    "vocab_size": 40,
    "fusion_layer": 2,
    "gradcam_layer": 2,
    "itc_block": 1,
    "embed_dim": 8,
    "queue_size": 16,
    "pad_id": 0,
    "cls_id": 2,
    "mask_id": 4,
}


def tiny(**options: Any) -> AMC:
    torch.manual_seed(0)
    return AMC(**{**SIZES, **options})


def tiny_batch(count: int = 4, side: int = 32, length: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 40, (count, length), generator=generator)
    ids[:, 0] = 2
    pad = torch.arange(length)[None] >= torch.tensor([length, 4, 3, 5])[:count, None]
    ids[pad] = 0
    boxes = torch.tensor([[4.0, 4.0, 20.0, 16.0], [0, 0, 8, 8], [10, 2, 30, 31], [16, 16, 32, 32]])[:count, None]
    return Batch(
        image=torch.randn(count, 3, side, side, generator=generator),
        text_ids=ids,
        text_pad=pad,
        boxes=boxes,
        valid=torch.ones(count, 1, dtype=torch.bool),
        geometry=[Geometry((1.0, 1.0), (0.0, 0.0), (side, side), (side, side))] * count,
        keys=[str(number) for number in range(count)],
        image_ids=list(range(count)),
    )


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["man", "red", "shirt", "left", "right", "hand", "the", "on", "ball"]
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    path = tmp_path_factory.mktemp("amc") / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters]) + "\n")
    return path


# ---- the official code's numbers


def test_parameter_groups_are_those_of_the_official_optimiser() -> None:
    spec = yaml.safe_load((ROOT / "conformance" / "amc-steps-a" / "case.yaml").read_text())
    from vgbench.conform.case import Case
    from vgbench.methods.amc.conformance import build

    method = build(Case(ROOT / "conformance" / "amc-steps-a"))
    names = {id(parameter): name for name, parameter in method.network.named_parameters()}
    groups = {group["name"]: {names[id(p)] for p in group["params"]} for group in method.param_groups(1e-5)}
    assert groups == {name: set(group["names"]) for name, group in spec["param_groups"].items()}


# ---- checkpoints


def official_entries() -> dict[str, tuple[int, ...]]:
    """Names and shapes of AMC's published checkpoints (845 entries), written down from the model's description."""

    def linear(name: str, out: int, inputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (out, inputs), f"{name}.bias": (out,)}

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (768,), f"{name}.bias": (768,)}

    vit: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, 768), "pos_embed": (1, 257, 768)}
    vit |= {"patch_embed.proj.weight": (768, 3, 16, 16), "patch_embed.proj.bias": (768,)} | norm("norm")
    for i in range(12):
        vit |= norm(f"blocks.{i}.norm1") | norm(f"blocks.{i}.norm2")
        vit |= linear(f"blocks.{i}.attn.qkv", 2304, 768) | linear(f"blocks.{i}.attn.proj", 768, 768)
        vit |= linear(f"blocks.{i}.mlp.fc1", 3072, 768) | linear(f"blocks.{i}.mlp.fc2", 768, 3072)
    bert: dict[str, tuple[int, ...]] = {
        "bert.embeddings.position_ids": (1, 512),
        "bert.embeddings.word_embeddings.weight": (30522, 768),
        "bert.embeddings.position_embeddings.weight": (512, 768),
        "bert.embeddings.token_type_embeddings.weight": (2, 768),
        "cls.predictions.bias": (30522,),
    } | norm("bert.embeddings.LayerNorm")
    for i in range(12):
        layer = f"bert.encoder.layer.{i}"
        for kind in ("attention", "crossattention")[: 1 + (i >= 6)]:
            for part in ("query", "key", "value"):
                bert |= linear(f"{layer}.{kind}.self.{part}", 768, 768)
            bert |= linear(f"{layer}.{kind}.output.dense", 768, 768) | norm(f"{layer}.{kind}.output.LayerNorm")
        bert |= linear(f"{layer}.intermediate.dense", 3072, 768)
        bert |= linear(f"{layer}.output.dense", 768, 3072) | norm(f"{layer}.output.LayerNorm")
    bert |= linear("cls.predictions.transform.dense", 768, 768) | norm("cls.predictions.transform.LayerNorm")
    bert |= linear("cls.predictions.decoder", 30522, 768)
    entries: dict[str, tuple[int, ...]] = {"temp": (), **linear("itm_head", 2, 768)}
    entries |= dict.fromkeys(("image_queue", "text_queue"), (256, 65536))
    entries |= dict.fromkeys(("queue_ptr_img", "queue_ptr_txt"), (1,))
    for suffix in ("", "_m"):
        entries |= {f"visual_encoder{suffix}.{name}": shape for name, shape in vit.items()}
        entries |= {f"text_encoder{suffix}.{name}": shape for name, shape in bert.items()}
        entries |= linear(f"vision_proj{suffix}", 256, 768) | linear(f"text_proj{suffix}", 256, 768)
    return entries


def as_state(entries: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Zeros of these shapes that take no memory."""
    whole = ("ptr", "position_ids", "idx_queue")
    return {
        name: torch.zeros((), dtype=torch.int64 if any(w in name for w in whole) else torch.float32).expand(shape)
        for name, shape in entries.items()
    }


@pytest.fixture(scope="module")
def full_size() -> AMC:
    with torch.device("meta"):
        return AMC()


def test_size_of_the_published_model(full_size: AMC) -> None:
    count = sum(p.numel() for group in full_size.param_groups(1e-5) for p in group["params"])
    assert round(count / 1e6, 2) == 209.94


def test_every_entry_of_an_amc_checkpoint(full_size: AMC) -> None:
    state = as_state(official_entries())
    assert len(state) == 845
    report = full_size.load_official(state)
    assert not report.adapted
    assert set(report.used) | set(report.unused) == set(state)
    ours = set(full_size.network.state_dict())
    assert set(report.used) == ours
    assert {name.replace("_m.", ".") for name in report.unused} == {
        "text_encoder.bert.embeddings.position_ids",
        "text_encoder.cls.predictions.decoder.weight",
        "text_encoder.cls.predictions.decoder.bias",
    }


def test_every_entry_of_an_albef_checkpoint(full_size: AMC) -> None:
    state = as_state(official_entries() | {"queue_ptr": (1,)})
    del state["queue_ptr_img"], state["queue_ptr_txt"]
    assert len(state) == 844
    report = full_size.load_official(state)
    assert set(report.used) | set(report.unused) == set(state)
    assert "queue_ptr" in report.unused and "image_queue" in report.used


def test_evaluation_layout_with_another_grid(full_size: AMC) -> None:
    """ALBEF fine-tuned for retrieval: no ``bert.``, no MLM head, 384 px, an image-id queue."""
    entries = official_entries()
    entries |= dict.fromkeys(("visual_encoder.pos_embed", "visual_encoder_m.pos_embed"), (1, 577, 768))
    state = {name.replace("bert.", ""): shape for name, shape in entries.items() if ".cls." not in name}
    state = as_state(state | {"idx_queue": (1, 65536), "queue_ptr": (1,)})
    report = full_size.load_official(state)
    assert set(report.used) | set(report.unused) == set(state)
    assert set(report.adapted) == {"visual_encoder.pos_embed", "visual_encoder_m.pos_embed"}


def test_loading_takes_the_values_and_resizes_positions() -> None:
    source = tiny()
    state = {name: value.clone() for name, value in source.network.state_dict().items()}
    target = tiny(image_size=48, alpha=0.1)
    report = target.load_official(state)
    assert set(report.adapted) == {"visual_encoder.pos_embed", "visual_encoder_m.pos_embed"}
    batch = tiny_batch(side=48)
    expressions = Expressions(batch.image, torch.arange(4), batch.text_ids, batch.text_pad)
    torch.testing.assert_close(target.eval().heatmaps(expressions), source.eval().heatmaps(expressions))


def test_momentum_model_starts_as_a_copy_where_a_checkpoint_has_none() -> None:
    method = tiny()
    state = {n: torch.randn_like(v) if v.is_floating_point() else v for n, v in method.network.state_dict().items()}
    method.load_official({name: value for name, value in state.items() if "_m." not in name})
    for average, value in zip(*method.network.momentum_pairs, strict=True):
        assert torch.equal(average, value)


@pytest.mark.parametrize("fault", ["missing", "missing momentum", "unknown", "shape", "untied"])
def test_checkpoints_that_do_not_fit(fault: str) -> None:
    method = tiny()
    state = dict(method.network.state_dict())
    if fault == "missing":
        del state["itm_head.bias"]
    elif fault == "missing momentum":
        del state["visual_encoder_m.norm.bias"]
    elif fault == "unknown":
        state["visual_encoder.head.weight"] = torch.zeros(2)
    elif fault == "shape":
        state["itm_head.bias"] = torch.zeros(3)
    else:
        state["text_encoder.cls.predictions.decoder.bias"] = state["text_encoder.cls.predictions.bias"] + 1
    with pytest.raises(UserError) as error:
        method.load_official(state)
    assert "\n" not in str(error.value)


# ---- losses


def test_consistency_terms_by_hand() -> None:
    heat = torch.tensor([[[1.0, 0.0], [0.5, 0.25]], [[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    mask = torch.tensor([[[1, 0], [0, 0]], [[1, 0], [1, 0]], [[0, 0], [0, 1]]])
    terms = losses.consistency(heat, mask, torch.tensor([True, True, False]), 0.1, 0.5)
    # outside: 0 + .5 + .25 over 3 pixels and 1 + 0 over 2; inside: 1 over 1 and 0 + 0 over 2; pooled over the batch
    assert math.isclose(terms.mean_margin, max(0, 1.75 / 5 - 1 / 3 + 0.1), rel_tol=1e-6)
    # maxima per sample: 0.5 - 1 + 0.5 = 0 and 1 - 0 + 0.5
    assert math.isclose(terms.max_margin, (0.0 + 1.5) / 2, rel_tol=1e-6)


@pytest.mark.parametrize("content", ["none selected", "nothing inside", "nothing outside"])
def test_consistency_without_boxes_or_area_stays_finite(content: str) -> None:
    heat = torch.rand(2, 4, 4, requires_grad=True)
    mask = torch.ones(2, 8, 8) if content == "nothing outside" else torch.zeros(2, 8, 8)
    selected = torch.tensor([content != "none selected"] * 2)
    terms = losses.consistency(normalise_map(heat), mask, selected)
    assert terms.mean_margin == 0
    if content == "none selected":
        assert terms.max_margin == 0
    (gradient,) = torch.autograd.grad(terms.mean_margin + terms.max_margin, heat)
    assert gradient.isfinite().all()


def test_distillation_axis() -> None:
    torch.manual_seed(0)
    logits, teacher = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    labels = torch.full((2, 3), -100)
    labels[0, 1], labels[1, 2] = 4, 0
    soft = teacher.softmax(-1)
    for axis, dim in (("tokens", 1), ("vocabulary", 2)):
        log_p = logits.log_softmax(dim)
        expected = -(soft[0, 1] @ log_p[0, 1] + soft[1, 2] @ log_p[1, 2]) / 2
        found = losses.masked_language(logits, teacher, labels, torch.tensor(1.0), axis)  # type: ignore[arg-type]
        torch.testing.assert_close(found, expected)
    hard = losses.masked_language(logits, teacher, labels, torch.tensor(0.0))
    torch.testing.assert_close(hard, F.cross_entropy(logits.flatten(0, 1), labels.flatten()))
    assert losses.masked_language(logits, teacher, torch.full((2, 3), -100), torch.tensor(0.4)) == 0


def test_negatives_are_never_the_pair_itself() -> None:
    torch.manual_seed(0)
    similarity = torch.randn(6, 20)
    similarity[2, 2] = 500.0  # every other weight of this row underflows
    weights = losses.negative_weights(similarity)
    assert torch.equal(weights[2], torch.tensor([1.0, 1, 0, 1, 1, 1]))
    for _ in range(20):
        images, texts = losses.draw_negatives(similarity, similarity)
        assert (images != torch.arange(6)).all() and (texts != torch.arange(6)).all()


def test_word_masking() -> None:
    torch.manual_seed(0)
    ids = torch.randint(5, 1000, (64, 100))
    ids[:, 0], ids[:, 90:] = 2, 0
    masked, labels = losses.mask_words(ids, 1000, pad_id=0, cls_id=2, mask_id=4)
    chosen = labels != -100
    assert not chosen[:, 0].any() and not chosen[:, 90:].any()
    assert torch.equal(labels[chosen], ids[chosen]) and torch.equal(masked[~chosen], ids[~chosen])
    count = int(chosen.sum())  # of 5696 words: expectation 854, standard deviation 27
    assert 750 < count < 960
    assert 0.75 < float((masked[chosen] == 4).float().mean()) < 0.85
    assert 0.06 < float((masked[chosen] == ids[chosen]).float().mean()) < 0.14


def test_training_learns_where_to_look_only_with_the_amc_terms() -> None:
    left = {}
    for consistent in (True, False):
        method = tiny(mask_consistency=consistent, dropout=0.0).train()
        optimizer = torch.optim.AdamW(method.param_groups(1e-2))
        batch = tiny_batch()
        for _ in range(8):
            torch.manual_seed(3)
            found = method(batch)
            assert ("gcam_masked" in found) == consistent
            optimizer.zero_grad()
            found["total"].backward()
            optimizer.step()
        method.step = tiny().step
        left[consistent] = float(method(batch)["gcam_masked"].detach())
    assert left[True] < 0.2 < 0.4 < left[False]


def test_every_trained_parameter_gets_a_gradient() -> None:
    method = tiny().train()
    method(tiny_batch())["total"].backward()
    for name, parameter in method.network.named_parameters():
        assert (parameter.grad is None) == ("_m." in name), name


def test_forward_is_a_training_step_in_either_mode() -> None:
    for mode in (True, False):
        method = tiny().train(mode)
        with torch.no_grad():
            method.network.temp.fill_(0.9)
        queue = method.network.image_queue.clone()
        method(tiny_batch())
        assert method.network.temp == 0.5 and method.network.queue_ptr_txt == 4
        changed = (method.network.image_queue != queue).any(0)
        assert changed.tolist() == [True] * 4 + [False] * 12


def test_boxes_stand_in_for_masks_and_no_target_takes_no_part() -> None:
    batch = tiny_batch()
    masks = torch.zeros(4, 1, 32, 32, dtype=torch.uint8)
    for number, (x1, y1, x2, y2) in enumerate(batch.boxes[:, 0].int().tolist()):
        masks[number, 0, y1:y2, x1:x2] = 1
    batch.valid[2] = False

    def terms(masks: Tensor | None) -> list[float]:
        torch.manual_seed(5)
        found = tiny().eval()(Batch(**{**vars(batch), "masks": masks}))
        return [found[name].item() for name in ("gcam_masked1", "gcam_masked2", "total")]

    expected = terms(masks)
    assert terms(None) == expected
    masks[2] = 1  # of an invalid row
    assert terms(masks) == expected
    batch.valid[:] = False
    assert terms(None)[:2] == [0.0, 0.0]


def test_alpha_rises_during_the_first_epoch() -> None:
    method = tiny(alpha=0.4)
    for place, value in (((0, 0, 10), 0.0), ((0, 5, 10), 0.2), ((1, 0, 10), 0.4), ((7, 3, 10), 0.4)):
        method.on_step(*place)
        assert math.isclose(float(method.alpha), value, rel_tol=1e-6)


def test_reduced_precision_keeps_the_maps_in_float32() -> None:
    method, batch = tiny().eval(), tiny_batch()
    state = {name: value.clone() for name, value in method.network.state_dict().items()}

    def step(enabled: bool) -> dict[str, Tensor]:
        method.network.load_state_dict(state)
        torch.manual_seed(2)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            trace: Trace = {}
            pairs = Pairs(batch.image, batch.text_ids, batch.text_pad, torch.ones(4, 32, 32).triu())
            losses = method.training_losses(pairs, trace=trace)
        losses["total"].backward()
        return trace | losses

    exact, rough = step(False), step(True)
    for name in ("cross_attention_map", "cross_attention_grad", "gradcam_normalised", "sim_i2t", "total"):
        assert rough[name].dtype == torch.float32, name
    for name in ("total", "gcam_masked", "ita"):
        assert math.isclose(rough[name].item(), exact[name].item(), rel_tol=0.05), name


@pytest.mark.parametrize("consistency", [True, False])
def test_all_texts_of_a_step_go_through_a_layer_at_once(consistency: bool) -> None:
    """Of 4 pairs: 4 texts, 4 masked; fused: 4 matching, 2 x 4 that do not match, 4 masked. Layer 3 explains."""
    method = tiny(mask_consistency=consistency, gradcam_layer=3, text_layers=5)
    rows: dict[str, list[int]] = {}
    for name, module in method.network.named_modules():
        if name.endswith("output.dense") and "attention" not in name:
            module.register_forward_hook(
                lambda _module, _inputs, output, name=name: rows.setdefault(name, []).append(len(output))
            )
    method(tiny_batch())["total"].backward()
    split = [[4, 12]] if consistency else [[16]]
    students = [[8], [8], [16], *split * 2]
    layers = {f"text_encoder.bert.encoder.layer.{number}.output.dense": row for number, row in enumerate(students)}
    momentum = {name.replace("text_encoder", "text_encoder_m"): [8] for name in list(layers)[:2]}
    momentum |= {name.replace("text_encoder", "text_encoder_m"): [4] for name in list(layers)[2:]}
    assert rows == layers | momentum


def test_batch_too_large_for_the_queue_or_too_small_for_negatives() -> None:
    with pytest.raises(UserError, match="queue_size"):
        tiny(queue_size=3)(tiny_batch())
    with pytest.raises(UserError, match="at least two"):
        tiny()(tiny_batch(1))


@pytest.mark.parametrize("options", [{"eval_size": 50}, {"gradcam_layer": 1}, {"heat": "itc", "itc_block": 2}])
def test_impossible_options(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"method\."):
        tiny(**options)


# ---- prediction


@pytest.mark.parametrize("heat", ["itm", "itc"])
def test_expressions_that_share_an_image_encode_it_once(heat: str) -> None:
    method = tiny(heat=heat).eval()
    batch = tiny_batch()
    batch.image = batch.image[[0, 1, 0, 0]]
    encoded: list[int] = []
    method.network.visual_encoder.blocks[0].register_forward_hook(lambda *a: encoded.append(len(a[1][0])))
    alone = method.predict(batch)["main"]
    batch.image_ids = [7, 3, 7, 7]
    shared = method.predict(batch)["main"]
    assert encoded == [4, 2]
    for one, other in zip(alone, shared, strict=True):
        torch.testing.assert_close(one.heatmap, other.heatmap, rtol=1e-4, atol=1e-9)
        assert one.point == other.point


def test_prediction_needs_no_trainable_parameters_and_leaves_no_gradients() -> None:
    method, batch = tiny().eval(), tiny_batch()
    expected = method.predict(batch)["main"][0].heatmap
    assert all(parameter.grad is None for parameter in method.parameters())
    with torch.no_grad():
        found = method.requires_grad_(False).predict(batch)["main"][0].heatmap
    assert torch.equal(expected, found)
    assert float(expected.max()) > 0


def blob(monkeypatch: pytest.MonkeyPatch, method: AMC, *boxes: tuple[int, int, int, int, float]) -> Batch:
    """Let the heat be 0 but for rectangles x1, y1, x2, y2, value on an 8 x 8 image (so nothing is interpolated)."""
    heat = torch.zeros(len(boxes), 8, 8)
    for number, (x1, y1, x2, y2, value) in enumerate(boxes):
        heat[number, y1:y2, x1:x2] = value
    monkeypatch.setattr(method, "heatmaps", lambda *_: heat)
    batch = tiny_batch(len(boxes))
    batch.geometry = [Geometry((1.0, 1.0), (0.0, 0.0), (8, 8), (32, 32))] * len(boxes)
    return batch


@pytest.mark.parametrize("layout", ["dets", "coco"])
def test_ranking_of_proposals(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # scores for heat 2 on [2, 6) x [1, 4): whole 24 / sqrt(12); left half 12 / sqrt(6); image 24 / 8; outside 0
    proposals = {0: [[0, 0, 8, 8], [2.6, 1.2, 2, 3], [2, 1, 4, 3], [0, 5, 3, 3]], 1: [[0, 0, 3, 3]]}
    path = tmp_path / "dets.json"
    if layout == "dets":
        path.write_text(json.dumps({str(i): [[*box, 0.9, "x"] for box in found] for i, found in proposals.items()}))
    else:
        path.write_text(json.dumps([{"image_id": i, "bbox": b, "score": 1} for i, f in proposals.items() for b in f]))
    method = tiny(proposals=str(path)).eval()
    assert method.tasks == {"rec", "pointing"}
    batch = blob(monkeypatch, method, (2, 1, 6, 4, 2.0), (4, 4, 6, 6, 1.0), (5, 2, 8, 8, 1.0))
    found = method.predict(batch)["main"]
    expected = torch.tensor([[2, 1, 6, 4], [2.6, 1.2, 4.6, 4.2], [0, 0, 8, 8]])
    torch.testing.assert_close(found[0].boxes, expected)
    torch.testing.assert_close(found[0].scores, torch.tensor([1.0, math.sqrt(0.5), 3 / math.sqrt(48)]))
    assert found[0].point == (2, 1)
    assert found[1].boxes.shape == found[2].boxes.shape == (0, 4)  # no heat inside; image without detections


@pytest.mark.parametrize("content", ["{", '{"a": [[1, 2, 3, 4]]}', '{"1": [[1, 2]]}', "[1]", "3"])
def test_damaged_proposals(content: str, tmp_path: Path) -> None:
    path = tmp_path / "dets.json"
    path.write_text(content)
    with pytest.raises(UserError, match="proposals"):
        decisions.read_proposals(path)


def test_heat_box_is_a_set_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    method = tiny(heat_box=True).eval()
    assert method.outputs == ("main", "heat_box")
    found = method.predict(blob(monkeypatch, method, (2, 1, 6, 4, 2.0)))
    assert found["heat_box"][0].boxes[0].tolist() == [2, 1, 6, 4]
    assert found["main"][0].boxes.shape == (0, 4) and found["main"][0].point == (2, 1)
    assert tiny().tasks == {"pointing"}


def test_heat_boxes_are_those_of_the_components() -> None:
    """Around every component of 8 neighbours: a ring, the island inside it, and pixels that touch at a corner."""
    heat = torch.zeros(12, 20)
    heat[1:8, 1:8] = 1.0
    heat[2:7, 2:7] = 0.0
    heat[4, 4] = 1.0
    heat[9, 10] = heat[10, 11] = 1.0
    assert decisions.heat_boxes(heat).tolist() == [[1, 1, 7, 7], [4, 4, 1, 1], [10, 9, 2, 2]]
    heat[0, 19] = 0.25  # above the first two levels only
    heat[0, 18] = 0.15
    assert [18, 0, 2, 1] in decisions.heat_boxes(heat).tolist() and [19, 0, 1, 1] in decisions.heat_boxes(heat).tolist()
    assert decisions.heat_boxes(torch.zeros(3, 4)).shape == (0, 4)
    for seed in range(5):  # another way to the same boxes: labelled pixels
        noise = torch.rand(40, 50, generator=torch.Generator().manual_seed(seed))
        scaled = ((noise - noise.min()) / (noise.max() - noise.min())).numpy()
        levels = ((scaled >= level / 10).astype("uint8") for level in range(1, 10))
        boxes = {tuple(row[:4]) for level in levels for row in cv2.connectedComponentsWithStats(level)[2][1:].tolist()}
        assert {tuple(row) for row in decisions.heat_boxes(noise).int().tolist()} == boxes


# ---- inputs


def test_caption_cleaning() -> None:
    assert clean_caption("The Man's left-hand, (red) T-shirt!! #1 / <person>\n", 50) == (
        "the mans left hand red t shirt 1 person"
    )
    assert clean_caption("$5 & [x]  y", 3) == "$5 & [x]"


def test_tokens(vocabulary: Path) -> None:
    method = tiny(tokenizer=str(vocabulary), vocab_size=None, max_tokens=5)
    ids, pad = method.tokenize(["red man shirt", "man"])
    assert ids.tolist() == [[2, 6, 5, 7], [2, 5, 0, 0]]  # no [SEP]
    assert pad.tolist() == [[False] * 4, [False, False, True, True]]
    assert (method.words.cls_id, method.words.mask_id, method.words.vocab_size) == (2, 4, 66)
    with pytest.raises(UserError, match=r"method\.tokenizer"):
        tiny().tokenize(["man"])


def test_training_captions_are_cut_in_word_pieces(vocabulary: Path) -> None:
    tokenizer = WordPiece.from_file(vocabulary, sep=False)
    text = "the red xyz on ä ball hand"
    whole = tokenizer.pieces(text)
    for count in range(1, len(whole) + 2):
        assert tokenizer.pieces(tokenizer.truncate(text, count)) == whole[:count]


def white_box_sample(box: tuple[int, int, int, int], size: tuple[int, int] = (60, 90)) -> Sample:
    """Black but for a white rectangle x1, y1, x2, y2."""
    x1, y1, x2, y2 = box
    image = torch.zeros(3, *size, dtype=torch.uint8)
    image[:, y1:y2, x1:x2] = 255
    boxes = tv_tensors.BoundingBoxes(torch.tensor([box]).float(), format="XYXY", canvas_size=size)  # type: ignore[call-overload]
    return {"image": tv_tensors.Image(image), "boxes": boxes, "text": "The LEFT man", "key": "k"}


@pytest.mark.parametrize("augmentation", ["amc", "albef"])
def test_masks_follow_the_image(augmentation: str, vocabulary: Path) -> None:
    method = tiny(tokenizer=str(vocabulary), vocab_size=None, image_size=96, augmentation=augmentation)
    transform = method.train_transform()
    present = 0
    for seed in range(40):
        torch.manual_seed(seed)
        out = transform(white_box_sample((30, 18, 69, 45)))
        assert out["image"].shape == (3, 96, 96) and len(out["boxes"]) == len(out["masks"]) <= 1
        if not len(out["masks"]):
            continue
        present += 1
        mask = out["masks"][0].bool()
        image = out["image"].as_subclass(Tensor).mean(0)
        bright = image.min() + 0.85 * (image.max() - image.min())  # what a rotation uncovers is gray
        wrong = ((image > bright) != mask).float().mean()
        assert wrong < (0.03 if augmentation == "amc" else 0.08), seed
        x1, y1, x2, y2 = out["boxes"][0].int().tolist()
        assert mask[y1:y2, x1:x2].any(0).all() and not mask[:y1].any() and not mask[:, x2:].any()
    assert present == 40 if augmentation == "amc" else present > 30


def test_flipped_text(vocabulary: Path) -> None:
    seen = set()
    for swap in (False, True):
        transform = tiny(tokenizer=str(vocabulary), vocab_size=None, swap_left_right=swap).train_transform()
        for seed in range(12):
            torch.manual_seed(seed)
            out = transform(white_box_sample((0, 0, 30, 60)))
            flipped = float(out["boxes"][0, 0]) > 0
            seen.add((swap, flipped))
            assert out["text"] == ("the right man" if swap and flipped else "the left man")
    assert len(seen) == 4


def test_the_augmentation_without_colours_only_flips(vocabulary: Path) -> None:
    method = tiny(tokenizer=str(vocabulary), vocab_size=None, augmentation="flip")
    transform = method.train_transform()
    sample = white_box_sample((4, 4, 12, 20), (32, 32))
    sample["image"][0, :, :] = 200
    plain = method.train_transform().normalise(sample)["image"]  # type: ignore[attr-defined]
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        out = transform(sample)
        flipped = float(out["boxes"][0, 0]) != 4
        torch.testing.assert_close(out["image"], plain.flip(-1) if flipped else plain)
        assert out["boxes"].tolist() == [[20, 4, 28, 20] if flipped else [4, 4, 12, 20]]
        seen.add(flipped)
    assert seen == {True, False}


def test_initial_weights_have_the_deviation_asked_for() -> None:
    for options, expected in (({}, 0.02), ({"init_std": 0.07}, 0.07)):
        network = tiny(vision_width=128, text_width=128, **options).network
        for weight in (
            network.visual_encoder.blocks[0].mlp.fc1.weight,
            network.visual_encoder.pos_embed,
            network.text_encoder.bert.encoder.layer[3].crossattention.self.key.weight,
        ):
            assert math.isclose(float(weight.detach().std()), expected, rel_tol=0.1)


def test_plain_albef_is_a_row_of_its_own() -> None:
    assert (tiny().variant, tiny(mask_consistency=False).variant) == ("", "without mask consistency")


def test_boxes_of_an_entry(vocabulary: Path) -> None:
    boxes = torch.tensor([[-5.0, 3, 20.9, 80], [12.4, 3, 12.6, 9], [100, 100, 120, 130]])
    cut = clamp_boxes(boxes, (60, 90))
    assert cut.tolist() == [[0, 3, 20, 60], [12, 3, 12, 9], [89, 59, 90, 60]]
    draws = iter([1, 1, 2])
    assert choose_box(cut, lambda count: next(draws)) == 2  # an empty box is drawn again
    assert choose_box(cut[[1]], lambda count: 0) == 0  # unless there is no other
    transform = tiny(tokenizer=str(vocabulary), vocab_size=None).train_transform()
    sample = white_box_sample((0, 0, 1, 1))
    sample["boxes"] = tv_tensors.wrap(boxes[[1]], like=sample["boxes"])
    out = transform(sample)
    assert out["boxes"].shape == (0, 4) and out["masks"].shape == (0, 32, 32)
    union = tiny(tokenizer=str(vocabulary), vocab_size=None, mask_all=True).train_transform()
    sample = white_box_sample((0, 0, 10, 10))
    two = torch.tensor([[0.0, 0, 45, 60], [45, 30, 90, 60]])
    sample["boxes"] = tv_tensors.wrap(two, like=sample["boxes"])
    assert int(union(sample)["masks"].sum()) == 32 * 32 * 3 // 4


def test_saturation_quirk() -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(90, 140, (16, 16, 3), dtype=np.uint8)

    def spread(array: np.ndarray) -> float:
        array = array.astype(float)
        return float((1 - array.min(-1) / array.max(-1).clip(1)).mean())

    neutral = (1.0, 1.0, 1.0, 0.0)
    assert spread(colour_jitter(image, neutral)) > 0.99  # nearly pure colours
    assert abs(spread(colour_jitter(image, neutral, fix_saturation=True)) - spread(image)) < 0.02


def test_random_operations_cover_the_list() -> None:
    image = torch.randint(50, 200, (3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(1, 40, 40, dtype=torch.uint8)
    masks[:, 10:30, 10:30] = 1
    for name in RandAugment.OPERATIONS:
        moved, moved_masks = RandAugment().apply(name, image, masks)
        assert moved.shape == image.shape and moved.dtype == torch.uint8
        geometric = name.startswith(("shear", "translate", "rotate"))
        assert torch.equal(moved_masks, masks) != geometric
        assert torch.equal(moved, image) == (name == "identity")
    torch.manual_seed(0)
    assert augment_crop(image, masks, 24)[0].shape == (3, 24, 24)
