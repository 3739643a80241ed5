"""The noise ceiling: how much of the errors lies on expressions that annotators reject, or annotate otherwise."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from vgbench.core.errors import UserError
from vgbench.core.grid import Grid, Heading, text_row
from vgbench.core.registry import datasets
from vgbench.data import rle
from vgbench.data.boxes import iou
from vgbench.data.filters import named_filters
from vgbench.data.table import AnnotationTable, Row
from vgbench.leaderboard.errors import SplitErrors
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.verdict import answer_kind, is_right

SAME = 0.5  # IoU from which two boxes or masks are the same


def ceiling_grid(part: SplitErrors, name: str) -> Grid:
    """How much of the errors lies on expressions that somebody rejected.

    Args:
        name: a published review (:func:`~vgbench.data.filters.named_filters`), or a data set with a second annotation
            of the same images and expressions; its files lie below the same data_root.

    Raises:
        UserError: if there is neither, or its files are not there or do not fit.
    """
    reviews = named_filters()
    if name in reviews:
        rejected = reviews[name](type(part.data).name, part.data.data_root).left_out(part.table, part.split)
        return _rejected_grid(part, name, rejected)
    if name in datasets:
        second = datasets.load(name)(part.data.data_root)
        return _second_grid(part, name, second.load(second.check_split(part.split)))
    known = ", ".join([*reviews, *datasets])
    raise UserError(f"--ceiling {name}: neither a published review nor a data set; there are: {known}")


def _rejected_grid(part: SplitErrors, name: str, rejected: np.ndarray) -> Grid:
    headings = [Heading("Row", align="left"), *map(Heading, ("right", "right, accepted", "errors, rejected"))]
    rows = []
    for row in part.rows:
        wrong = ~row.right
        share = f"{100 * wrong[rejected].sum() / wrong.sum():.1f}" if wrong.any() else "n/d"
        accepted = f"{100 * row.right[~rejected].mean():.2f}" if (~rejected).any() else "n/d"
        rows.append(text_row(row.label, f"{100 * row.right.mean():.2f}", accepted, share))
    note = (
        f"{name} rejects {int(rejected.sum())} of {len(rejected)} expressions ({100 * rejected.mean():.2f} %). "
        "'errors, rejected': the share of a row's errors that lies on them, in percent"
    )
    return Grid(f"Noise ceiling by {name}: {part.where}", headings, rows, notes=[note])


def _second_grid(part: SplitErrors, name: str, second: AnnotationTable) -> Grid:
    """Against a second annotation: what an answer that repeats the first one would score, and what the runs do."""
    places: dict[tuple[int, str], list[int]] = {}
    for place, row in enumerate(second):
        places.setdefault(_identity(row), []).append(place)
    matches = [_nearest(row, [second.row(place) for place in places.get(_identity(row), ())]) for row in part.table]
    covered = np.array([match is not None for match in matches], dtype=bool)
    if not covered.any():
        raise UserError(f"--ceiling {name}: no expression of {part.where} is in it")
    overlaps = np.array(
        [_same(row, match) for row, match in zip(part.table, matches, strict=True) if match is not None]
    )
    targets = AnnotationTable.from_rows(
        [{**vars(match), "key": row.key, "masks": [mask["counts"] for mask in match.masks]}
         for row, match in zip(part.table, matches, strict=True) if match is not None],
        part.table.info,
    )  # fmt: skip
    headings = [Heading("Row", align="left"), *map(Heading, ("right, first", "right, second", "errors, not in it"))]
    rows = [text_row("the first annotation itself", "100.00", f"{100 * (overlaps >= SAME).mean():.2f}", "")]
    for answered in part.rows:
        pairs = Pairs(answered.predictions.take(np.flatnonzero(covered)), targets, np.arange(len(targets)))
        right, wrong = is_right(pairs, answer_kind(answered.predictions)), ~answered.right
        share = f"{100 * wrong[~covered].sum() / wrong.sum():.1f}" if wrong.any() else "n/d"
        before = f"{100 * answered.right[covered].mean():.2f}"
        rows.append(text_row(answered.label, before, f"{100 * right.mean():.2f}", share))
    note = (
        f"{int(covered.sum())} of {len(covered)} expressions are in {name}; there the two annotations overlap by "
        f"{100 * overlaps.mean():.2f} % (mean IoU). 'right' is on these, 'errors, not in it' the share of the others"
    )
    return Grid(f"Noise ceiling by {name}: {part.where}", headings, rows, notes=[note])


def _identity(row: Row) -> tuple[int, str]:
    """Image and words, without case and punctuation."""
    return row.image_id, " ".join(re.sub(r"[^\w\s]|_", " ", row.expression.lower()).split())


def _nearest(row: Row, others: Sequence[Row]) -> Row | None:
    """Of several annotations of the same words in an image the one whose box fits best."""
    fitting = [other for other in others if len(other.boxes) == len(row.boxes) == 1]
    return max(fitting, key=lambda other: float(iou(row.boxes[0], other.boxes[0])), default=None)


def _same(row: Row, other: Row) -> float:
    """IoU of the masks of two annotations, or of their boxes where one has none."""
    if row.masks and other.masks and row.masks[0]["size"] == other.masks[0]["size"]:
        shared = int(rle.intersections(list(row.masks[:1]), list(other.masks[:1]))[0])
        areas = rle.areas([row.masks[0], other.masks[0]])
        return shared / max(int(areas.sum()) - shared, 1)
    return float(iou(row.boxes[0], other.boxes[0]))
