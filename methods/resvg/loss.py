"""The loss of ResVG: every decoder stage regresses the one target box."""

from __future__ import annotations

import torch
from torch import Tensor

from vgbench.layers.boxes import cxcywh_to_xyxy, giou

__all__ = ["stage_losses"]


def stage_losses(boxes: Tensor, target: Tensor, l1_weight: float = 5.0, giou_weight: float = 2.0) -> dict[str, Tensor]:
    """``total = sum over stages (l1_weight l1 + giou_weight (1 - GIoU))``.

    l1 is summed over the four coordinates (not averaged) and both terms are averaged over the batch.

    Args:
        boxes: [S, B, 4] cxcywh relative to the canvas, one per stage.
        target: [B, 4] in the same format.

    Returns:
        ``total`` and the unweighted terms: ``l1``, ``giou`` of the last stage, ``l1_i``, ``giou_i`` of stage i before.
    """
    boxes, target = boxes.float(), target.float()
    l1 = (boxes - target).abs().sum(-1).mean(1)
    overlap = 1 - giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target).expand_as(boxes)).mean(1)
    losses = {"total": (l1_weight * l1 + giou_weight * overlap).sum(), "l1": l1[-1], "giou": overlap[-1]}
    for stage, (distance, gap) in enumerate(zip(torch.unbind(l1[:-1]), torch.unbind(overlap[:-1]), strict=True)):
        losses |= {f"l1_{stage}": distance, f"giou_{stage}": gap}
    return losses
