"""The baseline that looks at nothing."""

from __future__ import annotations

import numpy as np

from vgbench.data.rle import rectangle
from vgbench.data.table import AnnotationTable
from vgbench.predictions.table import Predictions
from vgbench.types import Prediction


def trivial_predictions(table: AnnotationTable) -> Predictions:
    """The baseline that looks at nothing: a box of median size (relative to the image) in the image's centre.

    Where the table has masks, the box is the mask too; its centre is the point. Something is always found.
    """
    boxes = [row.boxes / [row.width, row.height, row.width, row.height] for row in table]
    flat = np.concatenate([*boxes, np.zeros((0, 4))])
    half = np.median(flat[:, 2:] - flat[:, :2], axis=0) / 2 if len(flat) else np.array([0.25, 0.25])
    with_masks = table.has_masks
    predictions = []
    shapes: dict[tuple[int, int], Prediction] = {}
    for width, height in zip(table.column("width"), table.column("height"), strict=True):
        if (width, height) not in shapes:
            size = np.array([width, height])
            box = np.concatenate([(0.5 - half) * size, (0.5 + half) * size])
            shapes[width, height] = Prediction(
                boxes=np.array([box], dtype=np.float32),
                scores=np.ones(1),
                mask=rectangle(box.tolist(), int(height), int(width)) if with_masks else None,
                point=(int(width) // 2, int(height) // 2),
            )
        predictions.append(shapes[width, height])
    return Predictions.from_list(table.column("key").tolist(), predictions)
