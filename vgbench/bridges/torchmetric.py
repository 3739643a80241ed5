"""The suite's metrics as a ``torchmetrics.Metric`` on tensors, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.data.table import AnnotationTable
from vgbench.metrics.catalog import make_metric
from vgbench.metrics.pairs import Pairs
from vgbench.predictions.table import Predictions
from vgbench.types import Prediction, as_array

SIDE = 1 << 20  # of images whose size nobody tells: boxes may lie anywhere


class GroundingMeter(Metric):
    """One metric of the suite, fed with tensors batch by batch, on one process or many.

    The numbers are those of ``vgbench score``. Inputs look like those of torchmetrics' detection metrics, a dictionary
    per expression.

    Args:
        metric: a task, "rec", "res", "grec", "gres", "pointing", or a variant of it, "rec/giou".
        options: of :class:`torchmetrics.Metric`.

    Raises:
        UserError: for a metric that there is not.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    table: list[Tensor]

    def __init__(self, metric: str = "rec", **options: Any) -> None:
        # a process that saw nothing since the last computation would take its old value and not meet the others
        super().__init__(**{"compute_with_cache": False, **options})
        self.rule = make_metric(metric)
        self.add_state("table", default=[], dist_reduce_fx="cat")

    def update(self, preds: Sequence[Mapping[str, Any]], target: Sequence[Mapping[str, Any]]) -> None:
        """Add a batch.

        Args:
            preds: ``boxes`` [n, 4] xyxy pixels, best first; ``scores`` [n] (default: 1); ``mask`` [H, W], the union of
                what is meant; ``no_target``, bool; ``point`` (x, y); ``heatmap`` [h, w].
            target: ``boxes`` [m, 4] xyxy pixels (m = 0: nothing is meant); ``masks`` [m, H, W]; ``size`` (height,
                width) where no mask tells it and the metric needs it.

        Raises:
            UserError: if the lists differ in length, or the metric needs what is not there.
        """
        if len(preds) != len(target):
            raise UserError(f"{len(preds)} predictions for {len(target)} targets; give one for each expression")
        keys = [str(number) for number in range(len(target))]
        rows = [_row(key, one) for key, one in zip(keys, target, strict=True)]
        table = AnnotationTable.from_rows(rows, {"dataset": "own", "split": "", "task": self.rule.task.name})
        pairs = Pairs(Predictions.from_list(keys, [_prediction(one) for one in preds]), table, np.arange(len(rows)))
        values = torch.from_numpy(self.rule.numbers(pairs))
        values[:, 0] = sum(len(part) for part in self.table) + torch.arange(len(rows))
        self.table.append(values.to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """Metrics in percent by name, float64; NaN where one is not defined."""
        parts = self.table if isinstance(self.table, list) else [self.table]
        values = torch.cat(
            [torch.zeros(0, 1 + len(self.rule.columns), dtype=torch.float64), *(one.cpu() for one in parts)]
        )
        values[:, 0] = torch.arange(len(values))  # every process counted from 0
        ratios = self.rule.outcomes_of(values.numpy()).ratios
        return {name: torch.tensor(ratio.value, dtype=torch.float64) for name, ratio in ratios.items()}

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """As in torchmetrics, also for a process that saw no expression."""
        if not self._is_synced and not len(self.table):
            self.table.append(torch.zeros(0, 1 + len(self.rule.columns), dtype=torch.float64, device=self.device))
        super().sync(*args, **kwargs)


def _row(key: str, target: Mapping[str, Any]) -> dict[str, Any]:
    boxes = as_array(torch.as_tensor(target["boxes"]), np.float64).reshape(-1, 4)
    masks = [] if target.get("masks") is None else list(as_array(torch.as_tensor(target["masks"]), bool))
    size = target.get("size") or (masks[0].shape if masks else (SIDE, SIDE))
    return {
        **{"key": key, "image_id": 0, "image": "", "expression": "", "source": "", "split": "", "group": 0},
        **{"ref_id": None, "sent_id": None, "ann_ids": [], "categories": [], "polygons": [1] * len(masks)},
        **{"height": int(size[0]), "width": int(size[1]), "boxes": boxes},
        "masks": [rle.encode(mask)["counts"] for mask in masks],
    }


def _prediction(pred: Mapping[str, Any]) -> Prediction:
    boxes = torch.as_tensor(pred.get("boxes", torch.zeros(0, 4))).reshape(-1, 4)
    scores = torch.as_tensor(pred["scores"]) if "scores" in pred else torch.ones(len(boxes))
    mask, decision, point = pred.get("mask"), pred.get("no_target"), pred.get("point")
    return Prediction(
        boxes,
        scores,
        mask=None if mask is None else rle.encode(as_array(torch.as_tensor(mask), bool)),
        no_target=None if decision is None else bool(decision),
        point=None if point is None else (int(point[0]), int(point[1])),
        heatmap=pred.get("heatmap"),
    )
