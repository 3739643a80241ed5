"""Recall of the phrases of a sentence (Flickr30k Entities), as the official evaluators count it."""

from __future__ import annotations

import torch

from vgbench.methods.evaluators.scoring import Entries, Row, Values, outcomes, table
from vgbench.metrics.base import Outcomes
from vgbench.types import Prediction

RANKS = {"1": "1", "5": "5", "10": "10", "-1": "upper"}  # official name -> ours


def _score(images: list[Row], spec: str) -> Outcomes:
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
                answer = torch.tensor(next(ranked) if boxes else []).reshape(-1, 4).float()
                predictions.append(Prediction(answer, torch.ones(len(answer))))
    return outcomes(spec, table(rows), predictions)


def _recall(name: str, images: list[Row]) -> Values:
    scores = _score(images, "phrase/merged" if name == "mdetr.recall.merged_boxes" else "phrase")
    groups = {"all": ""} | {
        metric[len("recall@1[") : -1]: metric[len("recall@1") :]
        for metric in scores.ratios
        if metric.startswith("recall@1[") and name != "mmdet.flickr30k.any_box"
    }
    return {
        rank: {group: scores.ratios[f"recall@{ours}{suffix}"].value / 100 for group, suffix in groups.items()}
        for rank, ours in RANKS.items()
    }


def _infoground(name: str, images: list[Row]) -> Values:
    scores = _score(images, "phrase/plus1")
    recall = {k: scores.ratios[f"recall@{k}"].value for k in ("1", "5", "10")}
    count = int(scores.ratios["recall@1"].den.sum())
    return {"num_phrases": count, "recall": recall, "pt_recall": scores.ratios["center_acc"].value}


ENTRIES: Entries = {
    "mdetr.recall.any_box": _recall,
    "mdetr.recall.merged_boxes": _recall,
    "mmdet.flickr30k.any_box": _recall,
    "infoground.recall_and_point_accuracy": _infoground,
}
