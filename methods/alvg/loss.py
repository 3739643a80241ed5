"""ALVG's losses besides the set criterion, vectorised over padded targets (B batch, M targets, g grid side).

All of them are computed in float32. Official code: yscfromchina/ALVG.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vgbench.layers.matcher import gather_matched
from vgbench.methods.beit3.criterion import mean_over_processes

__all__ = [
    "AttentionTargets",
    "attention_targets",
    "decoder_attention_loss",
    "mask_losses",
    "mask_target",
    "score_attention_loss",
]


@dataclass
class AttentionTargets:
    """Target maps of the two attention losses.

    Attributes:
        focus: [B, M, g, g] in [0, 1], where each target is.
        overlap: [B, g, g]; positive cells sum to at most 1, negative ones to -1.
        present: [B, M] bool, targets that cover any cell.
    """

    focus: Tensor
    overlap: Tensor
    present: Tensor


def box_coverage(boxes: Tensor, size: int, grid: int) -> Tensor:
    """Share of every grid cell that is covered by boxes rounded outwards to whole pixels.

    Columns floor(x1) to ceil(x2) and rows floor(y1) to ceil(y2), both ends included, cut off at the canvas.

    Args:
        boxes: [..., 4] xyxy pixels.
        size: side of the canvas in pixels.
        grid: g.

    Returns:
        [..., g, g].
    """
    first = boxes[..., :2].floor().clamp(min=0)
    end = (boxes[..., 2:].ceil() + 1).clamp(max=size)
    cell = size / grid
    edges = torch.arange(grid, device=boxes.device) * cell
    inside = torch.minimum(end[..., None], edges + cell) - torch.maximum(first[..., None], edges)
    columns, rows = (inside.clamp(min=0) / cell).unbind(-2)
    return rows[..., :, None] * columns[..., None, :]


def attention_targets(boxes: Tensor, masks: Tensor | None, valid: Tensor, size: int, grid: int) -> AttentionTargets:
    """Focus and overlap maps.

    With masks, a target's coverage is its mask averaged over every cell and the focus map is binary; without, the
    coverage is drawn from the box and is itself the focus map. A target without coverage (an empty mask) counts as
    absent; the official code divides 0 by 0 there.

    Args:
        boxes: [B, M, 4] xyxy network pixels.
        masks: [B, M, S, S] uint8, or None.
        valid: [B, M] bool.
        size: S.
        grid: g.
    """
    if masks is None:
        coverage = box_coverage(boxes.float(), size, grid)
    else:
        cell = size // grid
        cells = masks.unflatten(-1, (grid, cell)).unflatten(-3, (grid, cell))
        coverage = cells.sum((-3, -1), dtype=torch.float32) / cell**2
    coverage = coverage * valid[..., None, None]
    area = coverage.sum((-2, -1), keepdim=True)
    present = area[..., 0, 0] > 0
    focus = coverage if masks is None else (coverage > 0).float()
    share = coverage / torch.where(area > 0, area, 1.0)
    overlap = share.amax(1) / present.sum(1).clamp(min=1)[:, None, None]
    empty = overlap == 0
    negative = -1.0 / empty.sum((-2, -1), keepdim=True).clamp(min=1)
    return AttentionTargets(focus, torch.where(empty, negative, overlap), present)


def score_attention_loss(score: Tensor, targets: AttentionTargets) -> Tensor:
    """``-(1/B) sum O * score``: relevance on the targets up, elsewhere down; score [B, g, g]."""
    return -(targets.overlap * score).sum() / score.shape[0]


def decoder_attention_loss(attention: Tensor, targets: AttentionTargets, assignment: Tensor) -> Tensor:
    """Ratio of the decoder's attention outside to inside the target.

    Args:
        attention: [K, B, Q, g, g].
        targets: target maps.
        assignment: [B, M], the query of each target in the last layer, -1 = none.

    With Q = 1 the layers' maps are added before the ratio and the mean is over B * K; with Q > 1 every matched pair of
    every layer has its own ratio (all layers use the last one's matching) and the mean is over those pairs.
    """
    layers, batch, queries = attention.shape[:3]
    maps = attention.float().flatten(-2)  # [K, B, Q, N]
    focus = targets.focus.flatten(-2)  # [B, M, N]
    if queries == 1:
        ratio = _outside_to_inside(maps.sum(0)[:, 0], focus[:, 0])  # [B]
        return torch.where(targets.present[:, 0], ratio, 0.0).sum() / (batch * layers)
    ratio = _outside_to_inside(gather_matched(maps, assignment.expand(layers, -1, -1)), focus)  # [K, B, M]
    pairs = (assignment >= 0) & targets.present
    return torch.where(pairs, ratio, 0.0).sum() / mean_over_processes(layers * pairs.sum())


def _outside_to_inside(attention: Tensor, focus: Tensor) -> Tensor:
    inside = (attention * focus).sum(-1)
    return (attention.sum(-1) - inside) / (inside + 0.001)


def mask_target(masks: Tensor, valid: Tensor, size: tuple[int, int]) -> Tensor:
    """Union of the targets [B, M, S, S] at ``size``, float32 0 or 1 [B, *size].

    Bilinear without antialiasing and then truncated: 1 only where every pixel that contributes is 1.
    """
    union = (masks * valid[..., None, None].to(masks.dtype)).amax(1)
    resized = F.interpolate(union[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0]
    return (resized > 1 - 1e-4).float()


def mask_losses(logits: Tensor, target: Tensor, targets: Tensor, alpha: float = 0.25) -> tuple[Tensor, Tensor]:
    """Focal and dice loss of the foreground map, both per target of the batch.

    Args:
        logits: m [B, h, w]; both losses apply a sigmoid. The official code hands over probabilities here.
        target: [B, h, w], 0 or 1.
        targets: scalar, number of targets of the local batch.
        alpha: focal weight of the foreground; the background has 1 - alpha.
    """
    normaliser = mean_over_processes(targets)
    m, y = logits.flatten(1), target.flatten(1)
    r = m.sigmoid()
    log_loss = F.binary_cross_entropy_with_logits(m, y, reduction="none")
    wrong = r + y - 2 * r * y  # 1 - p_t
    focal = (alpha * y + (1 - alpha) * (1 - y)) * wrong.square() * log_loss
    dice = 1 - (2 * (r * y).sum(1) + 1) / (r.sum(1) + y.sum(1) + 1)
    return focal.mean(1).sum() / normaliser, dice.sum() / normaliser
