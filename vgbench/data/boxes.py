"""Areas and overlap of boxes in float64. Boxes are xyxy, any leading axes, which broadcast.

(:mod:`vgbench.metrics.boxes` has the other overlaps of the evaluators, :mod:`vgbench.layers.boxes` the differentiable
float32 counterpart for losses.)
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def sides(boxes: Array) -> tuple[Array, Array]:
    """Width and height."""
    return boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]


def divide(numerator: Array, denominator: Array) -> Array:
    """``numerator / denominator``, 0 where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator != 0)


def overlap(first: Array, second: Array, extra: float = 0.0) -> tuple[Array, Array]:
    """Width and height of the intersection; ``extra`` is added to both before negative values become 0."""
    width = np.minimum(first[..., 2], second[..., 2]) - np.maximum(first[..., 0], second[..., 0]) + extra
    height = np.minimum(first[..., 3], second[..., 3]) - np.maximum(first[..., 1], second[..., 1]) + extra
    return np.maximum(width, 0), np.maximum(height, 0)


def areas(first: Array, second: Array) -> tuple[Array, Array]:
    """Intersection and union."""
    width, height = overlap(first, second)
    intersection = width * height
    return intersection, np.multiply(*sides(first)) + np.multiply(*sides(second)) - intersection


def iou(first: Array, second: Array) -> Array:
    """Intersection over union, in [0, 1]; 0 if the union is empty."""
    return divide(*areas(first, second))
