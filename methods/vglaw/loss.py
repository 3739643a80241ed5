"""VG-LAW's four losses, summed without weights. One prediction and one target per sample; padding is included."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from vgbench.layers.boxes import cxcywh_to_xyxy, giou

__all__ = ["box_losses", "mask_losses"]


def box_losses(boxes: Tensor, target: Tensor) -> dict[str, Tensor]:
    """L1 (sum of the four differences, mean over samples) and 1 - GIoU (mean over samples).

    The official code clamps the union to [1e-6, 10] in the IoU; boxes in units of the canvas never get there.

    Args:
        boxes: [B, 4] (cx, cy, w, h) in units of the canvas.
        target: [B, 4] likewise.
    """
    boxes, target = boxes.float(), target.float()
    return {
        "bbox": F.l1_loss(boxes, target, reduction="sum") / len(boxes),
        "xiou": (1 - giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target))).mean(),
    }


def mask_losses(logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Focal loss (alpha 0.25, gamma 2; mean over all pixels) and dice loss (smoothed by 1; mean over samples).

    Args:
        logits: [B, H, W].
        target: [B, H, W] in {0, 1}.
    """
    logits, target = logits.float().flatten(1), target.float().flatten(1)
    probability = logits.sigmoid()
    overlap = (probability * target).sum(1)
    return {
        "focal": sigmoid_focal_loss(logits, target, alpha=0.25, gamma=2.0, reduction="mean"),
        "dice": (1 - (2 * overlap + 1) / (probability.sum(1) + target.sum(1) + 1)).mean(),
    }
