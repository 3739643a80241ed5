"""Example pictures of a split, and the page's list of them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from vgbench.core.files import write_atomically
from vgbench.data.images import ImageFile, open_image_file
from vgbench.data.pixels import IMAGE_ERRORS, as_rgb
from vgbench.data.table import AnnotationTable, Row
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.verdict import answer_kind, is_right
from vgbench.pictures.draw import answer_boxes, box_iou, contact_sheet, draw, normalised, outlines, save
from vgbench.predictions.reader import read_predictions
from vgbench.predictions.table import Predictions
from vgbench.types import Prediction

if TYPE_CHECKING:
    from torch import Tensor

    from vgbench.method import GroundingMethod

LONGEST_WORDS = 10_000  # characters of a model's answer that are kept beside a picture


def examples(
    folder: Path,
    table: AnnotationTable,
    image_path: Callable[[str], ImageFile],
    predictions: Callable[[str], Path],
    method: GroundingMethod,
    count: int,
) -> None:
    """Draw some expressions of a split into ``folder``: NN.png each, sheet.png, and what the HTML page shows.

    The choice depends on the expressions' keys alone, so all methods show the same ones. For the page there is
    ``examples.json`` (boxes, masks, small heat maps, in original pixels, a model's words) and the images as NN.jpg.

    Args:
        predictions: name of an output -> its predictions file.
    """
    rows = choose(table.column("key"), count)
    answers = {name: read_predictions(predictions(name), table, missing="empty").take(rows) for name in method.outputs}
    write_examples(folder, table.take(rows), image_path, answers, method, table.hash)


def write_examples(
    folder: Path,
    part: AnnotationTable,
    image_path: Callable[[str], ImageFile],
    answers: Mapping[str, Predictions],
    method: GroundingMethod,
    data_hash: str,
) -> None:
    """Draw some expressions as :func:`examples` does.

    Args:
        part: the expressions, all of them drawn.
        answers: name of an output -> its predictions of them.
        data_hash: of the data that they are a part of.
    """
    right = {name: _right(output, part) for name, output in answers.items()}
    pictures: list[Image.Image] = []
    entries: list[dict[str, Any]] = []
    for place, row in enumerate(part):
        try:
            with open_image_file(image_path(row.image)) as opened:
                image = as_rgb(opened)
        except IMAGE_ERRORS:
            continue  # the evaluation has counted it, and says so in the record
        by_output = {name: output.answer(place) for name, output in answers.items()}
        titled = {_output_title(method, name): prediction for name, prediction in by_output.items()}
        stem = folder / f"{len(entries):02d}"
        pictures.append(draw(image, row.expression, row, titled, size=360))
        save(pictures[-1], stem.with_suffix(".png"))
        image.thumbnail((400, 400))
        save(image, stem.with_suffix(".jpg"))
        entry = _entry(row, by_output, f"{stem.name}.jpg")
        for name, answer in entry["predictions"].items():
            answer["right"] = right[name][place]
        entries.append(entry)
    if pictures:
        save(contact_sheet(pictures), folder / "sheet.png")
    about = {"dataset": part.info.get("dataset"), "split": part.info.get("split"), "data_hash": data_hash}
    text = json.dumps({**about, "examples": entries}, ensure_ascii=False)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "examples.json", text.encode())


def choose(keys: Sequence[str] | np.ndarray, count: int) -> list[int]:
    """Indices of ``count`` keys, spread like a random draw but the same wherever the keys are the same; ascending."""
    by_hash = sorted(range(len(keys)), key=lambda index: hashlib.sha256(str(keys[index]).encode()).digest())
    return sorted(by_hash[:count])


def _right(predictions: Predictions, part: AnnotationTable) -> list[bool]:
    """Whether each answer counts as right under the default metric that fits data and predictions."""
    pairs = Pairs(predictions, part, np.arange(len(part)))
    kind = answer_kind(predictions)
    return is_right(pairs, "boxes" if kind == "mask" else kind).tolist()


def _output_title(method: GroundingMethod, name: str) -> str:
    title = method.title or method.name
    return title if name == "main" else f"{title} {name}"


def _entry(row: Row, by_output: Mapping[str, Prediction], image: str) -> dict[str, Any]:
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
                "boxes": np.round(answer_boxes(one), 1).tolist(),
                "scores": [round(value, 3) for value in one.scores.tolist()[: len(answer_boxes(one))]],
                "outlines": [] if one.mask is None else outlines(coco_mask.decode(one.mask)),
                "no_target": one.no_target,
                "point": one.point,
                "heatmap": None if one.heatmap is None else _heat_png(one.heatmap),
                "iou": box_iou(one, row),
                **({} if one.answer is None else {"answer": one.answer[:LONGEST_WORDS]}),
            }
            for name, one in by_output.items()
        },
    }


def _heat_png(heatmap: Tensor | np.ndarray) -> str:
    """A small grey PNG as base64; brightest is the maximum."""
    out = io.BytesIO()
    Image.fromarray(normalised(heatmap)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()
