"""What ``vgbench conform`` runs for ALVG's cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vgbench.checkpoints.names import export_mapped
from vgbench.conform.case import Case
from vgbench.data import rle
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
from vgbench.methods.evaluators.scoring import FIVE, outcomes, percent, table
from vgbench.metrics.base import Outcomes
from vgbench.types import Prediction


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
        return _metrics(case)
    if mode == "preprocess":
        with torch.device("meta"):  # only the transforms are needed
            method = ALVG(image_size=case.spec["sizes"]["image_size"])
        return run_preprocess(case, method)
    method = build(case.spec)
    method.load_official(case.weights)
    method = method.to(case.device).eval()
    if mode.startswith("steps"):
        entries = method.official_names()
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
    gradients = export_mapped({name: p.grad for name, p in method.named_parameters()}, method.official_names())
    return result | {f"grad.{name}": value for name, value in gradients.items()}


def _metrics(case: Case) -> dict[str, Tensor]:
    """One batch of ALVG's validation."""
    inputs = case.on_cpu().inputs
    size = inputs["pred_masks"].shape[-2:]
    owner = inputs["target_index"]
    masks = [rle.encode((mask >= 0.5).numpy()) for mask in inputs["pred_masks"]]
    targets = [rle.encode(mask.numpy()) for mask in inputs["target_masks"]]

    def score(spec: str, samples: Sequence[int], single: bool) -> Outcomes:
        rows, predictions = [], []
        for sample in samples:
            index = torch.nonzero(owner == sample).flatten().tolist()[: 1 if single else None]
            boxes = inputs["target_boxes"][index]
            counts = [targets[i]["counts"] for i in index]
            row = {"key": str(sample), "size": size, "boxes": boxes, "masks": counts, "polygons": [1] * len(index)}
            rows.append(row)
            ranked = inputs["pred_scores"][sample].argsort(descending=True)
            boxes, scores = inputs["pred_boxes"][sample][ranked], inputs["pred_scores"][sample][ranked]
            predictions.append(Prediction(boxes, scores, mask=masks[sample]))
        return outcomes(spec, table(rows), predictions)

    everything = list(range(len(masks)))
    samples = [sample for sample in everything if bool((owner == sample).any())]
    grec = score("grec", everything, single=False)
    gres = score("gres/nt_from_mask", everything, single=False)
    boxes, segments = score("rec", samples, single=True), score("res", samples, single=True)
    n_acc, t_acc = gres.ratios["n_acc"], gres.ratios["t_acc"]
    rejected = n_acc.num.sum()  # no-target expressions with an empty mask
    missed = t_acc.den.sum() - t_acc.num.sum()  # targets with an empty mask
    values = {
        "grec.F1_score": grec.ratios["pr@f1"].value,
        "grec.N_acc": grec.ratios["n_acc"].value,
        "grec.gIoU": gres.ratios["giou"].value,
        "grec.cIoU": gres.ratios["ciou"].value,
        # The official formulas: one too many in both denominators, and T-acc is a precision of the rejection.
        "grec.seg_T_acc": rejected / (rejected + missed + 1),
        "grec.seg_N_acc": rejected / (n_acc.den.sum() + 1),
        "grec.per_sample_correct": grec.ratios["pr@f1"].num,
        "rec.det_acc": boxes.ratios["prec@0.5"].value,
        "rec.mask_iou": segments.ratios["miou"].value,
        "rec.mask_acc_at_thrs": percent(segments, FIVE),
    }
    tensors = {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}
    return {**tensors, "rec.samples": torch.tensor(samples)}
