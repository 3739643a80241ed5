"""One picture: image, boxes, masks, heat maps, expression."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from vgbench.core.files import write_atomically
from vgbench.data.pixels import as_rgb
from vgbench.data.table import Row
from vgbench.metrics.boxes import iou
from vgbench.pictures.lettering import text_block
from vgbench.pictures.palette import PAPER, TRUTH, pick_colours
from vgbench.predictions.table import GREC_SCORE_THRESHOLD
from vgbench.types import Prediction, as_array

if TYPE_CHECKING:
    from torch import Tensor

    Pixels = Image.Image | np.ndarray | Tensor


def draw(
    image: Pixels,
    expression: str,
    truth: Row | None = None,
    prediction: Prediction | Mapping[str, Prediction] | None = None,
    *,
    size: int = 480,
) -> Image.Image:
    """One picture: the image with boxes and masks, every different heat map beside it, the expression below.

    Args:
        image: PIL image, uint8 [H, W, 3] array or uint8 [3, H, W] tensor, RGB.
        expression: any text; letters that the font lacks become boxes.
        truth: boxes and masks as annotated, in pixels of ``image``.
        prediction: one, or several by prediction set. Of several boxes the best is drawn, and all others that GREC's
            threshold would keep.
        size: longer side of the drawn image in pixels.
    """
    picture = as_pil(image)
    sets = {"prediction": prediction} if isinstance(prediction, Prediction) else dict(prediction or {})
    scale = size / max(picture.size)
    shape = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    method = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    panels = [_overlay(picture.resize(shape, method), scale, truth, sets)]
    maps: list[np.ndarray] = []
    for one in sets.values():
        heatmap = None if one.heatmap is None else as_array(one.heatmap, np.float32)
        if heatmap is not None and not any(np.array_equal(heatmap, drawn) for drawn in maps):
            maps.append(heatmap)
            panels.append(heat_overlay(picture.resize(shape, method), one, scale))
    legend = [] if truth is None else [(TRUTH, "truth" + (": no target" if truth.no_target else ""))]
    legend += [
        (colour, _caption(name, one, truth))
        for colour, (name, one) in zip(pick_colours(len(sets)), sets.items(), strict=True)
    ]
    return _above_text(panels, expression, legend)


def _above_text(
    panels: Sequence[Image.Image], expression: str, legend: Sequence[tuple[tuple[int, int, int], str]], gap: int = 4
) -> Image.Image:
    """Panels of one height side by side, the text below them."""
    width = sum(panel.width for panel in panels) + gap * (len(panels) - 1)
    text = text_block(expression, legend, width)
    out = Image.new("RGB", (width, panels[0].height + text.height), PAPER)
    left = 0
    for panel in panels:
        out.paste(panel, (left, 0))
        left += panel.width + gap
    out.paste(text, (0, panels[0].height))
    return out


def contact_sheet(pictures: Sequence[Image.Image], columns: int = 4, gap: int = 12) -> Image.Image:
    """Pictures in rows on white; each row is as high as its highest picture.

    Raises:
        ValueError: if there are none.
    """
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    columns = min(columns, len(pictures))
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    widths = [max(row[place].width for row in rows if place < len(row)) for place in range(columns)]
    heights = [max(picture.height for picture in row) for row in rows]
    sheet = Image.new("RGB", (sum(widths) + gap * (columns + 1), sum(heights) + gap * (len(rows) + 1)), PAPER)
    top = gap
    for row, height in zip(rows, heights, strict=True):
        left = gap
        for picture, width in zip(row, widths, strict=False):
            sheet.paste(picture, (left, top))
            left += width + gap
        top += height + gap
    return sheet


def save(picture: Image.Image, path: Path) -> None:
    """Write a PNG or JPEG (by the suffix), atomically."""
    out = io.BytesIO()
    picture.save(out, "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG", quality=85, optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, out.getvalue())


def as_pil(image: Pixels) -> Image.Image:
    if isinstance(image, Image.Image):
        return as_rgb(image)
    if not isinstance(image, np.ndarray):
        image = as_array(image, np.uint8).transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(image))


def answer_boxes(prediction: Prediction) -> np.ndarray:
    """The best box and every other that is kept at GREC's threshold, [n, 4] float64."""
    if prediction.no_target or not len(prediction.boxes):
        return np.zeros((0, 4))
    above = as_array(prediction.scores) >= GREC_SCORE_THRESHOLD
    above[0] = True
    return as_array(prediction.boxes, np.float64)[above]


def _caption(name: str, prediction: Prediction, truth: Row | None) -> str:
    if prediction.no_target:
        return f"{name}: no target"
    boxes = answer_boxes(prediction)
    if not len(boxes):
        return name if prediction.mask is not None or prediction.point is not None else f"{name}: nothing"
    scores = ", ".join(f"{score:.2f}" for score in prediction.scores.tolist()[: len(boxes)][:4])
    overlap = None if truth is None or len(truth.boxes) > 1 else box_iou(prediction, truth)
    return f"{name}: score {scores}" + ("" if overlap is None else f", IoU {overlap:.2f}")


def _overlay(
    picture: Image.Image, scale: float, truth: Row | None, predictions: Mapping[str, Prediction]
) -> Image.Image:
    """Masks below, then outlines, then boxes: the truth solid, predictions filled and dashed."""
    canvas = np.array(picture)
    colours = pick_colours(len(predictions))
    for colour, prediction in zip(colours, predictions.values(), strict=True):
        if prediction.mask is not None:
            mask = _resized(coco_mask.decode(prediction.mask), picture.size)
            canvas[mask] = (0.5 * canvas[mask] + 0.5 * np.array(colour)).astype(np.uint8)
    out = Image.fromarray(canvas)
    pen = ImageDraw.Draw(out)
    if truth is not None:
        for rle in truth.masks:
            for line in outlines(_resized(coco_mask.decode(rle), picture.size)):
                points = [(line[i], line[i + 1]) for i in range(0, len(line), 2)]
                pen.line([*points, points[0]], fill=PAPER, width=4)
                pen.line([*points, points[0]], fill=TRUTH, width=2)
        for box in truth.boxes * scale:
            _rectangle(pen, box, TRUTH, dash=None)
    for colour, prediction in zip(colours, predictions.values(), strict=True):
        for box in answer_boxes(prediction) * scale:
            _rectangle(pen, box, colour, dash=10)
        if prediction.point is not None:
            _cross(pen, prediction.point, scale, colour)
    return out


def _rectangle(pen: ImageDraw.ImageDraw, box: np.ndarray, colour: tuple[int, int, int], dash: int | None) -> None:
    """A box on a white line; broken into dashes of so many pixels unless ``dash`` is None."""
    x1, y1, x2, y2 = (float(value) for value in box)
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    pen.line(corners, fill=PAPER, width=5, joint="curve")
    for start, end in itertools.pairwise(corners):
        count = 1 if dash is None else max(1, round(math.dist(start, end) / (2 * dash)))
        filled = 1.0 if dash is None else 0.6
        for place in range(count):
            ends = (place / count, (place + filled) / count)
            pen.line([a + (b - a) * t for t in ends for a, b in zip(start, end, strict=True)], fill=colour, width=3)


def _cross(pen: ImageDraw.ImageDraw, point: Sequence[int], scale: float, colour: tuple[int, int, int]) -> None:
    x, y = (point[0] + 0.5) * scale, (point[1] + 0.5) * scale
    for width, reach, ink in ((7, 12, PAPER), (3, 10, colour)):
        pen.line([(x - reach, y - reach), (x + reach, y + reach)], fill=ink, width=width)
        pen.line([(x - reach, y + reach), (x + reach, y - reach)], fill=ink, width=width)


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool [h, w] of size (w, h)."""
    return cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5


def outlines(mask: np.ndarray) -> list[list[int]]:
    """Closed outlines of a binary mask, [x, y, x, y, ...] each; thinned to what a reader can see."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thinned = (cv2.approxPolyDP(line, max(mask.shape) / 500, closed=True) for line in found)
    return [line.reshape(-1).tolist() for line in thinned if len(line) > 2]


def normalised(heatmap: Tensor | np.ndarray) -> np.ndarray:
    """uint8 [h, w], minimum to maximum."""
    values = np.nan_to_num(as_array(heatmap, np.float32))
    low, high = float(values.min()), float(values.max())
    return ((values - low) / (high - low if high > low else 1.0) * 255).astype(np.uint8)


def heat_overlay(picture: Image.Image, prediction: Prediction, scale: float) -> Image.Image:
    """The heat map in viridis over the greyed image, its peak marked."""
    assert prediction.heatmap is not None
    heat = cv2.resize(normalised(prediction.heatmap), picture.size, interpolation=cv2.INTER_CUBIC)
    colours = cv2.cvtColor(cv2.applyColorMap(heat, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    grey = np.asarray(picture.convert("L").convert("RGB"))
    out = Image.fromarray((0.35 * grey + 0.65 * colours).astype(np.uint8))
    if prediction.point is not None:
        _cross(ImageDraw.Draw(out), prediction.point, scale, (255, 255, 255))
    return out


def box_iou(prediction: Prediction, row: Row) -> float | None:
    """IoU of the best box with the best fitting target; None where there is no box or no target to compare."""
    if row.no_target or not len(prediction.boxes):
        return None
    return round(float(iou(as_array(prediction.boxes, np.float64)[0], row.boxes).max()), 4)
