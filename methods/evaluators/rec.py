"""Box accuracy of one target per expression, as the official evaluators count it."""

from __future__ import annotations

from typing import Any

import numpy as np

from vgbench.methods.evaluators.scoring import (
    FIVE,
    Entries,
    Row,
    Values,
    batch_size,
    boxes_and_scores,
    fractions,
    outcomes,
    percent,
    table,
)
from vgbench.metrics.base import Outcomes
from vgbench.types import Geometry, Prediction

TOPS = ("prec@0.5", "prec@0.5_top5", "prec@0.5_top10")


def _score(variant: str, rows: list[Row]) -> Outcomes:
    targets = table({"key": r["id"], "size": r["image_size"], "boxes": [r["gt_box"]]} for r in rows)
    predictions = [Prediction(*boxes_and_scores(r), geometry=_geometry(r)) for r in rows]
    return outcomes(f"rec/{variant}" if variant else "rec", targets, predictions)


def _geometry(row: Row) -> Geometry | None:
    canvas = row["canvas"]
    if canvas is None:
        return None
    return Geometry(
        scale=(canvas["ratio_w"], canvas["ratio_h"]),
        offset=(canvas["left"], canvas["top"]),
        size=tuple(row["image_size"]),
        canvas=(canvas["size"], canvas["size"]),
    )


def _by_dataset(rows: list[Row]) -> dict[str, list[Row]]:
    names = dict.fromkeys(r["dataset"] for r in rows)
    return {name: [r for r in rows if r["dataset"] == name] for name in names}


def _on_canvas(rows: list[Row]) -> list[Row]:
    return [r for r in rows if r["canvas"] is not None]


def _mdetr(name: str, rows: list[Row]) -> Values:
    return {key: fractions(_score("giou", part), TOPS) for key, part in _by_dataset(rows).items()}


def _mmdet(name: str, rows: list[Row]) -> Values:
    values = {
        f"{key}_precision@{k}": value
        for key, part in _by_dataset(rows).items()
        for k, value in zip((1, 5, 10), fractions(_score("topk", part), TOPS), strict=True)
    }
    return {"mean_precision": float(np.mean(list(values.values()))), **values}


def _batch_mean(name: str, rows: list[Row]) -> Values:
    clip = "gt_clip+" if ".gt_clipped." in name else ""
    return _score(f"{clip}batch_mean@{batch_size(name, rows)}", rows).ratios["prec@0.5"].value


def _tuple_order(name: str, rows: list[Row]) -> Values:
    values = percent(_score("tuple_order", rows), FIVE)
    return {"det_acc": values[0], "det_accs": values}


def _transvg(name: str, rows: list[Row]) -> Values:
    rows = _on_canvas(rows)
    scores = _score("canvas_clamp" + ("+int_gt" if "gt_int" in name else ""), rows)
    accuracy, mean = fractions(scores, ("prec@0.5", "miou"))
    return {"n": len(rows), "accuracy": accuracy, "mean_iou": mean, "iou": scores.ratios["miou"].num.tolist()}


def _resvg(name: str, rows: list[Row]) -> Values:
    scores = _score("strict", _on_canvas(rows))
    thresholds = [0.5 + 0.05 * step for step in range(9)]
    values = fractions(scores, [f"prec@{round(t, 2):g}" for t in thresholds])
    accuracies = {f"Acc@{t:.2f}": value for t, value in zip(thresholds, values, strict=True)}
    return {**accuracies, "Mean_iou": scores.ratios["miou"].value / 100}


def _vglaw(name: str, rows: list[Row]) -> Values:
    rows = _on_canvas(rows)
    scores = _score("canvas", rows)
    value = scores.ratios["prec@0.5"].value / 100
    return {"n": len(rows), "prec_at_0_5": value, "iou": scores.ratios["miou"].num.tolist()}


def _lmms_eval(name: str, rows: list[Row]) -> Values:
    scores = _score("vlm", [r for r in _on_canvas(rows) if not r["tags"][0].startswith("iou_exactly")])
    thresholds = (0.1, 0.3, 0.5, 0.7, 0.9)
    values = fractions(scores, [f"prec@{t:g}" for t in thresholds])
    accuracies = {f"ACC@{t:g}": value for t, value in zip(thresholds, values, strict=True)}
    mean, centre = fractions(scores, ("miou", "center_acc"))
    return {"IoU": mean, **accuracies, "Center_ACC": centre}


def _minigpt4(name: str, rows: list[Row]) -> Values:
    scores = _score("plus1_strict", rows)
    return {"accuracy": scores.ratios["prec@0.5"].value, "iou": scores.ratios["miou"].num.tolist()}


def _albef(name: str, rows: list[Row]) -> Values:
    rows = [r for r in rows if r["pred_boxes"][0][2] > r["pred_boxes"][0][0]]
    scores = _score("inclusive_intersection", rows)
    accuracy = scores.ratios["prec@0.5"].value / 100
    return {"n": len(rows), "accuracy": accuracy, "iou": scores.ratios["miou"].num.tolist()}


def _default(name: str, rows: list[Row]) -> Values:
    scores = _score("", rows)
    values: dict[str, Any] = dict(zip(FIVE, fractions(scores, FIVE), strict=True))
    return {**values, "mean_iou": scores.ratios["miou"].value / 100, "iou": scores.ratios["miou"].num.tolist()}


ENTRIES: Entries = {
    "mdetr.precision_at_1_5_10": _mdetr,
    "mmdet.precision_at_1_5_10": _mmdet,
    "seqtr.det_acc.*": _batch_mean,
    "simvg.det_acc.*": _batch_mean,
    "alvg.det_acc.*": _batch_mean,
    "instancevg.det_acc": _tuple_order,
    "propvg.det_acc": _tuple_order,
    "transvg.accuracy.gt_cxcywh": _transvg,
    "transvg.accuracy.gt_int_cxcywh": _transvg,
    "resvg.accuracy": _resvg,
    "vglaw.det": _vglaw,
    "lmms_eval.rec": _lmms_eval,
    "minigpt4.rec": _minigpt4,
    "albef.computeIoU": _albef,
    "default.rec": _default,
}
