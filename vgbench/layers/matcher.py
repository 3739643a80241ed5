"""Bipartite matching of predictions and targets, batched over layers and samples (DETR's Hungarian matcher)."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vgbench.layers.boxes import cxcywh_to_xyxy, giou, pairwise

__all__ = ["GIOU_EPS", "gather_matched", "match"]

GIOU_EPS = 1e-6


@torch.no_grad()
def match(
    logits: Tensor,
    boxes: Tensor,
    targets: Tensor,
    valid: Tensor,
    costs: tuple[float, float, float] = (1.0, 5.0, 2.0),
) -> Tensor:
    """Assign queries to targets at the lowest total of ``-class_cost p + box_cost L1 - giou_cost GIoU``.

    With one target per sample this is an argmin on the device. Otherwise the costs of all layers and samples go to the
    CPU in one transfer and are solved there.

    Args:
        logits: [..., B, Q, 2], class 0 = target.
        boxes: [..., B, Q, 4] normalised cxcywh.
        targets: [B, M, 4] normalised cxcywh.
        valid: [B, M] bool, True = the row is a target.
        costs: (class_cost, box_cost, giou_cost).

    Returns:
        [..., B, M] int64: the query of each target, or -1 for rows without target and for targets that are left over
        when a sample has more of them than queries.
    """
    class_cost, box_cost, giou_cost = costs
    queries, rows = logits.shape[-2], targets.shape[-2]
    if queries == 1 and rows == 1:
        return torch.where(valid, 0, -1).expand(*logits.shape[:-2], 1)
    logits, boxes, targets = logits.float(), boxes.float(), targets.float()
    probability = logits.softmax(-1)[..., :1]
    distance = (boxes.unsqueeze(-2) - targets.unsqueeze(-3)).abs().sum(-1)
    overlap = giou(*pairwise(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(targets)), eps=GIOU_EPS)
    cost = box_cost * distance - class_cost * probability - giou_cost * overlap  # [..., B, Q, M]
    if rows == 1:
        return torch.where(valid, cost.argmin(-2), -1)
    return _solve(cost, valid)


@torch.compiler.disable
def _solve(cost: Tensor, valid: Tensor) -> Tensor:
    batch = valid.shape[0]
    flat = cost.flatten(0, -4) if cost.ndim > 3 else cost[None]
    packed = torch.cat([flat, valid[None, :, None].expand(len(flat), -1, 1, -1).to(flat.dtype)], dim=2).cpu().numpy()
    out = torch.full((len(flat), batch, valid.shape[1]), -1, dtype=torch.int64)
    for layer in range(len(flat)):
        for sample in range(batch):
            columns = packed[layer, sample, -1].nonzero()[0]
            query, column = linear_sum_assignment(packed[layer, sample, :-1][:, columns])
            out[layer, sample, columns[column]] = torch.from_numpy(query)
    return out.view(*cost.shape[:-2], valid.shape[1]).to(cost.device)


def gather_matched(values: Tensor, assignment: Tensor) -> Tensor:
    """Values [..., B, Q, C] of the queries in ``assignment`` [..., B, M] -> [..., B, M, C] (-1 gives query 0)."""
    index = assignment.clamp(min=0).unsqueeze(-1).expand(*assignment.shape, values.shape[-1])
    return values.gather(-2, index)
