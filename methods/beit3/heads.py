"""Box heads of the DETR family for grounding, and what their output means in pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vgbench.checkpoints.names import KeyEntry
from vgbench.layers.boxes import cxcywh_to_xyxy
from vgbench.layers.mlp import MLP
from vgbench.types import Geometry, Prediction

__all__ = ["PredictionHead", "detections", "ranked_predictions"]


class PredictionHead(nn.Module):
    """Class logits (0 = target, 1 = no object) and boxes of every query vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.class_embed = nn.Linear(width, 2)
        self.box_embed = MLP([width, width, width, 4])

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """hidden [..., D] -> logits [..., 2] and normalised cxcywh boxes [..., 4] in (0, 1), float32."""
        return self.class_embed(hidden).float(), self.box_embed(hidden).float().sigmoid()

    @staticmethod
    def keys(ours: str, branch: str, official: str = "head.") -> list[KeyEntry]:
        """Names here and in SimVG's and ALVG's checkpoints; ``branch`` is "decoder" or "token"."""
        names = {"class_embed": f"class_embed_{branch}"}
        names |= {f"box_embed.layers.{i}": f"bbox_embed_{branch}.layers.{i}" for i in range(3)}
        return [
            KeyEntry(f"{ours}.{our}.{kind}", (f"{official}{their}.{kind}",))
            for our, their in names.items()
            for kind in ("weight", "bias")
        ]


def detections(logits: Tensor, boxes: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and boxes of all queries, in query order.

    Args:
        logits: [B, Q, 2].
        boxes: [B, Q, 4] normalised cxcywh.
        size: [2] or [B, 2], (width, height) of the valid network input in pixels.

    Returns:
        boxes [B, Q, 4] xyxy in network pixels, clipped to the valid input, and scores [B, Q] (softmax of class 0).
    """
    limit = size.to(boxes.device).float()
    limit = torch.cat([limit, limit], dim=-1)
    limit = limit[:, None] if limit.ndim == 2 else limit
    pixels = cxcywh_to_xyxy(boxes.float()) * limit
    return torch.minimum(pixels.clamp(min=0), limit), logits.float().softmax(-1)[..., 0]


def ranked_predictions(
    boxes: Tensor, scores: Tensor, geometry: Sequence[Geometry], keep_all: bool, no_target_below: float | None
) -> list[Prediction]:
    """Predictions in original pixels from :func:`detections`.

    Boxes without area are removed, but the best box always stays, so that a single-target expression has an answer.

    Args:
        boxes: [B, Q, 4] xyxy in network pixels.
        scores: [B, Q].
        geometry: one per sample.
        keep_all: every box, best first; False: only the best one.
        no_target_below: score that a box must reach for the expression to have a target; None: no such decision.
    """
    boxes, scores = boxes.detach().cpu(), scores.detach().cpu()
    order = scores.argsort(dim=1, descending=True, stable=True)
    scores = scores.gather(1, order)
    boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    solid = ((boxes[..., 2:] - boxes[..., :2]) > 0).all(-1)
    predictions = []
    for box, score, good, frame in zip(boxes, scores, solid, geometry, strict=True):
        if good.any():
            box, score = box[good], score[good]
        elif not keep_all:
            box, score = box[:1], score[:1]
        else:
            box, score = box[:0], score[:0]
        no_target = None if no_target_below is None else not bool((score >= no_target_below).any())
        if not keep_all:
            box, score = box[:1], score[:1]
        predictions.append(Prediction(frame.to_original(box), score, no_target=no_target, geometry=frame))
    return predictions
