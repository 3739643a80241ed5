"""What is wrong with an answer: the wrong object, a loose box, no answer, a rejection or an acceptance that is
false."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from vgbench.data import rle
from vgbench.data.boxes import iou
from vgbench.data.scene import SceneObject, Scenes
from vgbench.metrics.frames import Array
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.verdict import answer_kind, first_boxes, has_heatmap, is_right, rejects

KINDS = (
    *("correct", "wrong_instance", "wrong_category", "loose", "background", "wrong"),
    *("no_answer", "unreadable", "false_rejection", "false_acceptance"),
)
TITLES = {
    "correct": "right",
    "wrong_instance": "wrong instance",
    "wrong_category": "wrong category",
    "loose": "loose box or mask",
    "background": "on nothing annotated",
    "wrong": "wrong (objects not known)",
    "no_answer": "no answer",
    "unreadable": "unreadable answer",
    "false_rejection": "false rejection",
    "false_acceptance": "false acceptance",
}


@dataclass(frozen=True)
class ErrorKinds:
    """The kind of each answer.

    Attributes:
        index: place in :attr:`names`, int64 [n].
        peers: other objects of the target's category, float64 [n]; NaN where that is not known.
        names: :data:`KINDS`.
    """

    index: Array
    peers: Array
    names: tuple[str, ...] = KINDS


def error_kinds(pairs: Pairs, scenes: Scenes | None, unreadable: Collection[str] = ()) -> ErrorKinds:
    """What each answer is.

    An answer belongs to the annotated object that it overlaps most. Right object and IoU < 0.5: "loose"; another object
    of the target's category: "wrong_instance"; of another: "wrong_category"; none: "background". Where the image's
    objects are not known an error is "wrong". The model's own decision that nothing is meant is a rejection.

    Args:
        scenes: all objects of the images, or None.
        unreadable: keys of expressions whose answers could not be read, beside those whose words hold no answer.
    """
    kind = answer_kind(pairs.predictions)
    right = is_right(pairs, kind)
    rejected = rejects(pairs, kind) & (pairs.predictions.no_target == 1)
    words = pairs.predictions.answers()
    empty = _is_empty(pairs, kind)
    names = np.full(len(pairs), "wrong", dtype=object)
    peers = np.full(len(pairs), np.nan)
    boxes, _ = first_boxes(pairs.predictions)
    masks = pairs.predictions.masks() if kind == "mask" else None
    points = pairs.predictions.points
    for index, row in enumerate(pairs.table):
        objects = None if scenes is None else scenes.get(row.image_id)
        target = _target(objects, row.boxes, row.ann_ids) if objects else None
        if target is not None and objects is not None:
            peers[index] = sum(item.category == target.category for item in objects) - 1
        if right[index]:
            names[index] = "correct"
        elif row.no_target:
            names[index] = "false_acceptance"
        elif rejected[index]:
            names[index] = "false_rejection"
        elif empty[index]:
            names[index] = "unreadable" if row.key in unreadable or (words[index] or "").strip() else "no_answer"
        elif target is not None and objects is not None:
            overlaps = _overlaps(objects, kind, boxes[index], None if masks is None else masks[index], points[index])
            names[index] = _name(objects, overlaps, target)
    place = {name: number for number, name in enumerate(KINDS)}
    return ErrorKinds(np.array([place[name] for name in names], dtype=np.int64), peers)


def _name(objects: tuple[SceneObject, ...], overlaps: Array, target: SceneObject) -> str:
    """The kind of a wrong answer."""
    if not overlaps.any():
        return "background"
    best = objects[int(overlaps.argmax())]
    if best.id == target.id:
        return "loose"
    return "wrong_instance" if best.category == target.category else "wrong_category"


def _is_empty(pairs: Pairs, kind: str) -> Array:
    """Whether there is no answer at all."""
    if kind == "boxes":
        return pairs.predictions.box_counts == 0
    if kind == "mask":
        return pairs.mask_areas()[0] == 0
    return (pairs.predictions.points < 0).all(1) & ~has_heatmap(pairs.predictions)


def _target(objects: tuple[SceneObject, ...], boxes: Array, ann_ids: tuple[int, ...]) -> SceneObject | None:
    """The object that is the only target; None for no or several targets."""
    if len(boxes) != 1:
        return None
    box = tuple(boxes[0].tolist())
    return next((item for item in objects if (ann_ids and item.id == ann_ids[0]) or item.box == box), None)


def _overlaps(objects: tuple[SceneObject, ...], kind: str, box: Array, mask: rle.RLE | None, point: Array) -> Array:
    """How much an answer overlaps each object: IoU of boxes or masks, or whether the point is in the box."""
    corners = np.array([item.box for item in objects], dtype=np.float64)
    if kind == "point":
        return np.asarray(((point >= corners[:, :2]) & (point < corners[:, 2:])).all(1), dtype=np.float64)
    if kind == "mask" and all(item.mask is not None for item in objects):
        shared = rle.intersections([mask] * len(objects), [item.mask for item in objects])
        total = rle.areas([mask]) + rle.areas([item.mask for item in objects]) - shared
        return np.divide(shared, total, out=np.zeros(len(objects)), where=total != 0)
    return np.asarray(iou(box[None], corners))
