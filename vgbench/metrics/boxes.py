"""Overlaps of boxes in float64, as the evaluators define them. Boxes are xyxy, any leading axes, which broadcast.

(:mod:`vgbench.layers.boxes` is the differentiable float32 counterpart for losses.)
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def _sides(boxes: Array) -> tuple[Array, Array]:
    return boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]


def _divide(numerator: Array, denominator: Array) -> Array:
    """``numerator / denominator``, 0 where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator != 0)


def _overlap(first: Array, second: Array, extra: float = 0.0) -> tuple[Array, Array]:
    """Width and height of the intersection; ``extra`` is added to both before negative values become 0."""
    width = np.minimum(first[..., 2], second[..., 2]) - np.maximum(first[..., 0], second[..., 0]) + extra
    height = np.minimum(first[..., 3], second[..., 3]) - np.maximum(first[..., 1], second[..., 1]) + extra
    return np.maximum(width, 0), np.maximum(height, 0)


def _areas(first: Array, second: Array) -> tuple[Array, Array]:
    """Intersection and union."""
    width, height = _overlap(first, second)
    intersection = width * height
    return intersection, np.multiply(*_sides(first)) + np.multiply(*_sides(second)) - intersection


def iou(first: Array, second: Array) -> Array:
    """Intersection over union, in [0, 1]; 0 if the union is empty."""
    return _divide(*_areas(first, second))


def giou(first: Array, second: Array) -> Array:
    """Generalised IoU, in [-1, 1]: IoU minus the share of the enclosing box that neither covers.

    Source: Rezatofighi et al., CVPR 2019. The terms of an empty union or of an empty enclosing box are 0.
    """
    intersection, union = _areas(first, second)
    width = np.maximum(first[..., 2], second[..., 2]) - np.minimum(first[..., 0], second[..., 0])
    height = np.maximum(first[..., 3], second[..., 3]) - np.minimum(first[..., 1], second[..., 1])
    hull = width * height
    return _divide(intersection, union) - _divide(hull - union, hull)


def iou_plus1(first: Array, second: Array) -> Array:
    """IoU of boxes whose right and bottom edges are the last pixels inside: every side is one pixel longer."""
    grow = np.array([0.0, 0.0, 1.0, 1.0])
    return iou(first + grow, second + grow)


def iou_inclusive_intersection(first: Array, second: Array) -> Array:
    """The IoU of MAttNet, ALBEF and AMC: inclusive pixels in the intersection only, areas are width times height.

    It is the plain IoU where the overlap is wider and higher than one pixel, and 0 elsewhere.
    """
    width, height = _overlap(first, second)
    intersection = np.where((width > 1) & (height > 1), width * height, 0.0)
    union = np.multiply(*_sides(first)) + np.multiply(*_sides(second)) - intersection
    return _divide(intersection, union)
