"""What ``vgbench conform`` runs for SimVG's cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vgbench.checkpoints.names import export_mapped
from vgbench.conform.case import Case, ModeNotOffered
from vgbench.methods.beit3.conformance import (
    batch_from_inputs,
    matched_pairs,
    method_options,
    run_preprocess,
    run_steps,
)
from vgbench.methods.beit3.criterion import Targets
from vgbench.methods.beit3.heads import detections
from vgbench.methods.beit3.queries import truncated_sine_position_1d
from vgbench.methods.simvg.loss import distillation_targets
from vgbench.methods.simvg.method import SimVG
from vgbench.methods.simvg.model import BRANCHES


def build(spec: Mapping[str, Any]) -> SimVG:
    """The model of a case.yaml."""
    weights = spec["loss"]["branch_loss_weight"]
    balanced = weights.get("balanced_distill", {})
    if set(weights) - {"decoder", "balanced_distill"} or spec["model"]["head"]["num_token_mlp_layers"] != 1:
        raise ModeNotOffered("loss keys and token MLP depths that no shipped configuration uses")
    return SimVG(
        **method_options(spec),
        decoder_weight=weights.get("decoder", 0.0),
        token_weight=balanced.get("token", 0.0),
        distill_weight=balanced.get("distill", 0.0),
    )


def run(case: Case) -> dict[str, Tensor]:
    mode = case.spec["mode"]
    if mode == "preprocess":
        with torch.device("meta"):  # only the transforms are needed
            method = SimVG(image_size=case.spec["sizes"]["image_size"], jitter=True)
        return run_preprocess(case, method)
    method = build(case.spec)
    method.load_official(case.weights)
    method = method.to(case.device).eval()
    if mode.startswith("steps"):
        return run_steps(case, method, method.official_names(), lambda batch: method(batch)["total"])
    return _run_model(case, method)


def _run_model(case: Case, method: SimVG) -> dict[str, Tensor]:
    entries = method.official_names()
    frozen = tuple(case.spec.get("frozen_prefixes") or ())
    theirs = {entry.ours: entry.official[0] for entry in entries}
    for name, parameter in method.named_parameters():
        parameter.requires_grad_(not theirs[name].startswith(frozen))
    batch = batch_from_inputs(case.inputs)
    branches = BRANCHES if method.learns_token else ("decoder",)
    out = method.network(batch, branches)
    losses = method.losses(out, batch)
    losses["total"].backward()
    assert out.decoder is not None and out.position is not None

    grid, length, width = method.encoder.grid, batch.text_ids.shape[1], out.query.shape[-1]
    position = out.position.expand(len(batch), -1, -1).transpose(1, 2).unflatten(-1, (grid, grid))
    result: dict[str, Any] = {
        "enc_img": out.encoded.image,
        "enc_text": out.encoded.text,
        "enc_cls": out.encoded.cls,
        "pos_embed_2d": position,
        "text_pos_embed": truncated_sine_position_1d(length, width),
        "tgqg_out": out.query - out.text_pool[:, None] - method.query_generator.query_embed,
        "query": out.query,
        "text_pool": out.text_pool,
        "decoder_hidden": out.decoder.hidden,
    }
    if out.token is not None:
        result["token_features"] = out.token.hidden
    for name in branches:
        branch = out.branch(name)
        result[f"pred_logits_{name}_all"], result[f"pred_logits_{name}"] = branch.logits, branch.logits[-1]
        result[f"pred_boxes_{name}_all"], result[f"pred_boxes_{name}"] = branch.boxes, branch.boxes[-1]
        boxes, scores = detections(branch.logits[-1], branch.boxes[-1], out.size)
        original = torch.stack([g.to_original(b) for g, b in zip(batch.geometry, boxes, strict=True)])
        many = method.num_queries > 1
        result[f"det_boxes_{name}"] = boxes if many else boxes[:, 0]
        result[f"det_boxes_rescaled_{name}"] = original if many else original[:, 0]
        result[f"det_scores_{name}"] = scores

    targets = Targets.from_pixels(batch.boxes, batch.valid, out.size)
    logits, boxes = out.decoder.logits[-1], out.decoder.boxes[-1]
    assignment = method.criterion.match(logits, boxes, targets)
    taught, weight, _ = distillation_targets(logits, boxes, targets, assignment)
    sample, _, target = matched_pairs(assignment)
    result["distill_match_weight"] = weight[sample, target]
    result["distill_target_boxes"] = taught.boxes[sample, target]
    result["distill_target_index"] = sample
    result |= {f"loss.{name}": value for name, value in losses.items()}
    gradients = export_mapped({name: p.grad for name, p in method.named_parameters()}, entries)
    return result | {f"grad.{name}": value for name, value in gradients.items()}
