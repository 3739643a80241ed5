"""Slices of a table, on data whose answers can be worked out by hand."""

from __future__ import annotations

import numpy as np

from vgbench.data.table import AnnotationTable
from vgbench.metrics import slices
from vgbench.metrics.base import Outcomes, Ratio
from vgbench.metrics.slices import Buckets, buckets, sliced

TEXTS = (
    "dog",
    "the left dog",
    "a dog that sleeps on the sofa",
    "the second of all dogs that lie there on the big sofa",
)
RIGHT, WRONG = [10.0, 10, 30, 30], [60.0, 60, 90, 90]


def row(number: int, **changes) -> dict:
    return {
        **{"key": f"k{number}", "image_id": number // 2, "image": "a.png", "width": 100, "height": 100},
        **{"expression": TEXTS[number % 4], "boxes": [RIGHT], "masks": [], "polygons": [], "ann_ids": [number % 3]},
        **{"categories": ["dog"], "ref_id": None, "sent_id": None, "group": 0, "source": "x", "split": "val"},
        **changes,
    }


def table(rows: list[dict], task: str = "rec") -> AnnotationTable:
    return AnnotationTable.from_rows(rows, {"dataset": "synthetic", "split": "val", "task": task})


def named(rule: Buckets) -> list[str | None]:
    return [None if place < 0 else rule.names[place] for place in rule.index]


def test_the_buckets_of_every_rule() -> None:
    rows = [row(number) for number in range(4)]
    rows[1].update(boxes=[[0, 0, 100, 50]])  # half of the image
    rows[2].update(boxes=[], ann_ids=[], categories=[])
    rows[3].update(boxes=[RIGHT, WRONG], ann_ids=[0, 1], categories=["dog", "cat"])
    names = {name: named(rule) for name, rule in buckets(table(rows, "grec")).items()}
    assert names == {
        "expression length": ["1-2 words", "3-5 words", "6-9 words", "10+ words"],
        "location words": ["without", "with", "without", "with"],
        "target size": ["small (< 5 %)", "large (>= 20 %)", None, "medium"],  # 4 %, 50 %, -, 4 % + 9 %
        "targets": ["one", "one", "none", "two"],
    }  # "same category": image 0 has two dogs for both its expressions, one bucket only


def test_other_objects_of_the_category_are_counted_once_each() -> None:
    rows = [row(number, image_id=number // 3, ann_ids=[number % 2]) for number in range(4)]
    assert named(buckets(table(rows))["same category"]) == ["1 other"] * 3 + ["alone"]


def test_a_rule_that_splits_nothing_is_left_out() -> None:
    assert buckets(table([row(0), row(4)])) == {}


def test_metrics_by_bucket() -> None:
    rows = table([row(number) for number in range(8)])
    right = np.array([1.0, 1, 0, 0, 1, 0, 0, 0])
    outcomes = Outcomes(np.arange(8), {"prec@0.5": Ratio(right, np.ones(8)), "n_acc": Ratio(right * 0, right * 0)})
    by_rule = sliced(outcomes, "prec@0.5", rows, bootstrap=50)
    length = by_rule["expression length"]
    assert [(name, metric.value, metric.n) for name, metric in length.items()] == [
        *(("1-2 words", 100.0, 2), ("3-5 words", 50.0, 2), ("6-9 words", 0.0, 2), ("10+ words", 0.0, 2)),
    ]
    assert (length["1-2 words"].low, length["3-5 words"].low, length["3-5 words"].high) == (100.0, 0.0, 100.0)
    assert sliced(outcomes, "n_acc", rows, bootstrap=50) == {}
    of_headline = slices.headline(outcomes, "rec", rows, bootstrap=50)
    assert of_headline.keys() == {"prec@0.5"} and of_headline["prec@0.5"] == by_rule
