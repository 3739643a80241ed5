"""Pictures: an expression with its truth and its prediction, a contact sheet of a split, the curves of a training run.

Colours are Okabe and Ito's, which colour-blind readers can tell apart, and never the only cue: the truth is drawn with
a solid line, predictions are dashed, and every picture carries its legend.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import io
import itertools
import json
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask
from torch import Tensor

from vgbench.core.errors import UserError
from vgbench.core.files import write_atomically
from vgbench.data.table import AnnotationTable, Row
from vgbench.leaderboard import HEADLINE
from vgbench.method import GroundingMethod
from vgbench.metrics import Pairs, make_metric
from vgbench.predictions import Predictions, read_predictions
from vgbench.record import read_curves
from vgbench.types import Prediction

TRUTH = (0, 114, 178)
PREDICTED = ((230, 159, 0), (204, 121, 167), (240, 228, 66), (213, 94, 0))
_INK, _PAPER, _MUTED = (20, 20, 20), (255, 255, 255), (90, 90, 90)
SHOWN = frozenset({"miou", *(metric for shown in HEADLINE.values() for metric in shown)})  # curves of validation
_KEPT = 0.7  # GREC's threshold: of several boxes, those with a higher score are the answer

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
    picture = _pil(image)
    sets = {"prediction": prediction} if isinstance(prediction, Prediction) else dict(prediction or {})
    scale = size / max(picture.size)
    shape = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    method = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    panels = [_overlay(picture.resize(shape, method), scale, truth, sets)]
    maps: list[Tensor] = []
    for one in sets.values():
        heatmap = one.heatmap
        if heatmap is not None and not any(torch.equal(heatmap, drawn) for drawn in maps):
            maps.append(heatmap)
            panels.append(_heat(picture.resize(shape, method), one, scale))
    legend = [] if truth is None else [(TRUTH, "truth" + (": no target" if truth.no_target else ""))]
    legend += [
        (colour, _caption(name, one, truth))
        for colour, (name, one) in zip(_colours(len(sets)), sets.items(), strict=True)
    ]
    gap = 4
    width = sum(panel.width for panel in panels) + gap * (len(panels) - 1)
    text = _text_block(expression, legend, width)
    out = Image.new("RGB", (width, shape[1] + text.height), _PAPER)
    left = 0
    for panel in panels:
        out.paste(panel, (left, 0))
        left += panel.width + gap
    out.paste(text, (0, shape[1]))
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
    sheet = Image.new("RGB", (sum(widths) + gap * (columns + 1), sum(heights) + gap * (len(rows) + 1)), _PAPER)
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


# Examples of a split --------------------------------------------------------------------------------------------------


def examples(
    folder: Path,
    table: AnnotationTable,
    image_path: Callable[[str], Path],
    predictions: Callable[[str], Path],
    method: GroundingMethod,
    count: int,
) -> None:
    """Draw some expressions of a split into ``folder``: NN.png each, sheet.png, and what the HTML page shows.

    The choice depends on the expressions' keys alone, so all methods show the same ones. For the page there is
    ``examples.json`` (boxes, masks, small heat maps, in original pixels) and the plain images as NN.jpg.

    Args:
        predictions: name of a prediction set -> its predictions file.
    """
    chosen = choose(table.column("key"), count)
    part = table.take(chosen)
    found = {
        name: read_predictions(predictions(name), table, missing="empty").take(chosen)
        for name in method.prediction_sets
    }
    right = {name: _right(answers, part) for name, answers in found.items()}
    pictures: list[Image.Image] = []
    entries: list[dict[str, Any]] = []
    for place, row in enumerate(part):
        try:
            with image_path(row.image).open("rb") as file, Image.open(file) as opened:
                image = opened.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError):
            continue  # the evaluation has counted it, and says so in the record
        sets = {name: answers.prediction(place) for name, answers in found.items()}
        shown = {_set_name(method, name): prediction for name, prediction in sets.items()}
        picture = draw(image, row.expression, row, shown, size=360)
        number = f"{len(entries):02d}"
        save(picture, folder / f"{number}.png")
        small = image.copy()
        small.thumbnail((400, 400))
        save(small, folder / f"{number}.jpg")
        pictures.append(picture)
        entry = _entry(row, sets, f"{number}.jpg")
        for name, answers in entry["predictions"].items():
            answers["right"] = right[name][place]
        entries.append(entry)
    if pictures:
        save(contact_sheet(pictures), folder / "sheet.png")
    info = {"dataset": table.info.get("dataset"), "split": table.info.get("split"), "data_hash": table.hash}
    text = json.dumps({**info, "examples": entries}, ensure_ascii=False)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "examples.json", text.encode())


def choose(keys: Sequence[str] | np.ndarray, count: int) -> list[int]:
    """Indices of ``count`` keys, spread like a random draw but the same wherever the keys are the same; ascending."""
    by_hash = sorted(range(len(keys)), key=lambda index: hashlib.sha256(str(keys[index]).encode()).digest())
    return sorted(by_hash[:count])


def _right(predictions: Predictions, part: AnnotationTable) -> list[bool]:
    """Whether each answer counts as right under the default metric that fits data and predictions."""
    pairs = Pairs(predictions, part, np.arange(len(part)))
    if (pairs.target_counts != 1).any():
        metric = make_metric("grec")
    else:
        pointing = not predictions.box_counts.any() and (predictions.has("point") or predictions.has("heatmap"))
        metric = make_metric("pointing" if pointing else "rec")
    metric.sync_on_compute = False  # only the first process draws
    metric.update(pairs)
    return metric.outcomes().ratios[metric.primary].num.astype(bool).tolist()


def _set_name(method: GroundingMethod, name: str) -> str:
    title = getattr(method, "title", method.name)
    return title if name == "main" else f"{title} {name}"


def _entry(row: Row, sets: Mapping[str, Prediction], image: str) -> dict[str, Any]:
    """One example for the page: everything in original pixels, masks as polygons' outlines."""
    return {
        "key": row.key,
        "expression": row.expression,
        "image": image,
        "width": row.width,
        "height": row.height,
        "truth": {
            "boxes": np.round(row.boxes, 1).tolist(),
            "outlines": [line for rle in row.masks for line in outlines(coco_mask.decode(rle))],
        },
        "predictions": {
            name: {
                "boxes": np.round(_shown_boxes(one), 1).tolist(),
                "scores": [round(value, 3) for value in one.scores.tolist()[: len(_shown_boxes(one))]],
                "outlines": [] if one.mask is None else outlines(coco_mask.decode(one.mask)),
                "no_target": one.no_target,
                "point": one.point,
                "heatmap": None if one.heatmap is None else _heat_png(one.heatmap),
                "iou": box_iou(one, row),
            }
            for name, one in sets.items()
        },
    }


def box_iou(prediction: Prediction, row: Row) -> float | None:
    """IoU of the best box with the best fitting target; None where there is no box or no target to compare."""
    if row.no_target or not len(prediction.boxes):
        return None
    box = prediction.boxes[0].double().cpu().numpy()
    sides = np.minimum(row.boxes[:, 2:], box[2:]) - np.maximum(row.boxes[:, :2], box[:2])
    inside = np.clip(sides, 0, None).prod(1)
    areas = (row.boxes[:, 2:] - row.boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - inside
    return round(float((inside / np.maximum(areas, 1e-12)).max()), 4)


def _heat_png(heatmap: Tensor) -> str:
    """A small grey PNG as base64; brightest is the maximum."""
    out = io.BytesIO()
    Image.fromarray(_normalised(heatmap)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


# Parts of a picture ---------------------------------------------------------------------------------------------------


def _pil(image: Pixels) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if isinstance(image, Tensor):
        image = image.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(image))


def _colours(count: int) -> list[tuple[int, int, int]]:
    return [PREDICTED[place % len(PREDICTED)] for place in range(count)]


def _shown_boxes(prediction: Prediction) -> np.ndarray:
    """The best box and every other that is kept at GREC's threshold, [n, 4] float64."""
    if prediction.no_target or not len(prediction.boxes):
        return np.zeros((0, 4))
    kept = prediction.scores.cpu() >= _KEPT
    kept[0] = True
    return prediction.boxes.cpu()[kept].double().numpy()


def _caption(name: str, prediction: Prediction, truth: Row | None) -> str:
    if prediction.no_target:
        return f"{name}: no target"
    boxes = _shown_boxes(prediction)
    if not len(boxes):
        return name if prediction.mask is not None or prediction.point is not None else f"{name}: nothing"
    scores = ", ".join(f"{score:.2f}" for score in prediction.scores.tolist()[: len(boxes)][:4])
    iou = None if truth is None or len(truth.boxes) > 1 else box_iou(prediction, truth)
    return f"{name}: score {scores}" + ("" if iou is None else f", IoU {iou:.2f}")


def _overlay(
    picture: Image.Image, scale: float, truth: Row | None, predictions: Mapping[str, Prediction]
) -> Image.Image:
    """Masks below, then outlines, then boxes: the truth solid, predictions filled and dashed."""
    canvas = np.array(picture)
    colours = _colours(len(predictions))
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
                pen.line([*points, points[0]], fill=_PAPER, width=4)
                pen.line([*points, points[0]], fill=TRUTH, width=2)
        for box in truth.boxes * scale:
            _rectangle(pen, box, TRUTH, dash=None)
    for colour, prediction in zip(colours, predictions.values(), strict=True):
        for box in _shown_boxes(prediction) * scale:
            _rectangle(pen, box, colour, dash=10)
        if prediction.point is not None:
            _cross(pen, prediction.point, scale, colour)
    return out


def _rectangle(pen: ImageDraw.ImageDraw, box: np.ndarray, colour: tuple[int, int, int], dash: int | None) -> None:
    """A box on a white line; broken into dashes of so many pixels unless ``dash`` is None."""
    x1, y1, x2, y2 = (float(value) for value in box)
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    pen.line(corners, fill=_PAPER, width=5, joint="curve")
    for start, end in itertools.pairwise(corners):
        count = 1 if dash is None else max(1, round(math.dist(start, end) / (2 * dash)))
        filled = 1.0 if dash is None else 0.6
        for place in range(count):
            ends = (place / count, (place + filled) / count)
            pen.line([a + (b - a) * t for t in ends for a, b in zip(start, end, strict=True)], fill=colour, width=3)


def _cross(pen: ImageDraw.ImageDraw, point: Sequence[int], scale: float, colour: tuple[int, int, int]) -> None:
    x, y = (point[0] + 0.5) * scale, (point[1] + 0.5) * scale
    for width, reach, ink in ((7, 12, _PAPER), (3, 10, colour)):
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


def _normalised(heatmap: Tensor) -> np.ndarray:
    """uint8 [h, w], minimum to maximum."""
    values = np.nan_to_num(heatmap.detach().float().cpu().numpy())
    low, high = float(values.min()), float(values.max())
    return ((values - low) / (high - low if high > low else 1.0) * 255).astype(np.uint8)


def _heat(picture: Image.Image, prediction: Prediction, scale: float) -> Image.Image:
    """The heat map in viridis over the greyed image, its peak marked."""
    assert prediction.heatmap is not None
    heat = cv2.resize(_normalised(prediction.heatmap), picture.size, interpolation=cv2.INTER_CUBIC)
    colours = cv2.cvtColor(cv2.applyColorMap(heat, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    grey = np.asarray(picture.convert("L").convert("RGB"))
    out = Image.fromarray((0.35 * grey + 0.65 * colours).astype(np.uint8))
    if prediction.point is not None:
        _cross(ImageDraw.Draw(out), prediction.point, scale, (255, 255, 255))
    return out


# Text -----------------------------------------------------------------------------------------------------------------


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans as matplotlib ships it (Latin, Greek, Cyrillic, Arabic, ...), or Pillow's own."""
    spec = importlib.util.find_spec("matplotlib")
    for root in spec.submodule_search_locations or () if spec else ():
        file = Path(root) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)


def _printable(text: str) -> str:
    """One line without control characters (line breaks, bidirectional overrides, lone surrogates)."""
    kept = (letter if unicodedata.category(letter)[0] != "C" else " " for letter in text)
    return " ".join("".join(kept).split())


def _wrap(text: str, font: Any, width: float) -> list[str]:
    """Lines no wider than ``width``; a word that is too long is broken."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines.append(word)
        while font.getlength(lines[-1]) > width and len(lines[-1]) > 1:
            fits = max(1, int(len(lines[-1]) * width / font.getlength(lines[-1])) - 1)
            lines[-1:] = [lines[-1][:fits], lines[-1][fits:]]
    return [line for line in lines if line] or ["(empty expression)"]


def _text_block(expression: str, legend: Sequence[tuple[tuple[int, int, int], str]], width: int) -> Image.Image:
    """The expression, wrapped, and under it the legend, its entries beside each other as long as they fit."""
    margin, large, small = 6, _font(16), _font(13)
    lines = _wrap(_printable(expression), large, width - 2 * margin)[:6]
    places: list[tuple[float, float, tuple[int, int, int], str]] = []
    left, top = float(margin), float(margin + 21 * len(lines) + 3)
    for colour, label in legend:
        label = _printable(label)
        reach = 26 + small.getlength(label) + 12
        if left > margin and left + reach > width:
            left, top = margin, top + 19
        places.append((left, top, colour, label))
        left += reach
    block = Image.new("RGB", (width, round(top + (22 if legend else 3))), _PAPER)
    pen = ImageDraw.Draw(block)
    for number, line in enumerate(lines):
        pen.text((margin, margin + 21 * number), line, fill=_INK, font=large)
    for left, top, colour, label in places:
        pen.rectangle((left, top + 3, left + 18, top + 13), fill=colour, outline=_MUTED)
        pen.text((left + 24, top), label, fill=_MUTED, font=small)
    return block


# Curves ---------------------------------------------------------------------------------------------------------------


def curves(log: Path, out: Path) -> None:
    """Losses per step and validation metrics per epoch of a training run, as one PNG.

    Args:
        log: CSV log of Lightning with columns step, epoch, train/*, val/*.

    Raises:
        UserError: if ``log`` is not such a file or holds no curve.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    series = read_curves(log)
    losses = {name[6:]: points for name, points in series.items() if name.startswith("train/") and points}
    metrics = {name[4:]: points for name, points in series.items() if name.startswith("val/") and points}
    chosen = {name: points for name, points in metrics.items() if name.rpartition("/")[2] in SHOWN}
    metrics = chosen or metrics
    if not losses and not metrics:
        raise UserError(f"{log}: no train/* or val/* column with a number in it")
    epochs = dict(series.get("epoch", ()))
    metrics = {
        name: [(epochs.get(step, step) + 1, value) for step, value in points] for name, points in metrics.items()
    }
    parts = [part for part in (("loss", "step", losses), ("validation (%)", "epoch", metrics)) if part[2]]
    figure = Figure(figsize=(5.6 * len(parts), 3.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    styles = ["-", "--", ":", "-."]
    colours = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"]
    for number, (title, unit, shown) in enumerate(parts, start=1):
        axes = figure.add_subplot(1, len(parts), number)
        for place, (name, points) in enumerate(shown.items()):
            steps, values = zip(*points, strict=True)
            marker = "o" if len(points) <= 40 else None
            style = styles[place // len(colours) % len(styles)]
            colour = colours[place % len(colours)]
            axes.plot(steps, values, style, color=colour, label=name, marker=marker, markersize=3, linewidth=1.4)
        axes.set_xlabel(unit)
        axes.set_ylabel(title)
        positive = all(value > 0 for points in shown.values() for _, value in points)
        if title == "loss" and positive:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, framealpha=0.7, edgecolor="none", ncols=1 + len(shown) // 9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, buffer.getvalue())
