"""How fast scoring is."""

from __future__ import annotations

import time

import numpy as np
import torch

from vgbench.data.table import AnnotationTable
from vgbench.metrics.bootstrap import intervals
from vgbench.metrics.evaluator import CHUNK, Evaluator
from vgbench.predictions.table import Predictions
from vgbench.types import Prediction


def benchmark(masks: int = 10_834, size: tuple[int, int] = (480, 640), seed: int = 0) -> dict[str, float]:
    """Time the scoring of a split like RefCOCO val: one box and one mask of ``size`` per expression.

    Returns:
        ``masks_per_s`` and ``boxes_per_s`` (scoring only), ``bootstrap_s`` (1000 resamples of all metrics),
        ``characters_per_mask`` (how complicated the masks are; a COCO mask has a few hundred).
    """
    table, predictions = _synthetic(masks, size, seed)
    rows = [np.arange(start, min(start + CHUNK, masks)) for start in range(0, masks, CHUNK)]
    seconds = {}
    for task in ("rec", "res"):
        evaluator = Evaluator(table, [task])
        start = time.perf_counter()
        for part in rows:
            evaluator.add(predictions.take(part), part)
        evaluator.compute()
        seconds[task] = time.perf_counter() - start
    start = time.perf_counter()
    for outcome in evaluator.outcomes().values():
        intervals(outcome.ratios, table.column("image_id"))
    characters = np.mean([len(mask["counts"]) for mask in predictions.masks()[:100] if mask])
    return {
        "masks_per_s": masks / seconds["res"],
        "boxes_per_s": masks / seconds["rec"],
        "bootstrap_s": time.perf_counter() - start,
        "characters_per_mask": float(characters),
    }


def _synthetic(n: int, size: tuple[int, int], seed: int) -> tuple[AnnotationTable, Predictions]:
    """Random blobs with ragged edges, ground truth and predictions, of 64 different shapes."""
    from vgbench.data.rle import encode

    random = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    shapes = []
    for _ in range(64):
        centre_x, centre_y = random.uniform(0.3, 0.7, 2) * [width, height]
        angle = np.arctan2(y - centre_y, x - centre_x)
        wave = 1 + sum(random.normal(0, 0.3 / k) * np.sin(k * angle + random.uniform(0, 6)) for k in range(2, 20))
        blob = np.hypot(x - centre_x, y - centre_y) < wave * random.uniform(0.15, 0.3) * height
        blob &= random.random(size) > 0.0005  # pinholes, as thresholded networks have them
        rows, columns = np.flatnonzero(blob.any(1)), np.flatnonzero(blob.any(0))
        box = [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]
        shapes.append((box, encode(blob)))
    picks = random.integers(0, len(shapes), (n, 2))
    base = {"image": "", "width": width, "height": height, "expression": "", "polygons": [1], "ann_ids": []}
    base |= {"categories": [], "ref_id": None, "sent_id": None, "group": 0, "source": "synthetic", "split": "val"}
    table = AnnotationTable.from_rows(
        (
            {**base, "key": str(i), "image_id": i // 7, "boxes": [shapes[g][0]], "masks": [shapes[g][1]["counts"]]}
            for i, (g, _) in enumerate(picks)
        ),
        {"dataset": "synthetic", "split": "val", "task": "rec"},
    )
    answers = [Prediction(torch.tensor([shapes[p][0]]), torch.ones(1), mask=shapes[p][1]) for _, p in picks]
    return table, Predictions.from_list([str(i) for i in range(n)], answers)
