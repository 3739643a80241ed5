"""The smallest metric: is the centre of the first box inside the target? Its variant does not count borders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vgbench import GroundingMetric, Pairs, Ratio, Task, Variant


@dataclass(frozen=True)
class CentreRule:
    """``strict``: a centre on the border is outside."""

    strict: bool = False


class CentreHit(GroundingMetric):
    """``hit``: percent of expressions."""

    # One box predicted and one annotated will do: any method and any dataset of "rec".
    task = Task("centre_hit", "hit", "Centre hit", predicted_by=frozenset({"rec"}), annotated_by=frozenset({"rec"}))
    Rule = CentreRule
    variants: ClassVar = {"strict": Variant({"strict": True}, "a centre on the border is outside")}
    columns = ("hit",)

    def measure(self, pairs: Pairs) -> dict[str, np.ndarray]:
        target = pairs.single_target(self.spec)
        boxes, valid = pairs.padded_boxes(1)
        middle = (boxes[:, 0, :2] + boxes[:, 0, 2:]) / 2
        compare = np.greater if self.rule.strict else np.greater_equal
        inside = compare(middle, target[:, :2]).all(1) & compare(target[:, 2:], middle).all(1)
        return {"hit": (inside & valid[:, 0]).astype(np.float64)}

    def ratios(self, columns: dict[str, np.ndarray]) -> dict[str, Ratio]:
        return {"hit": Ratio(columns["hit"], np.ones_like(columns["hit"]))}
