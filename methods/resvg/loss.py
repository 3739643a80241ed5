"""The losses of ResVG: every decoder stage regresses the one target box; the verification score can be taught too."""

from __future__ import annotations

import torch
from torch import Tensor

from vgbench.layers.boxes import cxcywh_to_xyxy, giou

__all__ = ["score_loss", "stage_losses"]


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


def score_loss(score: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy between the verification scores as shares of their sum and the cells inside the target box.

    Not official: the authors start from pretrained parts that already tell objects apart. Without them the score is
    what ties words to places, and with nothing but a box at the far end of the decoder it takes long to be found.

    Args:
        score: [B, h, w] verification score s > 0.
        target: [B, 4] cxcywh relative to the canvas. A box that holds no cell's centre teaches nothing.
    """
    height, width = score.shape[-2:]
    x1, y1, x2, y2 = cxcywh_to_xyxy(target.float()).unbind(-1)
    x = (torch.arange(width, device=score.device) + 0.5) / width
    y = (torch.arange(height, device=score.device) + 0.5) / height
    columns = (x >= x1[:, None]) & (x <= x2[:, None])
    rows = (y >= y1[:, None]) & (y <= y2[:, None])
    inside = (rows[:, :, None] & columns[:, None, :]).flatten(1).float()
    share = score.float().flatten(1).clamp(min=1e-8).log().log_softmax(-1)
    return -((share * inside).sum(-1) / inside.sum(-1).clamp(min=1)).mean()
