"""Targets of one expression, as annotations of several layouts give them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, Literal

from vgbench.data.builder import ImageRecord, SentenceIds, TableBuilder, Targets
from vgbench.data.checks import BadSample, check_box, check_mask, check_text, four_numbers, shown, take


class TargetReader:
    """Checks targets of one image size at a time and gathers them; counts targets whose mask is missing."""

    def __init__(self) -> None:
        self.without_mask = 0

    def gather(
        self, targets: list[dict[str, Any]], width: int, height: int, form: Literal["xywh", "xyxy"] = "xywh"
    ) -> Targets:
        """``targets``: {box (``form``), segmentation, ann_id (int or None), category (str or None)} each.

        Where some targets of the expression have a mask and others have none, the latter get an empty one, so that
        the union is that of the known masks.

        Raises:
            BadSample: see :func:`check_box` and :func:`check_mask`.
        """
        boxes = [check_box(target["box"], width, height, form) for target in targets]
        masks = [check_mask(target.get("segmentation"), width, height) for target in targets]
        with_mask = any(mask is not None for mask in masks)
        self.without_mask += masks.count(None)
        if with_mask:
            masks = [mask if mask is not None else (_empty_rle(width, height), 0) for mask in masks]
        ann_ids = [ann for target in targets if isinstance(ann := target.get("ann_id"), int)]
        categories = [name for target in targets if (name := target.get("category")) is not None]
        return Targets(
            boxes=boxes,
            masks=[mask[0] for mask in masks if mask is not None] if with_mask else [],
            polygons=[mask[1] for mask in masks if mask is not None] if with_mask else [],
            ann_ids=ann_ids if len(ann_ids) == len(targets) else [],
            categories=categories if len(categories) == len(targets) else [],
        )


def coco_target(annotation: Any, id_key: str = "id") -> dict[str, Any]:
    """A target for :meth:`TargetReader.gather` from an annotation as COCO writes it, its id under ``id_key``.

    Raises:
        BadSample: if it is no object with a box.
    """
    box = take(annotation, "bbox", list)
    return {"box": box, "segmentation": annotation.get("segmentation"), "ann_id": annotation.get(id_key)}


def add_ref(
    builder: TableBuilder,
    ref_id: int,
    image: ImageRecord,
    sentences: Iterable[tuple[str, int]],
    targets: Targets,
    group: int,
) -> None:
    """Add a ref: one row for each (text, sent_id)."""
    for text, sent_id in sentences:
        builder.add(f"{ref_id}.{sent_id}", image, text, targets, group, SentenceIds(ref_id, sent_id))


def merge_boxes(targets: list[dict[str, Any]], form: Literal["xywh", "xyxy"]) -> dict[str, Any]:
    """The target of a phrase with several boxes where one is wanted: the box around them (in ``form``).

    Raises:
        BadSample: if one of them is no box.
    """
    if len(targets) == 1:
        return targets[0]
    boxes = [four_numbers(target["box"]) for target in targets]
    if form == "xywh":
        boxes = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[2] for box in boxes), max(box[3] for box in boxes)
    around = [left, top, right, bottom] if form == "xyxy" else [left, top, right - left, bottom - top]
    return {"box": around, "category": targets[0].get("category")}


def _empty_rle(width: int, height: int) -> str:
    packed = check_mask({"size": [height, width], "counts": [width * height]}, width, height)
    assert packed is not None
    return packed[0]


def expression_of(sentence: Any) -> str:
    """The text as typed: a string, or a dictionary with ``raw`` (else ``sent``).

    Raises:
        BadSample: if there is no text.
    """
    if isinstance(sentence, dict):
        sentence = sentence.get("raw") or sentence.get("sent")
    if not isinstance(sentence, str) or not sentence.strip():
        raise BadSample("expression without text", shown(sentence))
    return check_text(sentence)


def number_in(name: str) -> int:
    """The last number in a file name: the image id of COCO, SAIAPR and Flickr30k names.

    Raises:
        BadSample: if there is none.
    """
    digits = re.findall(r"\d+", PurePosixPath(name).stem)
    if not digits or len(digits[-1]) > 18:
        raise BadSample("image name without an id", shown(name))
    return int(digits[-1])
