"""SimVG: official numbers, both branches, distillation by hand, token branch alone, errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from hydra.utils import instantiate
from safetensors import safe_open

from vgbench import optim
from vgbench.bench.combination import output_speeds, output_times
from vgbench.bench.measure import Setting
from vgbench.checkpoints.names import export_mapped
from vgbench.cli.main import main
from vgbench.config.compose import compose
from vgbench.conform.case import Case
from vgbench.conform.compare import compare
from vgbench.core.errors import UserError
from vgbench.data.leakage import SeenImages
from vgbench.layers.boxes import cxcywh_to_xyxy
from vgbench.methods.alvg import ALVG
from vgbench.methods.beit3.criterion import Targets
from vgbench.methods.simvg import SimVG, conformance
from vgbench.methods.simvg.loss import distillation_targets
from vgbench.training import weights
from vgbench.training.data import TrainingSet
from vgbench.training.start import start_from
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
}


def test_a_changed_weight_fails():
    case = Case(HERE / "conformance" / "simvg-rec-onestage-a2")
    case.weights["head.input_cls_proj.bias"] += 0.05
    result = compare(conformance.run(case), case.expected, case.spec)
    assert "pred_boxes_token" in result.failures and "loss.total" in result.failures
    assert "pred_boxes_decoder" not in result.failures  # the branches are separate


def tiny_batch(rows: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(2, rows, 2, generator=generator) * 30
    ids = torch.tensor([[0, 4, 5, 2, 1, 1], [0, 6, 7, 8, 9, 2]])
    return Batch(
        image=torch.randn(2, 3, 64, 64, generator=generator),
        text_ids=ids,
        text_pad=ids == 1,
        boxes=torch.cat([corner, corner + 20], -1),
        valid=torch.ones(2, rows, dtype=torch.bool),
        geometry=[Geometry((0.5, 0.25), (0.0, 0.0), (256, 128), (64, 64))] * 2,
    )


def test_distillation_targets_by_hand():
    logits = torch.tensor([[[0.0, 0.0], [2.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]])
    boxes = torch.tensor([[[0.9, 0.9, 0.1, 0.1], [0.5, 0.5, 0.2, 0.4]], [[0.2, 0.2, 0.2, 0.2], [0.9, 0.9, 0.1, 0.1]]])
    truth = Targets(
        torch.tensor([[[0.5, 0.5, 0.4, 0.4], [0.0, 0.0, 0.0, 0.0]], [[0.2, 0.2, 0.2, 0.2], [0.9, 0.9, 0.1, 0.1]]]),
        torch.tensor([[True, False], [True, True]]),
    )
    taught, weight, mean = distillation_targets(logits, boxes, truth, torch.tensor([[1, -1], [0, 1]]))
    p = torch.tensor([2.0, 1.0]).sigmoid()
    wanted = torch.tensor([[p[0] * 0.5, 0.0], [p[1], 0.5]])
    torch.testing.assert_close(weight, wanted, atol=1e-4, rtol=0)
    assert mean.item() == pytest.approx(wanted.sum().item() / 3, abs=1e-4)  # over the pairs of the batch
    assert taught.valid.tolist() == [[True, False], [True, True]]
    torch.testing.assert_close(taught.boxes[0, 0], boxes[0, 1])


def test_a_batch_without_targets_trusts_the_truth():
    method = SimVG(**TINY, num_queries=3)
    batch = tiny_batch()
    batch.valid[:] = False
    losses = method(batch)
    losses["total"].backward()
    assert losses["loss_distill_w"] == 0 and losses["loss_kd"] == 0 and losses["loss_tgt"] > 0
    assert all(torch.isfinite(p.grad).all() for p in method.trainable())


def test_the_teacher_gets_no_gradient_from_its_pupil():
    method = SimVG(**TINY, decoder_weight=0.0)
    method(tiny_batch())["total"].backward()
    trained = {id(parameter) for parameter in method.trainable()}
    for name, parameter in method.named_parameters():
        assert (parameter.grad is None) == name.startswith(("image_proj.", "decoder.", "decoder_head.")), name
        assert (id(parameter) in trained) == (parameter.grad is not None), name


def test_stage_one_leaves_the_token_branch_alone():
    method = SimVG(**TINY, token_weight=0.0, distill_weight=0.0)
    losses = method(tiny_batch())
    losses["total"].backward()
    torch.testing.assert_close(losses["total"], losses["loss_dgt"])
    assert not any(name.startswith("token") for name in losses)
    trained = {id(parameter) for parameter in method.trainable()}
    for name, parameter in method.named_parameters():
        idle = name.startswith(("cls_proj.", "token_proj.", "token_head."))
        assert (parameter.grad is None) == idle and (id(parameter) in trained) != idle, name
    assert method.outputs == ("decoder",)


def test_it_learns_one_batch():
    torch.manual_seed(0)
    method = SimVG(**TINY, drop_path=0.0)
    batch = tiny_batch()
    optimizer = optim.build_optimizer(method.param_groups(2e-3), optim.FusedAdam)
    totals = []
    for _ in range(30):
        losses = method(batch)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        totals.append(losses["total"].item())
    assert totals[-1] < 0.6 * totals[0]


def test_bfloat16_stays_close():
    method = SimVG(**TINY, num_queries=4).eval()
    batch = tiny_batch(rows=2)
    exact = method(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = method(batch)
    for name, value in exact.items():
        assert rough[name].dtype == torch.float32 and abs(rough[name] - value) < 0.05 * abs(value) + 0.05, name


def test_the_training_step_is_one_graph():
    method = SimVG(**TINY).eval()
    batch = tiny_batch()
    compiled = torch.compile(method, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch)["total"], method(batch)["total"])


@pytest.mark.parametrize("case", ["simvg-steps-a", "simvg-steps-a2"])
def test_parameter_groups_are_the_official_ones(case, conformance_case):
    spec = Case(conformance_case(case)).spec
    method = conformance.build(spec)
    theirs = {entry.ours: entry.official for entry in method.official_names()}
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    idle = set(spec["no_gradient"]["names"])
    for group in method.param_groups(spec["recipe"]["lr"]["rest"]):
        wanted = spec["param_groups"][group["name"]]
        ours = {official for parameter in group["params"] for official in theirs[names[id(parameter)]]}
        assert ours == set(wanted["names"]) - idle
        assert group["lr"] == pytest.approx(wanted["lr"])


def test_both_branches_predict_in_original_pixels():
    method = SimVG(**TINY).eval()
    batch = tiny_batch()
    with torch.no_grad():
        out = method.network(batch, ("decoder", "token"))
        sets = method.predict(batch)
        alone = method.predict(batch, ["token"])
    assert set(sets) == {"decoder", "token"} == set(method.outputs) and set(alone) == {"token"}
    for name, predictions in sets.items():
        network = cxcywh_to_xyxy(getattr(out, name).boxes[-1, 1]) * 64
        wanted = network.clamp(0, 64) / torch.tensor([0.5, 0.25, 0.5, 0.25])
        torch.testing.assert_close(predictions[1].boxes, wanted)
        assert predictions[1].no_target is None
    torch.testing.assert_close(alone["token"][0].boxes, sets["token"][0].boxes)
    assert not torch.equal(sets["token"][0].boxes, sets["decoder"][0].boxes)


def test_multi_target_predictions_keep_every_box():
    method = SimVG(**TINY, num_queries=5).eval()
    with torch.no_grad():
        prediction = method.predict(tiny_batch())["token"][0]
    assert len(prediction.boxes) == 5 and isinstance(prediction.no_target, bool)
    assert prediction.no_target == (prediction.scores.max().item() < 0.7)


def test_padding_limits_the_boxes_and_is_not_attended_to():
    method = SimVG(**TINY).eval()
    batch = tiny_batch()
    batch.image_pad = torch.zeros(2, 64, 64, dtype=torch.bool)
    batch.image_pad[1, :, 32:] = True
    with torch.no_grad():
        out = method.network(batch, ("decoder",))
    assert out.size.tolist() == [[64.0, 64.0], [32.0, 64.0]]
    with torch.no_grad():
        free = method.network(tiny_batch(), ("decoder",))
    torch.testing.assert_close(out.decoder.boxes[:, 0], free.decoder.boxes[:, 0])
    assert not torch.allclose(out.decoder.boxes[:, 1], free.decoder.boxes[:, 1])


def test_the_token_branch_runs_alone(tmp_path):
    whole = SimVG(**TINY).eval()
    weights.save(whole.state_dict(), {}, tmp_path / "model.safetensors")
    alone = SimVG(**TINY, branches=["token"]).eval()
    assert alone.outputs == ("token",)
    assert not any(name.startswith(("decoder", "image_proj")) for name in alone.state_dict())
    weights.load(alone, tmp_path / "model.safetensors")
    batch = tiny_batch()
    with torch.no_grad():
        a, b = whole.predict(batch)["token"][0], alone.predict(batch)["token"][0]
    torch.testing.assert_close(a.boxes, b.boxes)
    with pytest.raises(UserError, match=r"method.branches"):
        alone(batch)
    with pytest.raises(UserError, match=r"method.branches=\['both'\]"):
        SimVG(**TINY, branches=["both"])


def test_the_token_branch_is_exported_alone(tmp_path, capsys):
    whole = SimVG(**TINY).eval()
    run = tmp_path / "run"
    run.mkdir()
    weights.save(whole.state_dict(), {"_target_": "vgbench.methods.simvg.SimVG", **TINY}, run / "model.safetensors")
    file = tmp_path / "simvg-tb.safetensors"
    assert main(["export", str(run), str(file), "method.branches=[token]"]) == 0
    with safe_open(file, framework="pt") as exported:
        names = set(exported.keys())
    assert names == set(whole.state_dict()) - {
        name for name in whole.state_dict() if name.startswith(("decoder.", "decoder_head.", "image_proj."))
    }
    node = weights.method_config(file)
    assert node["branches"] == ["token"] and node["encoder_width"] == TINY["encoder_width"]
    alone = instantiate(node).eval()
    weights.load(alone, file)
    with torch.no_grad():
        (wanted, _), (found, _) = (method.predict(tiny_batch())["token"] for method in (whole, alone))
    torch.testing.assert_close(found.boxes, wanted.boxes)


def test_each_branch_is_timed_alone():
    method = SimVG(**TINY).eval()
    ran = []
    predict = method.predict
    method.predict = lambda batch, outputs: ran.append(tuple(outputs)) or predict(batch, outputs)
    times = output_times(method, tiny_batch(), Setting(torch.device("cpu"), torch.float32, 1, 2))
    assert ran == [("decoder",), ("token",)] * 3 and [len(seconds) for seconds in times.values()] == [2, 2]
    speeds = output_speeds(method, {"decoder": [1.0, 2.0, 9.0], "token": [0.5, 1.0, 0.5]}, 4)
    assert speeds == {
        "inference samples/s, SimVG-DB": 2.0,
        "inference samples/s, SimVG-TB": 8.0,
        "SimVG-TB against SimVG-DB": "+100.0%",
    }


def test_weights_of_another_image_size_are_adapted(tmp_path):
    small, large = SimVG(**TINY), SimVG(**{**TINY, "image_size": 96})
    weights.save(small.state_dict(), {}, tmp_path / "model.safetensors")
    weights.load(large, tmp_path / "model.safetensors")
    assert large.encoder.vision_position.weight.shape[0] == 6 * 6 + 3
    assert torch.equal(large.encoder.vision_position.weight[:3], small.encoder.vision_position.weight[:3])
    with torch.no_grad():
        assert len(large.eval().predict(replace(tiny_batch(), image=torch.randn(2, 3, 96, 96)))["decoder"]) == 2


def test_official_weights_of_another_image_size_are_adapted():
    """The official loader stops where pre-training was at 512 and fine-tuning is at 640 pixels."""
    small, large = SimVG(**TINY), SimVG(**{**TINY, "image_size": 96})
    official = export_mapped(small.state_dict(), small.official_names())
    report = large.load_official(official)
    (name,) = report.adapted
    assert name == "vis_enc.beit3.encoder.embed_positions.A.weight" and not report.unused
    table = small.encoder.vision_position.weight[3:].detach().T.reshape(1, -1, 4, 4)
    wanted = torch.nn.functional.interpolate(table, (6, 6), mode="bicubic", align_corners=False)
    torch.testing.assert_close(large.encoder.vision_position.weight[3:].T.reshape(1, -1, 6, 6), wanted)


def test_a_next_stage_starts_from_the_raw_weights(tmp_path):
    """Evaluation takes the moving average, training the weights without it: of a run and of an official file."""
    raw, average = SimVG(**TINY), SimVG(**TINY)
    run = tmp_path / "stage1"
    weights.save(raw.state_dict(), {}, run / "model.raw.safetensors")
    weights.save(average.state_dict(), {}, run / "model.safetensors")
    official = {"state_dict": raw, "ema_state_dict": average}
    keys = raw.official_names()
    torch.save({name: export_mapped(m.state_dict(), keys) for name, m in official.items()}, tmp_path / "det_best.pth")
    for spec in (run, tmp_path / "det_best.pth", run / "model.safetensors"):
        method = SimVG(**TINY)
        config = compose([f"weights={spec}", "method=simvg", "dataset=refcoco"])
        start_from(config, method, Mock(spec=TrainingSet, sources=(), seen=SeenImages([])), run)
        wanted = average if spec.name == "model.safetensors" else raw
        assert torch.equal(method.text_proj.weight, wanted.text_proj.weight), spec
        weights.load(method, weights.resolve(str(spec)))
        assert torch.equal(method.text_proj.weight, average.text_proj.weight), spec


def test_the_encoder_of_another_method_fits(tmp_path):
    sizes = {name: value for name, value in TINY.items() if name != "image_size"}
    alvg, simvg = ALVG(**TINY, mask_channels=8), SimVG(**sizes, image_size=96)
    weights.save(alvg.state_dict(), {}, tmp_path / "model.safetensors", half=True)
    before = simvg.text_proj.weight.clone()
    report = simvg.load_pretrained(tmp_path / "model.safetensors")
    assert report.adapted == ("encoder.vision_position.weight",)
    assert all(name.startswith("encoder.") for name in report.used) and "head.class_embed.weight" in report.unused
    torch.testing.assert_close(simvg.encoder.text_embed.weight, alvg.encoder.text_embed.weight, atol=1e-3, rtol=1e-3)
    assert torch.equal(simvg.text_proj.weight, before)

    fresh = SimVG(**sizes, image_size=96, position_std=5.0)
    report = fresh.load_pretrained(tmp_path / "model.safetensors")
    assert report.adapted == () and "encoder.vision_position.weight" in report.unused
    assert fresh.encoder.vision_position.weight.std().item() == pytest.approx(5.0, rel=0.2)
    torch.testing.assert_close(fresh.encoder.text_embed.weight, simvg.encoder.text_embed.weight)


def test_the_pooling_that_was_meant_is_an_option():
    torch.manual_seed(0)
    official, meant = SimVG(**TINY).eval(), SimVG(**TINY, text_pooling="valid").eval()
    meant.load_state_dict(official.state_dict())
    batch = tiny_batch()
    with torch.no_grad():
        a, b = official.network(batch, ("token",)), meant.network(batch, ("token",))
        text = meant.text_proj(a.encoded.text)
    torch.testing.assert_close(b.text_pool[0], text[0, :4].amax(0))
    torch.testing.assert_close(a.text_pool[0], text[0, 4:].amax(0))
