"""What ``vgbench conform`` runs for ALVG's cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vgbench.checkpoints.names import export_mapped
from vgbench.conform.case import Case
from vgbench.methods.alvg import loss
from vgbench.methods.alvg.method import ALVG
from vgbench.methods.beit3.conformance import (
    batch_from_inputs,
    matched_pairs,
    method_options,
    run_preprocess,
    run_steps,
)
from vgbench.methods.beit3.heads import detections
from vgbench.methods.beit3.queries import truncated_sine_position_1d


def build(spec: Mapping[str, Any]) -> ALVG:
    """The model of a case.yaml."""
    head, losses = spec["model"]["head"], spec["loss"]
    return ALVG(
        **method_options(spec),
        mask_channels=head["mask_channels"],
        masks=losses["supervision"] == "masks",
        enhance=head["img_enhance"],
        score_attention_weight=losses["score_attn_loss_weight"],
        decoder_attention_weight=losses["decoder_attn_loss_weight"],
        focal_weight=losses["mask_focal_weight"],
        dice_weight=losses["mask_dice_weight"],
    )


def run(case: Case) -> dict[str, Tensor]:
    mode = case.spec["mode"]
    if mode == "metrics":
        from vgbench.conform.metrics import alvg_metrics

        return alvg_metrics(case)
    if mode == "preprocess":
        with torch.device("meta"):  # only the transforms are needed
            method = ALVG(image_size=case.spec["sizes"]["image_size"])
        return run_preprocess(case, method)
    method = build(case.spec)
    method.load_official(case.weights)
    method = method.to(case.device).eval()
    if mode.startswith("steps"):
        entries = method.official_keys()
        return run_steps(case, method, entries, lambda batch: _losses(method, batch)["total"])
    return _run_model(case, method)


def _losses(method: ALVG, batch: Any) -> dict[str, Tensor]:
    return method.losses(method.network(batch, maps=True), batch)


def _run_model(case: Case, method: ALVG) -> dict[str, Tensor]:
    batch = batch_from_inputs(case.inputs)
    grid, size = method.grid, method.image_size
    out = method.network(batch, maps=True)
    losses = method.losses(out, batch)
    losses["total"].backward()
    assert out.attention is not None

    def to_map(x: Tensor) -> Tensor:
        return x.transpose(1, 2).unflatten(-1, (grid, grid))

    position = method.position.expand(len(batch), -1, -1)
    # The boxes-only recipes leave the mask head untrained, but the official code runs it all the same.
    mask = out.mask if out.mask is not None else method.mask_head(to_map(out.memory + method.position)).sigmoid()
    boxes, scores = detections(out.logits[-1], out.boxes[-1], torch.tensor([size, size]))
    result: dict[str, Any] = {
        "enc_img": out.encoded.image,
        "enc_text": out.encoded.text,
        "enc_cls": out.encoded.cls,
        "text_pool": out.text_pool,
        "query": out.query,
        "text_pos_embed": truncated_sine_position_1d(batch.text_ids.shape[1], out.query.shape[-1]),
        "pos_embed_2d": to_map(position),
        "memory": to_map(out.memory),
        "attn_map": out.attention,
        "decoder_hidden": out.hidden,
        "pred_logits_all": out.logits,
        "pred_boxes_all": out.boxes,
        "pred_logits": out.logits[-1],
        "pred_boxes": out.boxes[-1],
        "pred_masks": mask,
        "det_boxes": boxes if method.num_queries > 1 else boxes[:, 0],
        "det_scores": scores,
        "det_masks": method.foreground(mask, (size, size)),
    }
    if out.score is not None:
        result["score"] = out.score
    maps = method.attention_targets(batch)
    result["loss_target.overlap_maps"] = maps.overlap
    result["loss_target.focus_maps"] = maps.focus[batch.valid]
    if batch.masks is not None:
        result["loss_target.masks"] = loss.mask_target(batch.masks, batch.valid, (mask.shape[-2], mask.shape[-1]))
    assignment = method.criterion.match(out.logits, out.boxes, method.targets(batch))[-1]
    pairs = matched_pairs(assignment)
    result |= dict(zip(("match_sample", "match_query", "match_target"), pairs, strict=True))
    result |= {f"loss.{name}": value for name, value in losses.items()}
    result["loss.loss_total"] = losses["total"] - losses["loss_mask"]  # the official name leaves the mask loss out
    gradients = export_mapped({name: p.grad for name, p in method.named_parameters()}, method.official_keys())
    return result | {f"grad.{name}": value for name, value in gradients.items()}
