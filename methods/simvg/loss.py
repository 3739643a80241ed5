"""Dynamic weight-balance distillation (SimVG section 3.3): how much the token branch listens to the decoder."""

from __future__ import annotations

import torch
from torch import Tensor

from vgbench.layers.boxes import cxcywh_to_xyxy, iou
from vgbench.layers.matcher import GIOU_EPS, gather_matched
from vgbench.methods.beit3.criterion import Targets

__all__ = ["distillation_targets"]


@torch.no_grad()
def distillation_targets(
    logits: Tensor, boxes: Tensor, targets: Targets, assignment: Tensor
) -> tuple[Targets, Tensor, Tensor]:
    """The decoder's own matched boxes as targets, and how good they are.

    Args:
        logits: [B, Q, 2] of the last decoder layer.
        boxes: [B, Q, 4] normalised cxcywh, likewise.
        targets: ground truth.
        assignment: [B, M], the query of each target, -1 = none.

    Returns:
        The new targets (row j of a sample is the box matched with target j); ``w_k = p * IoU`` of every pair [B, M],
        0 where there is none; and W, its mean over all pairs of the local batch. A batch without any pair gives
        W = 0 (the official code: NaN).
    """
    matched = assignment >= 0
    matched_boxes = gather_matched(boxes.float(), assignment)
    probability = gather_matched(logits.float().softmax(-1)[..., :1], assignment)[..., 0]
    overlap = iou(cxcywh_to_xyxy(matched_boxes), cxcywh_to_xyxy(targets.boxes), eps=GIOU_EPS)
    weight = torch.where(matched, probability * overlap, 0.0)
    mean = weight.sum() / matched.sum().clamp(min=1)
    return Targets(matched_boxes * matched[..., None], matched), weight, mean
