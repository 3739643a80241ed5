"""What every predictions table has to fulfil, whatever the annotations are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.predictions.table import Predictions

# What a value of each column looks like, for messages.
DESCRIPTION = {
    "key": "text",
    "boxes": "a list of [x1, y1, x2, y2]",
    "scores": "a list of numbers, one per box",
    "mask": '{"size": [height, width], "counts": text}',
    "no_target": "true or false",
    "point": "[x, y] in whole pixels",
    "heatmap": '{"size": [h, w], "values": [h * w numbers]}',
    "canvas_mask": '{"size": [height, width], "counts": text}',
    "geometry": '{"scale": [x, y], "offset": [x, y], "size": [h, w], "canvas": [h, w]}',
    "answer": "text",
    "masks_at": '[{"percent": number, "mask": {"size": [height, width], "counts": text}}, ...]',
}


_NO_MASK: dict[str, Any] = {"size": None, "counts": None}

Problem = tuple[Sequence[bool] | np.ndarray, str]
"""Which rows are bad, bool [n], and what to say of the first of them."""


def check(predictions: Predictions, name: str, unit: str) -> None:
    """Check the values that need no annotations. ``name`` and ``unit`` ("row", "line") go into the message.

    Raises:
        UserError: for the first bad value.
    """
    for column in (_boxes, _points, _masks, _geometry, _heatmaps):
        for bad, problem in column(predictions):
            rows = np.flatnonzero(np.asarray(bad, dtype=bool))
            if len(rows):
                row = int(rows[0])
                key = predictions.keys[row].as_py()
                raise UserError(f"{name}: {unit} {row + 1} (key {key!r}): {problem}")


def _boxes(predictions: Predictions) -> Iterator[Problem]:
    """Boxes and their scores; each check relies on the ones before."""
    counts = predictions.box_counts
    score_counts = pc.list_value_length(predictions.arrow.column("scores")).to_numpy()
    yield counts != score_counts, "as many scores as boxes are needed; leave scores out in .jsonl if there are none"
    owner = np.repeat(np.arange(len(predictions)), counts)

    def any_box(bad: Any) -> np.ndarray:
        return np.bincount(owner[bad], minlength=len(predictions)) > 0

    boxes, scores = predictions.boxes, predictions.scores
    yield any_box(~np.isfinite(boxes).all(1)), "a box is not finite; write no box instead"
    yield any_box((boxes[:, 2:] < boxes[:, :2]).any(1)), "a box has x2 < x1 or y2 < y1; write it as [x1, y1, x2, y2]"
    yield any_box(~((scores >= 0) & (scores <= 1))), "a score is outside [0, 1]; rescale the scores"
    rising = np.zeros(len(scores), dtype=bool)
    rising[1:] = (scores[1:] > scores[:-1]) & (owner[1:] == owner[:-1])
    yield any_box(rising), "scores increase along the list; sort the boxes, best first"


def _points(predictions: Predictions) -> Iterator[Problem]:
    points = predictions.arrow.column("point").to_pylist()
    broken = [point is not None and not _is_pair(point) for point in points]
    yield broken, f"point is incomplete; give {DESCRIPTION['point']}"


def _masks(predictions: Predictions) -> Iterator[Problem]:
    cuts = predictions.arrow.column("masks_at").to_pylist()
    broken = [row is not None and not all(cut and 0 < (cut["percent"] or 0) < 100 for cut in row) for row in cuts]
    yield broken, "masks_at needs a percent of 1 to 99 with each mask; correct it"
    masks: dict[str, Iterable[tuple[int, Any]]] = {
        "mask": enumerate(predictions.masks("mask")),
        "canvas_mask": enumerate(predictions.masks("canvas_mask")),
        "masks_at": ((index, cut["mask"] or _NO_MASK) for index, row in enumerate(cuts) for cut in row or ()),
    }
    for column, indexed in masks.items():
        yield (
            _damaged(indexed, len(predictions)),
            f"{column} is no COCO RLE of its size; encode it with pycocotools.mask.encode",
        )


def _damaged(indexed: Iterable[tuple[int, Any]], count: int) -> np.ndarray:
    """Which rows have a mask that is no RLE of its size, bool [count]."""
    stored = [(index, mask) for index, mask in indexed if mask is not None]
    sizes = [mask["size"] if _is_pair(mask["size"]) else None for _, mask in stored]
    pixels = np.array([-1 if size is None else size[0] * size[1] for size in sizes], dtype=np.int64)
    good = rle.valid([mask["counts"] or "" for _, mask in stored], pixels)
    damaged = np.zeros(count, dtype=bool)
    damaged[[index for (index, _), fine in zip(stored, good, strict=True) if not fine]] = True
    return damaged


def _geometry(predictions: Predictions) -> Iterator[Problem]:
    frames = predictions.arrow.column("geometry").to_pylist()
    broken = [frame is not None and not all(map(_is_pair, frame.values())) for frame in frames]
    yield broken, f"geometry is incomplete; give {DESCRIPTION['geometry']}"


def _heatmaps(predictions: Predictions) -> Iterator[Problem]:
    heat = predictions.arrow.column("heatmap").combine_chunks()
    if heat.null_count == len(heat):
        return
    stored = heat.is_valid().to_pylist()
    sizes = heat.field("size").to_pylist()  # without the values, which are many
    unsized = [valid and not _is_pair(size) for valid, size in zip(stored, sizes, strict=True)]
    yield unsized, "heatmap has no size; give [height, width]"
    lengths = pc.list_value_length(heat.field("values")).to_pylist()
    wrong = [valid and size[0] * size[1] != length for valid, size, length in zip(stored, sizes, lengths, strict=True)]
    yield wrong, "heatmap has not height * width values; give all of them, row by row"


def _is_pair(side: list[float | None] | None) -> bool:
    """Whether both numbers of a pair are there, and no more."""
    return side is not None and len(side) == 2 and None not in side
