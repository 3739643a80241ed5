"""A hand-made data set for probes: two images of 100 x 60 pixels with rectangles for objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vgbench.data import rle
from vgbench.data.scene import CATEGORY, SceneObject
from vgbench.data.table import AnnotationTable
from vgbench.predictions.table import Predictions
from vgbench.probes.annotations import Annotations
from vgbench.probes.catalog import parse
from vgbench.probes.questions import Questions, ask
from vgbench.types import Prediction

WIDTH, HEIGHT = 100, 60
# image -> objects: id, category, colour, box
OBJECTS: dict[int, list[tuple[int, str, str, tuple[int, int, int, int]]]] = {
    1: [
        (11, "dog", "red", (2, 10, 22, 30)),
        (12, "dog", "red", (70, 10, 95, 40)),
        (13, "cat", "blue", (40, 30, 60, 55)),
    ],
    2: [(21, "horse", "white", (10, 10, 50, 50)), (22, "cat", "red", (60, 20, 90, 50))],
}
WORDS = {colour: ("colour", colour) for colour in ("red", "blue", "white", "green")}


def annotations(*rows: tuple[str, int, str, list[int]], complete: bool = True, task: str = "rec") -> Annotations:
    """A split of rows (key, image, expression, ids of targets); ``complete``: all objects of an image are known."""
    by_id = {item[0]: item for objects in OBJECTS.values() for item in objects}
    columns: list[dict[str, Any]] = []
    for number, (key, image, expression, targets) in enumerate(rows):
        boxes = [by_id[target][3] for target in targets]
        columns.append(
            {
                "key": key,
                "image_id": image,
                "image": f"{image}.png",
                "width": WIDTH,
                "height": HEIGHT,
                "expression": expression,
                "boxes": boxes,
                "masks": [rle.rectangle(box, HEIGHT, WIDTH)["counts"] for box in boxes],
                "polygons": [1] * len(boxes),
                "ann_ids": targets,
                "categories": [by_id[target][1] for target in targets],
                "ref_id": None,
                "sent_id": None,
                "group": number,
                "source": "coco",
                "split": "val",
            }
        )
    table = AnnotationTable.from_rows(columns, {"dataset": "drawn", "split": "val", "task": task})
    scenes = {
        image: tuple(
            SceneObject(
                number,
                tuple(map(float, box)),
                {CATEGORY: category, "colour": colour},
                rle.rectangle(box, HEIGHT, WIDTH),
            )
            for number, category, colour, box in objects
        )
        for image, objects in OBJECTS.items()
    }
    return Annotations(table, scenes if complete else None, WORDS)


def questions(spec: str, data: Annotations, seed: int = 0) -> Questions:
    """The questions of the one probe that ``spec`` names."""
    (probe,) = parse(spec)
    return ask(probe, data, "val", seed)


def texts(asked: Questions) -> dict[str, str]:
    """Key -> changed expression."""
    return dict(zip(asked.table.column("key").tolist(), asked.table.column("expression").tolist(), strict=True))


def boxes(asked: Questions) -> dict[str, list[list[float]]]:
    """Key -> boxes of the right answer."""
    return {row.key: row.boxes.tolist() for row in asked.table}


def oracle(table: AnnotationTable) -> Predictions:
    """The ground truth as predictions: boxes, masks, and no answer where nothing is meant."""
    answers = [
        Prediction(
            torch.tensor(row.boxes, dtype=torch.float32).reshape(-1, 4),
            torch.ones(len(row.boxes)),
            mask=rle.union(list(row.masks)),
            no_target=row.no_target,
        )
        for row in table
    ]
    return Predictions.from_list(table.column("key").tolist(), answers)


def fixed(table: AnnotationTable, box: tuple[float, float, float, float], score: float = 1.0) -> Predictions:
    """One and the same box for every expression."""
    one = Prediction(torch.tensor([box]), torch.tensor([score], dtype=torch.float64))
    return Predictions.from_list(table.column("key").tolist(), [one] * len(table))


def image() -> np.ndarray:
    """A picture whose red channel counts columns, the green one rows."""
    picture = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    picture[..., 0] = np.arange(WIDTH)
    picture[..., 1] = np.arange(HEIGHT)[:, None]
    return picture
