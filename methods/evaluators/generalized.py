"""Any number of targets per expression (GREC and GRES), as the official evaluators count it."""

from __future__ import annotations

from vgbench.methods.evaluators.scoring import (
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
from vgbench.types import Prediction

# Entry -> our definition of the same GREC numbers, which the entry gives as fractions.
AS_FRACTIONS = {
    "grefcoco.official": "grec",
    "grefcoco.iou_substituted": "grec/iou",
    "mmdet.grefcoco": "grec/first_box",
}


def _score(rows: list[Row], spec: str) -> Outcomes:
    targets = table(
        {
            "key": r["id"],
            "size": r["image_size"],
            "boxes": r["gt_boxes"],
            # The case gives the union only: it stands for every target.
            "masks": [r["gt_mask"]["counts"]] * len(r["gt_boxes"]),
            "polygons": [1] * len(r["gt_boxes"]),
        }
        for r in rows
    )
    predictions = [Prediction(*boxes_and_scores(r), mask=r["pred_mask"], no_target=r["pred_no_target"]) for r in rows]
    return outcomes(spec, targets, predictions)


def _fractions(name: str, rows: list[Row]) -> Values:
    values = fractions(_score(rows, AS_FRACTIONS[name]), ("pr@f1", "t_acc", "n_acc"))
    return dict(zip(("F1_score", "T_acc", "N_acc"), values, strict=True))


def _grec(name: str, rows: list[Row]) -> Values:
    spec = "grec/whole_set" if name == "propvg.grec" else "grec"
    return percent(_score(rows, spec), ("pr@f1", "n_acc", "t_acc"))


def _logged(name: str, rows: list[Row]) -> tuple[float, dict[str, float]]:
    f1, rejected = percent(_score(rows, f"grec/batch_mean@{batch_size(name, rows)}"), ("pr@f1", "n_acc"))
    return f1, {"logged_decoder_f1_score": f1, "logged_decoder_n_acc": rejected}


def _simvg(name: str, rows: list[Row]) -> Values:
    f1, logged = _logged(name, rows)
    return {"returned": [f1, logged["logged_decoder_n_acc"]], **logged}


def _alvg(name: str, rows: list[Row]) -> Values:
    f1, logged = _logged(name, rows)
    scores = _score(rows, f"gres/nt_from_mask_batch_mean@{batch_size(name, rows)}")
    mean, cumulative = percent(scores, ("giou", "ciou"))
    return {"returned": [f1, mean], **logged, "logged_decoder_giou": mean, "logged_decoder_ciou": cumulative}


def _gres(name: str, rows: list[Row]) -> Values:
    scores = _score(rows, "gres/nt_from_boxes")
    mean, cumulative, targets, rejected = percent(scores, ("giou", "ciou", "t_acc", "n_acc"))
    precisions = percent(scores, ("prec@0.7", "prec@0.8", "prec@0.9"))
    return {"gIoU": mean, "cIoU": cumulative, "T_acc": targets, "N_acc": rejected, "Pr_07_08_09": precisions}


def _rela(name: str, rows: list[Row]) -> Values:
    scores = _score(rows, "gres")
    mean, cumulative = percent(scores, ("giou", "ciou"))
    targets, rejected = fractions(scores, ("t_acc", "n_acc"))
    precisions = percent(scores, ("prec@0.7", "prec@0.8", "prec@0.9"))
    named = {f"Pr@{t}": value for t, value in zip((0.7, 0.8, 0.9), precisions, strict=True)}
    return {"gIoU": mean, "cIoU": cumulative, "T_acc": targets, "N_acc": rejected, **named}


ENTRIES: Entries = {
    **dict.fromkeys(AS_FRACTIONS, _fractions),
    "instancevg.grec": _grec,
    "propvg.grec": _grec,
    "simvg.grec.*": _simvg,
    "alvg.grec_gres.*": _alvg,
    "instancevg.gres": _gres,
    "propvg.gres": _gres,
    "rela.gres": _rela,
}
