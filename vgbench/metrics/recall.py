"""Phrase grounding: Recall@k of ranked boxes (Flickr30k Entities).

Default (MDETR, "any box"): a phrase is found at k if one of the first k boxes has IoU >= 0.5 with any of its annotated
boxes; k = 1, 5, 10 and "upper" (any rank), over all phrase occurrences that have a box. A row of the table is one
occurrence; its categories are the phrase's entity types ("people/clothing" counts in both), reported as
``recall@k[type]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vgbench.metrics import boxes as overlaps
from vgbench.metrics.base import GroundingMetric, Ratio, Variant
from vgbench.metrics.frames import Array
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.pointing import merge_boxes
from vgbench.metrics.tasks import SUITE

# Official entity types of Flickr30k Entities; a phrase may have several, "notvisual" phrases have no box.
TYPES = ("people", "clothing", "bodyparts", "animals", "vehicles", "instruments", "scene", "other")
RANKS = {"1": 1, "5": 5, "10": 10, "upper": np.inf}


@dataclass(frozen=True)
class RecallRule:
    """What a variant may change."""

    merged: bool = False
    plus1: bool = False


class Recall(GroundingMetric):
    """``recall@1``, ``recall@5``, ``recall@10``, ``recall@upper``, all and per type; variants see :attr:`variants`."""

    task = SUITE["phrase"]
    Rule = RecallRule
    variants: ClassVar = {
        "merged": Variant({"merged": True}, "older papers: ground truth is the box around all boxes of the phrase"),
        "plus1": Variant({"plus1": True}, "info-ground: IoU with one pixel more per side; adds the centre of the box"),
    }

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers kept per expression."""
        return ("rank", "centre", *TYPES)

    def measure(self, pairs: Pairs) -> dict[str, Array]:
        """The columns, each [n] over the expressions of ``pairs``."""
        boxes, valid = pairs.padded_boxes()
        targets, target_valid = pairs.padded_targets()
        if self.rule.merged:
            targets, target_valid = merge_boxes(targets, target_valid)
        overlap = (overlaps.iou_plus1 if self.rule.plus1 else overlaps.iou)(boxes[:, :, None], targets[:, None])
        hit = ((overlap >= 0.5) & valid[:, :, None] & target_valid[:, None]).any(2)
        rank = np.where(hit.any(1), hit.argmax(1) if hit.shape[1] else 0, np.inf) + 1
        centre = np.zeros(len(pairs), dtype=bool)
        if boxes.shape[1]:
            middle = (boxes[:, :1, :2] + boxes[:, :1, 2:]) / 2
            inside = ((middle > targets[..., :2]) & (middle < targets[..., 2:])).all(-1)
            centre = (inside & target_valid).any(1) & valid[:, 0]
        types = [
            {name for item in row for name in item.split("/")} for row in pairs.table.arrow["categories"].to_pylist()
        ]
        rank = np.where(pairs.target_counts > 0, rank, np.nan)  # a phrase without a box is not counted
        return {
            "rank": rank,
            "centre": centre,
            **{name: np.array([name in row for row in types], dtype=bool) for name in TYPES},
        }

    def ratios(self, columns: dict[str, Array]) -> dict[str, Ratio]:
        """Numerator and denominator per expression [n], by metric."""
        counted = (~np.isnan(columns["rank"])).astype(np.float64)
        ratios = {}
        for group in ("", *TYPES):
            members = counted * columns[group] if group else counted
            if group and not members.any():
                continue
            suffix = f"[{group}]" if group else ""
            for name, limit in RANKS.items():
                ratios[f"recall@{name}{suffix}"] = Ratio(
                    (columns["rank"] <= limit) * np.isfinite(columns["rank"]) * members, members
                )
        if self.rule.plus1:
            ratios["center_acc"] = Ratio(columns["centre"] * counted, counted)
        return ratios
