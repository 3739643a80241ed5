"""The set criterion of SimVG and ALVG: classification, L1 and GIoU over matched pairs, all layers at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from vgbench.layers.boxes import cxcywh_to_xyxy, giou, xyxy_to_cxcywh
from vgbench.layers.matcher import GIOU_EPS, gather_matched, match

__all__ = ["SetCriterion", "Targets", "mean_over_processes", "name_layers"]


def mean_over_processes(count: Tensor) -> Tensor:
    """``max(1, count summed over all processes / number of processes)`` as a float32 scalar, without a host sync."""
    total = count.detach().float()
    if dist.is_available() and dist.is_initialized():
        total = total.clone()
        dist.all_reduce(total)
        total = total / dist.get_world_size()
    return total.clamp(min=1.0)


@dataclass
class Targets:
    """Boxes of a batch for the criterion.

    Attributes:
        boxes: [B, M, 4] normalised cxcywh, float32.
        valid: [B, M] bool, True = the row is a target.
    """

    boxes: Tensor
    valid: Tensor

    @classmethod
    def from_pixels(cls, boxes: Tensor, valid: Tensor, size: Tensor) -> Targets:
        """From xyxy pixels [B, M, 4]; ``size`` [2] or [B, 2] is the (width, height) of the valid network input."""
        scale = torch.cat([size, size], dim=-1).float()
        return cls(xyxy_to_cxcywh(boxes.float() / (scale[:, None] if scale.ndim == 2 else scale)), valid)


@dataclass(frozen=True)
class SetCriterion:
    """Weights of the criterion's terms; the same numbers weight the matching cost.

    Attributes:
        class_weight, box_weight, giou_weight: 1, 5, 2.
        no_object_weight: weight of class 1 ("no object") in the cross-entropy.
    """

    class_weight: float = 1.0
    box_weight: float = 5.0
    giou_weight: float = 2.0
    no_object_weight: float = 0.1

    def match(self, logits: Tensor, boxes: Tensor, targets: Targets) -> Tensor:
        """See :func:`vgbench.layers.matcher.match`."""
        costs = (self.class_weight, self.box_weight, self.giou_weight)
        return match(logits, boxes, targets.boxes, targets.valid, costs)

    def __call__(
        self, logits: Tensor, boxes: Tensor, targets: Targets, assignment: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Weighted terms of K layers.

        Args:
            logits: [K, B, Q, 2], class 0 = target, 1 = no object.
            boxes: [K, B, Q, 4] normalised cxcywh.
            targets: what they should be.
            assignment: [K, B, M] from :meth:`match`; None: computed here.

        Returns:
            ``loss_class``, ``loss_bbox``, ``loss_giou``, each [K]: the cross-entropy is the mean weighted by class
            over all queries, the box terms are sums over the matched pairs divided by the mean number of targets per
            process (at least 1).
        """
        if assignment is None:
            assignment = self.match(logits, boxes, targets)
        logits, boxes = logits.float(), boxes.float()
        matched = assignment >= 0  # [K, B, M]
        normaliser = mean_over_processes(targets.valid.sum())

        positive = torch.zeros(logits.shape[:-1], device=logits.device)
        positive = positive.scatter_reduce(-1, assignment.clamp(min=0), matched.to(positive.dtype), "amax")  # [K, B, Q]
        log_p = logits.log_softmax(-1)
        weight = self.no_object_weight + (1 - self.no_object_weight) * positive
        nll = -torch.where(positive > 0, log_p[..., 0], log_p[..., 1])
        loss_class = (weight * nll).sum((1, 2)) / weight.sum((1, 2))

        pairs = gather_matched(boxes, assignment)  # [K, B, M, 4]
        zero = pairs.new_zeros(())
        distance = torch.where(matched, (pairs - targets.boxes).abs().sum(-1), zero)
        overlap = giou(cxcywh_to_xyxy(pairs), cxcywh_to_xyxy(targets.boxes), eps=GIOU_EPS)
        loss_giou = torch.where(matched, 1 - overlap, zero)
        return {
            "loss_class": self.class_weight * loss_class,
            "loss_bbox": self.box_weight * distance.sum((1, 2)) / normaliser,
            "loss_giou": self.giou_weight * loss_giou.sum((1, 2)) / normaliser,
        }


def name_layers(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Terms [K] -> scalars under the official log names: the last layer bare, layer i before it with ``_i``."""
    named = {}
    for name, values in terms.items():
        for i, value in enumerate(values):
            named[name if i == len(values) - 1 else f"{name}_{i}"] = value
    return named
