"""Our metric classes on the predictions of a ``metrics`` case, against what the official evaluators made of them."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vgbench.conform.case import Case
from vgbench.conform.compare import CaseResult
from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.data.table import AnnotationTable
from vgbench.metrics.base import Outcomes
from vgbench.metrics.evaluator import Evaluator
from vgbench.metrics.pointing import enlarge, peak
from vgbench.predictions.table import Predictions
from vgbench.types import Geometry, Prediction

# Tolerances of the case by kind of value; whole numbers and texts must be equal.
EXACT, FLOAT32_PERCENT, TWO_DECIMALS, LIST, REFSEG = 1e-6, 1e-4, 0.005, 1e-5, 1e-4

NOT_OFFERED = {
    "mmdet.flickr30k.merge_boxes": "the official code raises an AttributeError; phrase/merged is MDETR's definition",
}


class UnknownEntry(Exception):
    """No metric of ours belongs to this entry of expected.json."""


Row = dict[str, Any]
Values = Any  # nested dictionaries and lists of numbers, as in expected.json


def run(case: Case) -> CaseResult:
    """Compare every number of ``expected.json``."""
    expected = json.loads((case.path / "expected.json").read_text())
    return judge(compute(case, {task: list(entries) for task, entries in expected.items()}), expected, case.path.name)


def compute(case: Case, wanted: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Values]]:
    """Our values of the wanted entries, task -> entry -> values; entries that nobody knows are left out."""
    cams = case.read("cams.safetensors")
    makers: dict[str, Callable[[str, list[Row]], Values]] = {
        "rec": _rec,
        "res": _res,
        "generalized": _generalized,
        "pointing": lambda name, rows: _pointing(name, rows, cams),
        "phrases": _phrases,
    }
    actual: dict[str, dict[str, Values]] = {}
    for task, names in wanted.items():
        rows = _lines(case, task)
        actual[task] = {}
        for name in names:
            with contextlib.suppress(UnknownEntry):
                actual[task][name] = makers[task](name, rows)
    return actual


def judge(actual: Mapping[str, Any], expected: Mapping[str, Any], name: str) -> CaseResult:
    """Compare ``task -> entry -> values`` with the content of ``expected.json``."""
    result = CaseResult(name=name, passed=True)
    for task, entries in expected.items():
        for entry, content in entries.items():
            if entry in NOT_OFFERED:
                result.not_exposed += 1
            elif entry not in actual.get(task, {}):
                result.failures[f"{task}/{entry}"] = "not produced"
            else:
                _compare(f"{task}/{entry}", actual[task][entry], content["values"], _tolerance(entry), result)
    result.passed = not result.failures
    return result


def _lines(case: Case, name: str) -> list[Row]:
    file = case.path / f"{name}.jsonl"
    try:
        return [json.loads(line) for line in file.read_text().splitlines()]
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; the case is incomplete") from None


def _tolerance(entry: str) -> Callable[[str], float]:
    """Tolerance of a value by its path inside the entry."""
    family = entry.partition(".")[0]

    def of(path: str) -> float:
        if "/iou" in path:
            return LIST
        if entry == "lavt.test" or "/logged_" in path:
            return TWO_DECIMALS
        if entry == "mmdet.refseg":
            return REFSEG
        in_float32 = family in ("seqtr", "simvg", "alvg") or entry.endswith((".det_acc", ".mask"))
        return FLOAT32_PERCENT if in_float32 and family != "vglaw" else EXACT

    return of


def _compare(
    path: str, actual: Values, expected: Values, tolerance: Callable[[str], float], result: CaseResult
) -> None:
    """Walk both trees; every leaf of ``expected`` must be there and within its tolerance."""
    if isinstance(expected, dict | list):
        children = expected.items() if isinstance(expected, dict) else enumerate(expected)
        if not isinstance(actual, type(expected)) or len(actual) != len(expected):
            result.failures[path] = "has other entries than the official result"
            return
        for key, value in children:
            if isinstance(expected, dict) and key not in actual:
                result.failures[f"{path}/{key}"] = "not produced"
            else:
                _compare(f"{path}/{key}", actual[key], value, tolerance, result)
        return
    result.compared += 1
    if isinstance(expected, bool | str | int) and isinstance(actual, bool | str | int):
        if actual != expected:
            result.failures[path] = f"is {actual}, expected {expected}"
        return
    share = abs(float(actual) - float(expected)) / tolerance(path)
    if not share <= 1:
        result.failures[path] = f"is {actual}, expected {expected} ({share:.2f} x tolerance)"
    elif share > result.closest_share:
        result.closest, result.closest_share = path, share


# ---- from the files of a case to a table and predictions


def _table(rows: Iterable[Row]) -> AnnotationTable:
    """A table of rows that give key, size (height, width), boxes, and what else differs from these defaults."""
    base: Row = {"image": "", "expression": "", "masks": [], "polygons": [], "ann_ids": [], "categories": []}
    base |= {"ref_id": None, "sent_id": None, "group": 0, "source": "", "split": "", "image_id": 0}
    full = []
    for row in rows:
        (height, width), rest = row["size"], {key: value for key, value in row.items() if key != "size"}
        full.append({**base, **rest, "height": height, "width": width})
    return AnnotationTable.from_rows(full, {"dataset": "conformance", "split": "", "task": ""})


def _outcomes(spec: str, table: AnnotationTable, predictions: Sequence[Prediction], chunk: int = 20) -> Outcomes:
    """Score through the public evaluator, in several updates."""
    evaluator = Evaluator(table, [spec])
    rows = np.arange(len(table))
    whole = Predictions.from_list(table.column("key").tolist(), predictions)
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        evaluator.add(whole.take(part), part)
    return evaluator.outcomes()[spec]


def _percent(outcomes: Outcomes, names: Iterable[str]) -> list[float]:
    return [outcomes.ratios[name].value for name in names]


def _fractions(outcomes: Outcomes, names: Iterable[str]) -> list[float]:
    return [value / 100 for value in _percent(outcomes, names)]


def _boxes(row: Row) -> tuple[Tensor, Tensor]:
    return torch.tensor(row["pred_boxes"]).reshape(-1, 4), torch.tensor(row["pred_scores"])


def _batch(name: str, rows: Sequence[Row]) -> int:
    """Batch size of an entry called ``....batch32`` or ``....batch_all``."""
    size = re.search(r"batch(\d+)$", name)
    return int(size[1]) if size else len(rows)


FIVE = ("prec@0.5", "prec@0.6", "prec@0.7", "prec@0.8", "prec@0.9")


def _rec(name: str, rows: list[Row]) -> Values:
    def score(variant: str, chosen: list[Row]) -> Outcomes:
        table = _table({"key": r["id"], "size": r["image_size"], "boxes": [r["gt_box"]]} for r in chosen)
        predictions = [Prediction(*_boxes(r), geometry=_canvas_geometry(r)) for r in chosen]
        return _outcomes(f"rec/{variant}" if variant else "rec", table, predictions)

    values: Any
    by_dataset = {key: [r for r in rows if r["dataset"] == key] for key in dict.fromkeys(r["dataset"] for r in rows)}
    tops = ("prec@0.5", "prec@0.5_top5", "prec@0.5_top10")
    on_canvas = [r for r in rows if r["canvas"] is not None]
    if name == "mdetr.precision_at_1_5_10":
        return {key: _fractions(score("giou", part), tops) for key, part in by_dataset.items()}
    if name == "mmdet.precision_at_1_5_10":
        values = {
            f"{key}_precision@{k}": value
            for key, part in by_dataset.items()
            for k, value in zip((1, 5, 10), _fractions(score("topk", part), tops), strict=True)
        }
        return {"mean_precision": float(np.mean(list(values.values()))), **values}
    if re.match(r"(seqtr|simvg|alvg)\.det_acc\.", name):
        clip = "gt_clip+" if ".gt_clipped." in name else ""
        return score(f"{clip}batch_mean@{_batch(name, rows)}", rows).ratios["prec@0.5"].value
    if name in ("instancevg.det_acc", "propvg.det_acc"):
        values = _percent(score("tuple_order", rows), FIVE)
        return {"det_acc": values[0], "det_accs": values}
    if name in ("transvg.accuracy.gt_cxcywh", "transvg.accuracy.gt_int_cxcywh"):
        outcomes = score("canvas_clamp" + ("+int_gt" if "gt_int" in name else ""), on_canvas)
        accuracy, mean = _fractions(outcomes, ("prec@0.5", "miou"))
        iou = outcomes.ratios["miou"].num.tolist()
        return {"n": len(on_canvas), "accuracy": accuracy, "mean_iou": mean, "iou": iou}
    if name == "resvg.accuracy":
        outcomes = score("strict", on_canvas)
        thresholds = [0.5 + 0.05 * step for step in range(9)]
        values = _fractions(outcomes, [f"prec@{round(t, 2):g}" for t in thresholds])
        accuracies = {f"Acc@{t:.2f}": value for t, value in zip(thresholds, values, strict=True)}
        return {**accuracies, "Mean_iou": outcomes.ratios["miou"].value / 100}
    if name == "vglaw.det":
        outcomes = score("canvas", on_canvas)
        value = outcomes.ratios["prec@0.5"].value / 100
        return {"n": len(on_canvas), "prec_at_0_5": value, "iou": outcomes.ratios["miou"].num.tolist()}
    if name == "lmms_eval.rec":
        outcomes = score("vlm", [r for r in on_canvas if not r["tags"][0].startswith("iou_exactly")])
        values = _fractions(outcomes, [f"prec@{t:g}" for t in (0.1, 0.3, 0.5, 0.7, 0.9)])
        accuracies = {f"ACC@{t:g}": value for t, value in zip((0.1, 0.3, 0.5, 0.7, 0.9), values, strict=True)}
        mean, centre = _fractions(outcomes, ("miou", "center_acc"))
        return {"IoU": mean, **accuracies, "Center_ACC": centre}
    if name == "minigpt4.rec":
        outcomes = score("plus1_strict", rows)
        return {"accuracy": outcomes.ratios["prec@0.5"].value, "iou": outcomes.ratios["miou"].num.tolist()}
    if name == "albef.computeIoU":
        chosen = [r for r in rows if r["pred_boxes"][0][2] > r["pred_boxes"][0][0]]
        outcomes = score("inclusive_intersection", chosen)
        accuracy = outcomes.ratios["prec@0.5"].value / 100
        return {"n": len(chosen), "accuracy": accuracy, "iou": outcomes.ratios["miou"].num.tolist()}
    if name == "default.rec":
        outcomes = score("", rows)
        values = dict(zip(FIVE, _fractions(outcomes, FIVE), strict=True))
        iou = outcomes.ratios["miou"].num.tolist()
        return {**values, "mean_iou": outcomes.ratios["miou"].value / 100, "iou": iou}
    raise UnknownEntry(name)


def _canvas_geometry(row: Row) -> Geometry | None:
    canvas = row["canvas"]
    if canvas is None:
        return None
    return Geometry(
        scale=(canvas["ratio_w"], canvas["ratio_h"]),
        offset=(canvas["left"], canvas["top"]),
        size=tuple(row["image_size"]),
        canvas=(canvas["size"], canvas["size"]),
    )


def _res(name: str, rows: list[Row]) -> Values:
    box = torch.zeros(0, 4), torch.zeros(0)
    table = _table(
        {
            "key": r["id"],
            "size": r["image_size"],
            "boxes": [[0, 0, 1, 1]],  # masks are judged; one box says that there is one target
            "masks": [r["gt_mask"]["counts"]],
            "polygons": [r["gt_num_polygons"]],
        }
        for r in rows
    )

    def score(variant: str = "") -> Outcomes:
        spec = f"res/{variant}" if variant else "res"
        return _outcomes(spec, table, [Prediction(*box, mask=r["pred_mask"]) for r in rows])

    names: Any
    found: dict[str, Any]

    def values(outcomes: Outcomes) -> tuple[float, list[float], list[float]]:
        """Mean IoU, the precisions, all IoUs; in percent."""
        iou = 100 * outcomes.ratios["miou"].num
        return outcomes.ratios["miou"].value, _percent(outcomes, FIVE), iou.tolist()

    if name == "lavt.test":
        names = {"mIoU": "miou", "oIoU": "oiou", **{f"Prec@{n[5:]}": n for n in FIVE}}
        return dict(zip(names, _percent(score(), names.values()), strict=True))
    if name == "rela.refcoco":
        names = {"gIoU": "miou", "cIoU": "oiou", **{f"Pr@{n[5:]}": n for n in FIVE[2:]}}
        found = dict(zip(names, _percent(score(), names.values()), strict=True))
        return {**found, "T_acc": 0, "N_acc": 0}  # not defined for RES; the official code prints 0
    if name == "mmdet.refseg":
        return dict(zip(("cIoU", "mIoU"), _percent(score(), ("oiou", "miou")), strict=True))
    if re.match(r"(seqtr|simvg)\.mask\.", name):
        outcomes = score(f"crowd+batch_mean@{_batch(name, rows)}")
        mean, precisions, _ = values(outcomes)
        return {"mIoU": mean, "mask_acc": precisions, "iou": values(score("crowd"))[2]}
    if name == "alvg.mask":
        mean, precisions, iou = values(score("batch_mean@1"))
        return {"mIoU": mean, "mIoU_is_nan": math.isnan(mean), "iou": iou, "mask_acc": precisions}
    if name in ("instancevg.mask", "propvg.mask"):
        outcomes = score()
        return {"mIoU": values(outcomes)[0], "oIoU": outcomes.ratios["oiou"].value, "mask_acc": values(outcomes)[1]}
    if name == "cris.validate":
        outcomes = score("cris")
        found = {f"Pr@{n[-1]}0": value for n, value in zip(FIVE, _fractions(outcomes, FIVE), strict=True)}
        return {"IoU": outcomes.ratios["miou"].value / 100, "prec": found}
    if name == "vglaw.mask":
        outcomes = score("eps_one")
        names = [f"prec@{round(0.5 + 0.05 * step, 2):g}" for step in range(10)]
        return {
            "mIoU": outcomes.ratios["miou"].value / 100,
            "iou": outcomes.ratios["miou"].num.tolist(),
            "ap_050_095": _fractions(outcomes, names),
        }
    raise UnknownEntry(name)


def _generalized(name: str, rows: list[Row]) -> Values:
    table = _table(
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
    predictions = [Prediction(*_boxes(r), mask=r["pred_mask"], no_target=r["pred_no_target"]) for r in rows]

    def score(spec: str) -> Outcomes:
        return _outcomes(spec, table, predictions)

    three = ("pr@f1", "t_acc", "n_acc")
    as_fractions = {
        "grefcoco.official": "grec",
        "grefcoco.iou_substituted": "grec/iou",
        "mmdet.grefcoco": "grec/first_box",
    }
    if name in as_fractions:
        return dict(zip(("F1_score", "T_acc", "N_acc"), _fractions(score(as_fractions[name]), three), strict=True))
    if name in ("instancevg.grec", "propvg.grec"):
        spec = "grec/whole_set" if name == "propvg.grec" else "grec"
        return _percent(score(spec), ("pr@f1", "n_acc", "t_acc"))
    if re.match(r"(simvg\.grec|alvg\.grec_gres)\.", name):
        size = _batch(name, rows)
        f1, rejected = _percent(score(f"grec/batch_mean@{size}"), ("pr@f1", "n_acc"))
        logged = {"logged_decoder_f1_score": f1, "logged_decoder_n_acc": rejected}
        if name.startswith("simvg"):
            return {"returned": [f1, rejected], **logged}
        mean, cumulative = _percent(score(f"gres/nt_from_mask_batch_mean@{size}"), ("giou", "ciou"))
        masks = {"logged_decoder_giou": mean, "logged_decoder_ciou": cumulative}
        return {"returned": [f1, mean], **logged, **masks}
    if name in ("instancevg.gres", "propvg.gres", "rela.gres"):
        outcomes = score("gres" if name == "rela.gres" else "gres/nt_from_boxes")
        mean, cumulative, targets, rejected = _percent(outcomes, ("giou", "ciou", "t_acc", "n_acc"))
        precisions = _percent(outcomes, ("prec@0.7", "prec@0.8", "prec@0.9"))
        if name == "rela.gres":
            found = {f"Pr@{t}": value for t, value in zip((0.7, 0.8, 0.9), precisions, strict=True)}
            return {"gIoU": mean, "cIoU": cumulative, "T_acc": targets / 100, "N_acc": rejected / 100, **found}
        found = {"gIoU": mean, "cIoU": cumulative, "T_acc": targets, "N_acc": rejected}
        return {**found, "Pr_07_08_09": precisions}
    raise UnknownEntry(name)


def _pointing(name: str, rows: list[Row], cams: dict[str, Tensor]) -> Values:
    def heat(row: Row) -> Tensor:
        return cams["cam24" if row["protocol"] == "refcoco" else "cam16"][row["cam_index"]]

    def score(spec: str, chosen: list[Row]) -> float:
        table = _table({"key": r["id"], "size": r["image_size"], "boxes": r["gt_boxes"]} for r in chosen)
        predictions = []
        for row in chosen:
            boxes = torch.tensor(row["detections_xywh"] if spec != "pointing" else []).reshape(-1, 4)
            boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
            predictions.append(Prediction(boxes, torch.ones(len(boxes)), heatmap=heat(row)))
        return (
            _outcomes(spec, table, predictions).ratios["prec@0.5" if spec != "pointing" else "pointing_acc"].value / 100
        )

    def splits(spec: str, chosen: list[Row], names: Mapping[str, Sequence[str]]) -> Values:
        return {key: score(spec, [r for r in chosen if r["split"] in parts]) for key, parts in names.items()}

    refcoco = [r for r in rows if r["protocol"] == "refcoco"]
    each = {"val_d": ("val",), "testA_d": ("testA",), "testB_d": ("testB",)}
    if name == "amc.pointing.refcoco":
        return splits("pointing", refcoco, each)
    if name == "amc.pointing.refclef_style":
        return splits("pointing", refcoco, {"val_d": ("val",), "test": ("testA", "testB")})
    if name == "amc.pointing.flickr":
        flickr = [r for r in rows if r["protocol"] == "flickr"]
        return splits("pointing", flickr, {"val_d": ("val",), "test": ("test",)})
    if name == "amc.box_from_proposals":
        # The official code keeps the previous answer where no proposal has heat; those samples are not in the entry.
        return splits("pointing/box_from_proposals", [r for r in refcoco if heat(r).min() >= 0], each)
    if name == "points_xy":
        return [list(peak(enlarge(heat(r), tuple(r["image_size"])))) for r in rows]
    raise UnknownEntry(name)


def _phrases(name: str, images: list[Row]) -> Values:
    rows: list[Row] = []
    predictions = []
    for number, image in enumerate(images):
        for sentence in image["sentences"]:
            ranked = iter(sentence["pred_boxes"])
            for phrase in sentence["phrases"]:
                boxes = image["entities"][phrase["phrase_id"]]
                types = "/".join(phrase["phrase_type"])
                rows.append(
                    {"key": str(len(rows)), "image_id": number, "size": (1, 1), "boxes": boxes, "categories": [types]}
                )
                found = torch.tensor(next(ranked) if boxes else []).reshape(-1, 4).float()
                predictions.append(Prediction(found, torch.ones(len(found))))
    table = _table(rows)
    names = {"1": "1", "5": "5", "10": "10", "-1": "upper"}

    def score(spec: str) -> Outcomes:
        return _outcomes(spec, table, predictions)

    if name in ("mdetr.recall.any_box", "mdetr.recall.merged_boxes", "mmdet.flickr30k.any_box"):
        outcomes = score("phrase/merged" if name == "mdetr.recall.merged_boxes" else "phrase")
        groups = {"all": ""} | {
            metric[len("recall@1[") : -1]: metric[len("recall@1") :]
            for metric in outcomes.ratios
            if metric.startswith("recall@1[") and name != "mmdet.flickr30k.any_box"
        }
        return {
            key: {group: outcomes.ratios[f"recall@{k}{suffix}"].value / 100 for group, suffix in groups.items()}
            for key, k in names.items()
        }
    if name == "infoground.recall_and_point_accuracy":
        outcomes = score("phrase/plus1")
        recall = {k: outcomes.ratios[f"recall@{k}"].value for k in ("1", "5", "10")}
        count = int(outcomes.ratios["recall@1"].den.sum())
        return {"num_phrases": count, "recall": recall, "pt_recall": outcomes.ratios["center_acc"].value}
    raise UnknownEntry(name)


def alvg_metrics(case: Case) -> dict[str, Tensor]:
    """Expected tensors of an ``alvg`` case of mode ``metrics``: one batch of ALVG's validation."""
    inputs = {name: value.cpu() for name, value in case.inputs.items()}
    size = inputs["pred_masks"].shape[-2:]
    owner = inputs["target_index"]
    masks = [rle.encode((mask >= 0.5).numpy()) for mask in inputs["pred_masks"]]
    targets = [rle.encode(mask.numpy()) for mask in inputs["target_masks"]]

    def score(spec: str, samples: Sequence[int], single: bool) -> Outcomes:
        rows, predictions = [], []
        for sample in samples:
            index = torch.nonzero(owner == sample).flatten().tolist()[: 1 if single else None]
            boxes = inputs["target_boxes"][index]
            counts = [targets[i]["counts"] for i in index]
            row = {"key": str(sample), "size": size, "boxes": boxes, "masks": counts, "polygons": [1] * len(index)}
            rows.append(row)
            ranked = inputs["pred_scores"][sample].argsort(descending=True)
            boxes, scores = inputs["pred_boxes"][sample][ranked], inputs["pred_scores"][sample][ranked]
            predictions.append(Prediction(boxes, scores, mask=masks[sample]))
        return _outcomes(spec, _table(rows), predictions)

    everything = list(range(len(masks)))
    samples = [sample for sample in everything if bool((owner == sample).any())]
    grec = score("grec", everything, single=False)
    gres = score("gres/nt_from_mask", everything, single=False)
    boxes, segments = score("rec", samples, single=True), score("res", samples, single=True)
    n_acc, t_acc = gres.ratios["n_acc"], gres.ratios["t_acc"]
    rejected = n_acc.num.sum()  # no-target expressions with an empty mask
    missed = t_acc.den.sum() - t_acc.num.sum()  # targets with an empty mask
    values = {
        "grec.F1_score": grec.ratios["pr@f1"].value,
        "grec.N_acc": grec.ratios["n_acc"].value,
        "grec.gIoU": gres.ratios["giou"].value,
        "grec.cIoU": gres.ratios["ciou"].value,
        # The official formulas: one too many in both denominators, and T-acc is a precision of the rejection.
        "grec.seg_T_acc": rejected / (rejected + missed + 1),
        "grec.seg_N_acc": rejected / (n_acc.den.sum() + 1),
        "grec.per_sample_correct": grec.ratios["pr@f1"].num,
        "rec.det_acc": boxes.ratios["prec@0.5"].value,
        "rec.mask_iou": segments.ratios["miou"].value,
        "rec.mask_acc_at_thrs": _percent(segments, FIVE),
    }
    tensors = {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}
    return {**tensors, "rec.samples": torch.tensor(samples)}
