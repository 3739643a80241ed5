"""ALVG: official numbers, losses by hand, predictions in original pixels, transforms, errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
from pycocotools import mask as coco_mask
from scipy.optimize import linear_sum_assignment
from torchvision import tv_tensors

from vgbench import optim
from vgbench.conform.case import Case
from vgbench.conform.compare import compare
from vgbench.core.errors import UserError
from vgbench.layers.boxes import cxcywh_to_xyxy, giou, pairwise
from vgbench.layers.matcher import match
from vgbench.methods.alvg import ALVG, conformance, loss
from vgbench.methods.alvg.model import ImageEnhancement
from vgbench.methods.beit3.criterion import SetCriterion, Targets, mean_over_processes
from vgbench.methods.beit3.heads import detections, ranked_predictions
from vgbench.methods.beit3.queries import pool_text
from vgbench.methods.beit3.transforms import LargeScaleJitter, stretched
from vgbench.training import weights
from vgbench.types import Batch, Geometry

HERE = Path(__file__).parents[2]
TINY = {
    "image_size": 64,
    "patch_size": 16,
    "max_tokens": 6,
    "encoder_width": 16,
    "encoder_layers": 2,
    "encoder_heads": 2,
    "encoder_ffn": 32,
    "vocab_size": 30,
    "max_text_positions": 10,
    "width": 16,
    "heads": 2,
    "ffn": 32,
    "query_ffn": 16,
    "mask_channels": 8,
}


def test_a_changed_weight_fails():
    case = Case(HERE / "conformance" / "alvg-grec-a")
    case.weights["head.transformer.decoder.layers.1.norm3.weight"] += 0.05
    result = compare(conformance.run(case), case.expected, case.spec)
    assert "pred_boxes_all" in result.failures and "loss.total" in result.failures
    assert "memory" not in result.failures and "pred_boxes" not in result.failures  # layers are not chained


def tiny_batch(size: int = 2, rows: int = 1, masks: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(size, rows, 2, generator=generator) * 30
    boxes = torch.cat([corner, corner + 10 + torch.rand(size, rows, 2, generator=generator) * 20], -1)
    pixels = torch.zeros(size, rows, 64, 64, dtype=torch.uint8)
    for i in range(size):
        for j in range(rows):
            x1, y1, x2, y2 = boxes[i, j].int().tolist()
            pixels[i, j, y1:y2, x1:x2] = 1
    ids = torch.tensor([[0, 4, 5, 2, 1, 1], [0, 6, 7, 8, 9, 2]]).repeat(size, 1)[:size]
    return Batch(
        image=torch.randn(size, 3, 64, 64, generator=generator),
        text_ids=ids,
        text_pad=ids == 1,
        boxes=boxes,
        valid=torch.ones(size, rows, dtype=torch.bool),
        masks=pixels if masks else None,
        geometry=[Geometry((0.5, 0.25), (0.0, 0.0), (256, 128), (64, 64))] * size,
    )


def test_padded_rows_change_nothing():
    method = ALVG(**TINY, num_queries=4).eval()
    batch = tiny_batch(rows=2)
    batch.valid[0, 1] = False
    wide = replace(
        batch,
        boxes=torch.nn.functional.pad(batch.boxes, (0, 0, 0, 3)),
        valid=torch.nn.functional.pad(batch.valid, (0, 3)),
        masks=torch.nn.functional.pad(batch.masks, (0, 0, 0, 0, 0, 3)),
    )
    out = method.network(batch, maps=True)
    narrow, padded = method.losses(out, batch), method.losses(out, wide)
    for name, value in narrow.items():
        torch.testing.assert_close(padded[name], value, msg=name)
    assert narrow["decoder_attention_loss"] > 0


def test_coverage_of_boxes_is_the_average_of_a_drawn_canvas():
    boxes = torch.tensor([[3.2, 10.0, 40.9, 63.4], [0.0, 0.0, 5.0, 5.5], [60.0, 1.0, 64.0, 63.0], [7.0, 7.0, 7.0, 7.0]])
    for box, coverage in zip(boxes, loss.box_coverage(boxes, 64, 4), strict=True):
        canvas = np.zeros((64, 64))
        x1, y1, x2, y2 = box.tolist()
        canvas[int(np.floor(y1)) : int(np.ceil(y2)) + 1, int(np.floor(x1)) : int(np.ceil(x2)) + 1] = 1
        wanted = canvas.reshape(4, 16, 4, 16).mean((1, 3))
        np.testing.assert_allclose(coverage.numpy(), wanted, atol=1e-6)


def test_overlap_map_by_hand():
    masks = torch.zeros(2, 2, 4, 4, dtype=torch.uint8)
    masks[0, 0, :2, :2] = 1  # fills one cell of the 2 x 2 grid
    masks[0, 1, :2] = 1  # fills the two upper cells
    maps = loss.attention_targets(torch.zeros(2, 2, 4), masks, torch.tensor([[True, True], [False, False]]), 4, 2)
    # max over targets of cov / area: (max(1/1, 1/2), max(0, 1/2)), divided by two targets; the lower cells share -1
    torch.testing.assert_close(maps.overlap[0], torch.tensor([[0.5, 0.25], [-0.5, -0.5]]))
    torch.testing.assert_close(maps.overlap[1], torch.full((2, 2), -0.25))  # no target
    torch.testing.assert_close(maps.focus[0, 1], torch.tensor([[1.0, 1.0], [0.0, 0.0]]))


def test_an_empty_mask_counts_as_absent():
    method = ALVG(**TINY, num_queries=4).eval()
    batch = tiny_batch(rows=2)
    batch.masks[0, 1] = 0
    out = method.network(batch, maps=True)
    losses = method.losses(out, batch)
    assert all(torch.isfinite(value) for value in losses.values())
    absent = replace(batch, valid=torch.tensor([[True, False], [True, True]]))
    torch.testing.assert_close(losses["score_attention_loss"], method.losses(out, absent)["score_attention_loss"])


def test_a_batch_without_targets_has_finite_gradients():
    method = ALVG(**TINY, num_queries=3).train()
    batch = tiny_batch()
    batch = replace(batch, valid=torch.zeros_like(batch.valid), masks=torch.zeros_like(batch.masks))
    losses = method(batch)
    losses["total"].backward()
    assert losses["decoder.loss_bbox"] == 0 and losses["decoder.loss_class"] > 0
    assert losses["decoder_attention_loss"] == 0 and losses["score_attention_loss"] > 0
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.trainable())


def test_mask_target_is_one_only_where_all_contributing_pixels_are():
    masks = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    masks[0, 0, 1:3, 1:3] = 1  # the four central pixels of the first 4 x 4 block
    masks[0, 0, 4:8, 9] = 1  # one of two central columns of another
    target = loss.mask_target(masks, torch.ones(1, 1, dtype=torch.bool), (4, 4))
    wanted = torch.zeros(4, 4)
    wanted[0, 0] = 1
    assert torch.equal(target[0], wanted)


def test_a_constant_image_has_a_finite_score():
    module = ImageEnhancement(8)
    image = torch.ones(1, 4, 8, requires_grad=True)
    memory, score = module.eval()(image, torch.ones(1, 8))
    memory.sum().backward()
    torch.testing.assert_close(score, torch.ones(1, 4), atol=0.2, rtol=0)
    assert torch.isfinite(image.grad).all()


def test_matching_agrees_with_scipy_sample_by_sample():
    torch.manual_seed(0)
    logits, boxes = torch.randn(2, 4, 5, 2), torch.rand(2, 4, 5, 4) * 0.5 + 0.1
    targets, valid = torch.rand(4, 7, 4) * 0.5 + 0.1, torch.rand(4, 7) > 0.4
    valid[0], valid[1] = False, True  # no target; more targets than queries
    assignment = match(logits, boxes, targets, valid)
    for k in range(2):
        for b in range(4):
            columns = valid[b].nonzero()[:, 0]
            wanted = targets[b, columns]
            cost = 5 * torch.cdist(boxes[k, b], wanted, p=1) - logits[k, b].softmax(-1)[:, :1]
            cost -= 2 * giou(*pairwise(cxcywh_to_xyxy(boxes[k, b]), cxcywh_to_xyxy(wanted)), eps=1e-6)
            rows, picked = linear_sum_assignment(cost.numpy())
            expected = torch.full((7,), -1)
            expected[columns[torch.from_numpy(picked)]] = torch.from_numpy(rows)
            assert torch.equal(assignment[k, b], expected)
    single = match(logits, boxes, targets[:, :1], valid[:, :1])
    padded = match(logits, boxes, targets, torch.cat([valid[:, :1], torch.zeros(4, 6, dtype=torch.bool)], 1))
    assert torch.equal(single, padded[..., :1])  # the argmin on the device and the solver agree


def test_set_criterion_by_hand():
    logits = torch.tensor([[[[2.0, 0.0], [0.0, 1.0]]]])  # K = B = 1, Q = 2
    boxes = torch.tensor([[[[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]]]])
    targets = Targets(torch.tensor([[[0.5, 0.5, 0.4, 0.2]]]), torch.ones(1, 1, dtype=torch.bool))
    terms = SetCriterion()(logits, boxes, targets)
    first, second = np.log(1 + np.exp(-2)), np.log(1 + np.exp(-1))
    assert terms["loss_class"].item() == pytest.approx((first + 0.1 * second) / 1.1, rel=1e-5)
    assert terms["loss_bbox"].item() == pytest.approx(5 * 0.2, rel=1e-5)
    assert terms["loss_giou"].item() == pytest.approx(2 * (1 - 0.5), rel=1e-4)  # half of the hull, no gap


def test_the_number_of_targets_is_averaged_over_processes(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda count: count.add_(5))
    assert mean_over_processes(torch.tensor(2)) == 3.5
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda count: count)
    assert mean_over_processes(torch.tensor(1)) == 1


def test_text_pooling_reads_the_last_two_positions():
    text = torch.tensor([[[5.0], [1.0], [2.0], [3.0]], [[9.0], [8.0], [4.0], [3.0]]])
    pad = torch.tensor([[False, False, False, False], [False, False, True, True]])
    assert pool_text(text, pad).flatten().tolist() == [3.0, 4.0]
    assert pool_text(text, pad, "valid").flatten().tolist() == [5.0, 9.0]


def test_it_learns_one_batch():
    torch.manual_seed(0)
    method = ALVG(**TINY, drop_path=0.0)
    batch = tiny_batch()
    optimizer = optim.build_optimizer(method.param_groups(2e-3), optim.FusedAdam)
    first = last = 0.0
    for _ in range(60):
        losses = method(batch)
        optimizer.zero_grad()
        losses["total"].backward()
        optim.clip_gradients(optimizer, 1.0)
        optimizer.step()
        last = (losses["loss_dgt"] + losses["loss_mask"]).item()
        first = first or last
    assert last < 0.5 * first
    boxes = method.eval().predict(batch)["main"]
    truth = batch.geometry[0].to_original(batch.boxes[0])
    assert giou(boxes[0].boxes, truth).item() > 0.3


def test_bfloat16_stays_close_and_finite():
    method = ALVG(**TINY, num_queries=4).eval()
    batch = tiny_batch(rows=2)
    exact = method(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = method(batch)
    for name, value in exact.items():
        assert rough[name].dtype == torch.float32 and abs(rough[name] - value) < 0.05 * abs(value) + 0.05, name
    method.train()
    with torch.autocast("cpu", torch.bfloat16):
        method(batch)["total"].backward()
    assert all(torch.isfinite(p.grad).all() for p in method.trainable())


def test_the_training_step_is_one_graph():
    method = ALVG(**TINY).eval()
    batch = tiny_batch()
    compiled = torch.compile(method, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch)["total"], method(batch)["total"])


def test_parameter_groups_are_the_official_ones(conformance_case):
    spec = Case(conformance_case("alvg-steps-a")).spec
    method = conformance.build(spec)
    theirs = {entry.ours: entry.official for entry in method.official_names()}
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    idle = set(spec["no_gradient"]["names"])
    for group in method.param_groups(spec["recipe"]["lr"]["rest"]):
        wanted = spec["param_groups"][group["name"]]
        ours = {official for parameter in group["params"] for official in theirs[names[id(parameter)]]}
        assert ours == set(wanted["names"]) - idle
        assert group["lr"] == pytest.approx(wanted["lr"])


def test_parameters_that_cannot_learn_are_left_out():
    method = ALVG(**TINY, masks=False)
    trained = {id(parameter) for parameter in method.trainable()}
    left = {name for name, parameter in method.named_parameters() if id(parameter) not in trained}
    assert left and all(name.startswith("mask_head.") for name in left)
    method(tiny_batch(masks=False))["total"].backward()
    assert {name for name, parameter in method.named_parameters() if parameter.grad is None} == left


def test_boxes_only_training_ignores_masks():
    method = ALVG(**TINY, masks=False).eval()
    batch = tiny_batch()
    with_masks, without = method(batch), method(replace(batch, masks=None))
    assert with_masks["total"] == without["total"] and with_masks["loss_mask"] == 0
    assert method.predict(batch)["main"][0].mask is None


def test_single_target_predictions():
    method = ALVG(**TINY).eval()
    batch = tiny_batch()
    with torch.no_grad():
        out = method.network(batch)
        predictions = method.predict(batch)["main"]
    for i, prediction in enumerate(predictions):
        network = cxcywh_to_xyxy(out.boxes[-1, i]) * 64
        wanted = network.clamp(0, 64) / torch.tensor([0.5, 0.25, 0.5, 0.25])
        torch.testing.assert_close(prediction.boxes, wanted)
        assert prediction.no_target is None and prediction.scores.shape == (1,)
        torch.testing.assert_close(prediction.heatmap, out.score[i])
        assert prediction.mask["size"] == [256, 128] and prediction.canvas_mask["size"] == [64, 64]
        probability = torch.nn.functional.interpolate(out.mask[i, None, None], (256, 128), mode="bilinear")[0, 0]
        np.testing.assert_array_equal(coco_mask.decode(prediction.mask), (probability >= 0.5).numpy())


def test_the_heat_map_is_the_decoder_attention_without_enhancement():
    method = ALVG(**TINY, enhance=False).eval()
    with torch.no_grad():
        heatmap = method.predict(tiny_batch())["main"][0].heatmap
    assert heatmap.shape == (4, 4) and heatmap.sum().item() == pytest.approx(1.0, abs=1e-4)


def test_multi_target_decisions():
    frame = [Geometry((2.0, 2.0), (0.0, 0.0), (50, 50), (100, 100))] * 2
    logits = torch.tensor([[[0.0, 3.0], [3.0, 0.0], [2.0, 0.0]], [[0.0, 0.0], [0.8, 0.0], [0.0, 1.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.9, 0.5, 0.4, 0.2], [0.0, 0.5, 0.0, 0.5]]] * 2)
    found, scores = detections(logits, boxes, torch.tensor([100, 100]))
    several, none = ranked_predictions(found, scores, frame, keep_all=True, no_target_below=0.7)
    assert several.no_target is False and none.no_target is True  # best scores 0.95 and 0.69
    # the last box of each sample has no area and is gone; the first listed is clipped at the right edge
    torch.testing.assert_close(several.boxes, torch.tensor([[35.0, 20.0, 50.0, 30.0], [20.0, 20.0, 30.0, 30.0]]))
    assert several.scores.tolist() == sorted(several.scores.tolist(), reverse=True)


def test_a_single_target_always_gets_a_box():
    frame = [Geometry((1.0, 1.0), (0.0, 0.0), (10, 10), (10, 10))]
    boxes, scores = detections(
        torch.tensor([[[1.0, 0.0], [2.0, 0.0]]]), torch.tensor([[[0.5, 0.5, 0.0, 0.0]] * 2]), torch.tensor([10, 10])
    )
    prediction = ranked_predictions(boxes, scores, frame, keep_all=False, no_target_below=None)[0]
    assert prediction.boxes.tolist() == [[5.0, 5.0, 5.0, 5.0]] and prediction.no_target is None


def test_own_weights_round_trip_and_fit_another_image_size(tmp_path):
    small = ALVG(**TINY)
    weights.save(small.state_dict(), {"image_size": 64}, tmp_path / "model.safetensors")
    again = ALVG(**TINY)
    weights.load(again, tmp_path / "model.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(small.state_dict().values(), again.state_dict().values(), strict=True))
    large = ALVG(**{**TINY, "image_size": 96})
    weights.load(large, tmp_path / "model.safetensors")
    assert torch.equal(large.encoder.vision_position.weight[:3], small.encoder.vision_position.weight[:3])
    with pytest.raises(UserError, match="does not fit"):
        weights.load(ALVG(**{**TINY, "width": 32}), tmp_path / "model.safetensors")


def raw(height: int = 40, width: int = 80, box: tuple[float, ...] = (10.0, 5.0, 30.0, 25.0)) -> dict:
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    boxes = tv_tensors.BoundingBoxes(torch.tensor([box]), format="XYXY", canvas_size=(height, width))
    return {"image": tv_tensors.Image(image), "boxes": boxes, "text": "The Dog's bone!", "key": "a"}


def test_the_transform_stretches_clips_and_cleans():
    sample = raw(box=(-5.0, 5.0, 90.0, 25.0)) | {"masks": tv_tensors.Mask(torch.eye(80)[None, :40].to(torch.uint8))}
    out = ALVG(**TINY).train_transform()(sample)
    assert out["image"].shape == (3, 64, 64) and out["image"].dtype == torch.float32
    torch.testing.assert_close(out["boxes"].as_subclass(torch.Tensor), torch.tensor([[0.0, 8.0, 79 * 0.8, 40.0]]))
    assert out["masks"].shape == (1, 64, 64) and out["text"] == "the dogs bone"
    assert out["geometry"] == Geometry((0.8, 1.6), (0.0, 0.0), (40, 80), (64, 64))


def test_jitter_below_one_only_rescales():
    out = LargeScaleJitter(64, draw=iter([(0.5 - 0.3) / 1.1]).__next__)(raw())
    assert out["image"].shape[-2:] == (16, 32)  # 0.5 * 64 along the longer side
    torch.testing.assert_close(out["boxes"].as_subclass(torch.Tensor), torch.tensor([[4.0, 2.0, 12.0, 10.0]]))


def test_jitter_crops_around_the_target_and_the_geometry_follows():
    draws = iter([(1.25 - 0.3) / 1.1, 0.9, 0.1, 0.1, 0.4])  # the first crop cuts the box, the second keeps it
    sample = raw()
    out = LargeScaleJitter(64, draw=draws.__next__)(sample)
    assert out["image"].shape[-2:] == (32, 64) and next(draws, None) is None
    boxes = out["boxes"].as_subclass(torch.Tensor)
    torch.testing.assert_close(boxes, torch.tensor([[10.0 - 1.6, 5.0 - 3.2, 30.0 - 1.6, 25.0 - 3.2]]))
    torch.testing.assert_close(out["geometry"].to_network(sample["boxes"].as_subclass(torch.Tensor)), boxes)


def test_jitter_falls_back_to_the_best_crop_with_its_own_offset():
    # The box spans nearly the whole height and width of the enlarged image: no crop keeps half of it.
    best, other = [0.25, 0.5], [1.0, 1.0]
    draws = iter([1.0, *other, *best, *other * 498])
    sample = raw(40, 40, (0.0, 0.0, 39.0, 39.0))
    jitter = LargeScaleJitter(64, scale=(0.3, 1.5), draw=draws.__next__)
    out = jitter(sample)
    room = 96 - 64
    shift = torch.tensor([0.25 * room, 0.5 * room] * 2)
    wanted = (torch.tensor([[0.0, 0.0, 39.0, 39.0]]) * 2.4 - shift).clamp(0, 63)
    torch.testing.assert_close(out["boxes"].as_subclass(torch.Tensor), wanted)


def test_jitter_leaves_samples_alone_that_it_cannot_crop():
    sample = raw(box=(10.0, 5.0, 10.0, 25.0))  # no width: no share of it can be kept
    out = LargeScaleJitter(64, draw=lambda: 1.0)(sample)
    assert out["image"] is sample["image"]
    empty = sample | {"boxes": tv_tensors.BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=(40, 80))}
    assert LargeScaleJitter(64)(empty) is empty


def test_random_jitter_keeps_half_of_the_box():
    transform = stretched(64, LargeScaleJitter(64))
    for seed in range(20):
        torch.manual_seed(seed)
        x1, y1, x2, y2 = transform(raw(60, 90, (20.0, 20.0, 40.0, 35.0)))["boxes"][0].tolist()
        assert 0 <= x1 < x2 <= 64 and 0 <= y1 < y2 <= 64


def test_errors_name_the_option():
    with pytest.raises(UserError, match=r"method.tokenizer is not set"):
        ALVG(**TINY).tokenize(["a dog"])
    with pytest.raises(UserError, match=r"set method.masks=false"):
        ALVG(**TINY)(tiny_batch(masks=False))
    with pytest.raises(UserError, match=r"method.jitter=true"):
        ALVG(**TINY, jitter=True)
