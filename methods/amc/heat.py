"""From a heat map to a decision: ranking of a detector's proposals, and boxes without a detector.

Enlargement to the original image and the peak are those of the pointing metric.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file
from vgbench.metrics.pointing import enlarge, peak

__all__ = ["enlarge", "heat_boxes", "peak", "proposal_scores", "rank", "read_proposals"]

LEVELS = tuple(level / 10 for level in range(1, 10))


def proposal_scores(heat: Tensor, proposals: Tensor) -> Tensor:
    """Accumulated heat over the square root of the area, per proposal.

    Args:
        heat: [H, W] in original resolution.
        proposals: [n, 4] (x, y, width, height) in original pixels; the summed window is truncated to integers.

    Returns:
        [n] float32; 0 where the box is empty or outside.
    """
    height, width = heat.shape
    table = torch.from_numpy(cv2.integral(heat.numpy(), sdepth=cv2.CV_64F))
    x, y, w, h = proposals.double().unbind(1)
    left, right = (value.long().clamp(0, width) for value in (x, x + w))
    top, bottom = (value.long().clamp(0, height) for value in (y, y + h))
    total = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
    area = (w * h).clamp(min=0)
    full = (area > 0) & (right > left) & (bottom > top)
    return torch.where(full, total / area.clamp(min=1e-12).sqrt(), 0.0).float()


def rank(heat: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
    """Proposals with a positive score, best first (the first of equals), as xyxy boxes [k, 4] and scores [k].

    Scores are relative to the best one, so that they lie in (0, 1]. Nothing is returned where no proposal has a
    positive score; the official script then repeats its previous answer, here that counts as wrong.
    """
    if not len(proposals):
        return torch.zeros(0, 4), torch.zeros(0)
    scores = proposal_scores(heat, proposals)
    order = torch.sort(scores, descending=True, stable=True).indices
    order = order[scores[order] > 0]
    boxes = proposals[order].float()
    boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
    scores = scores[order]
    return boxes, scores / scores[:1]


def heat_boxes(heat: Tensor) -> Tensor:
    """Proposals out of the heat map itself (no part of AMC): tight boxes around what exceeds a level.

    The map is min-max normalised; for each level 0.1, ..., 0.9 every connected component (8 neighbours) gives a box.

    Args:
        heat: [H, W] in original resolution.

    Returns:
        [n, 4] float32 (x, y, width, height) without repeats.
    """
    low, high = heat.min(), heat.max()
    scaled = ((heat - low) / (high - low).clamp(min=1e-30)).numpy()
    boxes = []
    for level in LEVELS:
        # outlines instead of labelled pixels: a tenth of the time. Outlines with a parent are those of holes.
        outlines, tree = cv2.findContours((scaled >= level).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        if len(outlines):
            boxes += [cv2.boundingRect(one) for one, parent in zip(outlines, tree[0][:, 3], strict=True) if parent < 0]
    return torch.from_numpy(np.unique(np.array(boxes, dtype=np.float32).reshape(-1, 4), axis=0))


def read_proposals(path: Path) -> dict[int, Tensor]:
    """Detections per image id, [n, 4] float64 (x, y, width, height) in original pixels, in the file's order.

    Two layouts are read: a dictionary image id -> list of detections whose first four numbers are the box (AMC's and
    ALBEF's ``dets.json``), and COCO results, a list of ``{"image_id": ..., "bbox": [x, y, w, h], ...}``.

    Raises:
        UserError: if the file cannot be read or has neither layout.
    """
    try:
        content: Any = json.loads(ordinary_file(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot read method.proposals ({error}); give a json file of detections") from None
    try:
        boxes: Mapping[int, Sequence[Sequence[float]]]
        if isinstance(content, dict):
            boxes = {int(image): [detection[:4] for detection in detections] for image, detections in content.items()}
        else:
            boxes = {}
            for detection in content:
                boxes.setdefault(int(detection["image_id"]), []).append(detection["bbox"])  # type: ignore[attr-defined]
        return {image: torch.tensor(rows, dtype=torch.float64).reshape(len(rows), 4) for image, rows in boxes.items()}
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: method.proposals is neither image id -> [[x, y, w, h, ...], ...] nor COCO results "
            f"({type(error).__name__}: {error})"
        ) from None
