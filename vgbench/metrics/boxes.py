"""Overlaps of boxes in float64, as the evaluators define them. Boxes are xyxy, any leading axes, which broadcast.

(:mod:`vgbench.layers.boxes` is the differentiable float32 counterpart for losses.)
"""

from __future__ import annotations

import numpy as np

from vgbench.data.boxes import areas, divide, iou, overlap, sides

Array = np.ndarray


def giou(first: Array, second: Array) -> Array:
    """Generalised IoU, in [-1, 1]: IoU minus the share of the enclosing box that neither covers.

    Source: Rezatofighi et al., CVPR 2019. The terms of an empty union or of an empty enclosing box are 0.
    """
    intersection, union = areas(first, second)
    width = np.maximum(first[..., 2], second[..., 2]) - np.minimum(first[..., 0], second[..., 0])
    height = np.maximum(first[..., 3], second[..., 3]) - np.minimum(first[..., 1], second[..., 1])
    hull = width * height
    return divide(intersection, union) - divide(hull - union, hull)


def iou_plus1(first: Array, second: Array) -> Array:
    """IoU of boxes whose right and bottom edges are the last pixels inside: every side is one pixel longer."""
    grow = np.array([0.0, 0.0, 1.0, 1.0])
    return iou(first + grow, second + grow)


def iou_inclusive_intersection(first: Array, second: Array) -> Array:
    """The IoU of MAttNet, ALBEF and AMC: inclusive pixels in the intersection only, areas are width times height.

    It is the plain IoU where the overlap is wider and higher than one pixel, and 0 elsewhere.
    """
    width, height = overlap(first, second)
    intersection = np.where((width > 1) & (height > 1), width * height, 0.0)
    union = np.multiply(*sides(first)) + np.multiply(*sides(second)) - intersection
    return divide(intersection, union)
