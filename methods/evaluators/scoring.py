"""From the rows of a ``metrics`` case to a table, predictions and the outcomes of a metric definition."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vgbench.data.table import AnnotationTable
from vgbench.metrics.base import Outcomes
from vgbench.metrics.evaluator import Evaluator
from vgbench.predictions.table import Predictions
from vgbench.types import Prediction

__all__ = [
    "FIVE",
    "Entries",
    "Row",
    "Values",
    "batch_size",
    "boxes_and_scores",
    "fractions",
    "outcomes",
    "percent",
    "table",
]

Row = dict[str, Any]
Values = Any  # nested dictionaries and lists of numbers, as in expected.json
Entries = Mapping[str, Callable[[str, list[Row]], Values]]  # pattern of an entry's name -> its values from the rows

FIVE = ("prec@0.5", "prec@0.6", "prec@0.7", "prec@0.8", "prec@0.9")


def table(rows: Iterable[Row]) -> AnnotationTable:
    """A table of rows that give key, size (height, width), boxes, and what else differs from these defaults."""
    base: Row = {"image": "", "expression": "", "masks": [], "polygons": [], "ann_ids": [], "categories": []}
    base |= {"ref_id": None, "sent_id": None, "group": 0, "source": "", "split": "", "image_id": 0}
    full = []
    for row in rows:
        (height, width), rest = row["size"], {key: value for key, value in row.items() if key != "size"}
        full.append({**base, **rest, "height": height, "width": width})
    return AnnotationTable.from_rows(full, {"dataset": "conformance", "split": "", "task": ""})


def outcomes(spec: str, targets: AnnotationTable, predictions: Sequence[Prediction], chunk: int = 20) -> Outcomes:
    """Score through the public evaluator, in several updates.

    Args:
        spec: metric definition, "rec" or "rec/strict".
        targets: from :func:`table`.
        predictions: one per row.
        chunk: rows per update.
    """
    evaluator = Evaluator(targets, [spec])
    rows = np.arange(len(targets))
    whole = Predictions.from_list(targets.column("key").tolist(), predictions)
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        evaluator.add(whole.take(part), part)
    return evaluator.outcomes()[spec]


def percent(scores: Outcomes, names: Iterable[str]) -> list[float]:
    return [scores.ratios[name].value for name in names]


def fractions(scores: Outcomes, names: Iterable[str]) -> list[float]:
    return [value / 100 for value in percent(scores, names)]


def boxes_and_scores(row: Row) -> tuple[Tensor, Tensor]:
    """Predicted boxes [n, 4] xyxy pixels and scores [n]."""
    return torch.tensor(row["pred_boxes"]).reshape(-1, 4), torch.tensor(row["pred_scores"])


def batch_size(name: str, rows: Sequence[Row]) -> int:
    """Batch size of an entry called ``....batch32`` or ``....batch_all``."""
    size = re.search(r"batch(\d+)$", name)
    return int(size[1]) if size else len(rows)
