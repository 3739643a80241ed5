"""Masks of one target per expression, as the official evaluators count them."""

from __future__ import annotations

import math
from typing import Any

import torch

from vgbench.methods.evaluators.scoring import (
    FIVE,
    Entries,
    Row,
    Values,
    batch_size,
    fractions,
    outcomes,
    percent,
    table,
)
from vgbench.metrics.base import Outcomes
from vgbench.types import Prediction


def _score(rows: list[Row], variant: str = "") -> Outcomes:
    targets = table(
        {
            "key": r["id"],
            "size": r["image_size"],
            "boxes": [[0, 0, 1, 1]],  # masks are judged; one box says that there is one target
            "masks": [r["gt_mask"]["counts"]],
            "polygons": [r["gt_num_polygons"]],
        }
        for r in rows
    )
    box = torch.zeros(0, 4), torch.zeros(0)
    predictions = [Prediction(*box, mask=r["pred_mask"]) for r in rows]
    return outcomes(f"res/{variant}" if variant else "res", targets, predictions)


def _iou_percent(scores: Outcomes) -> list[float]:
    """IoU of every expression."""
    iou: list[float] = (100 * scores.ratios["miou"].num).tolist()
    return iou


def _lavt(name: str, rows: list[Row]) -> Values:
    names = {"mIoU": "miou", "oIoU": "oiou", **{f"Prec@{n[5:]}": n for n in FIVE}}
    return dict(zip(names, percent(_score(rows), names.values()), strict=True))


def _rela(name: str, rows: list[Row]) -> Values:
    names = {"gIoU": "miou", "cIoU": "oiou", **{f"Pr@{n[5:]}": n for n in FIVE[2:]}}
    values: dict[str, Any] = dict(zip(names, percent(_score(rows), names.values()), strict=True))
    return {**values, "T_acc": 0, "N_acc": 0}  # not defined for RES; the official code prints 0


def _mmdet(name: str, rows: list[Row]) -> Values:
    return dict(zip(("cIoU", "mIoU"), percent(_score(rows), ("oiou", "miou")), strict=True))


def _seqtr(name: str, rows: list[Row]) -> Values:
    scores = _score(rows, f"crowd+batch_mean@{batch_size(name, rows)}")
    return {
        "mIoU": scores.ratios["miou"].value,
        "mask_acc": percent(scores, FIVE),
        "iou": _iou_percent(_score(rows, "crowd")),
    }


def _alvg(name: str, rows: list[Row]) -> Values:
    scores = _score(rows, "batch_mean@1")
    mean = scores.ratios["miou"].value
    return {
        "mIoU": mean,
        "mIoU_is_nan": math.isnan(mean),
        "iou": _iou_percent(scores),
        "mask_acc": percent(scores, FIVE),
    }


def _instancevg(name: str, rows: list[Row]) -> Values:
    scores = _score(rows)
    mean, overall = percent(scores, ("miou", "oiou"))
    return {"mIoU": mean, "oIoU": overall, "mask_acc": percent(scores, FIVE)}


def _cris(name: str, rows: list[Row]) -> Values:
    scores = _score(rows, "cris")
    precisions = {f"Pr@{n[-1]}0": value for n, value in zip(FIVE, fractions(scores, FIVE), strict=True)}
    return {"IoU": scores.ratios["miou"].value / 100, "prec": precisions}


def _vglaw(name: str, rows: list[Row]) -> Values:
    scores = _score(rows, "eps_one")
    names = [f"prec@{round(0.5 + 0.05 * step, 2):g}" for step in range(10)]
    return {
        "mIoU": scores.ratios["miou"].value / 100,
        "iou": scores.ratios["miou"].num.tolist(),
        "ap_050_095": fractions(scores, names),
    }


ENTRIES: Entries = {
    "lavt.test": _lavt,
    "rela.refcoco": _rela,
    "mmdet.refseg": _mmdet,
    "seqtr.mask.*": _seqtr,
    "simvg.mask.*": _seqtr,
    "alvg.mask": _alvg,
    "instancevg.mask": _instancevg,
    "propvg.mask": _instancevg,
    "cris.validate": _cris,
    "vglaw.mask": _vglaw,
}
