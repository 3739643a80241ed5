"""Examples of run folders for the page: every value is checked, every picture decoded and encoded again."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vgbench.core.errors import UserError
from vgbench.core.files import file_inside
from vgbench.data.pixels import IMAGE_ERRORS, open_image
from vgbench.leaderboard.columns import SPLITS, place
from vgbench.records.record import Record

PICTURE_BYTES, PICTURE_SIDE = 8 << 20, 4096  # limits of an example's picture; ours have 400 pixels
HEAT_SIDE = 1024  # of a heat map; ours are as large as the network's map
WORDS = 2000  # characters of a model's answer that are shown
FILE_BYTES = 256 << 20  # of examples.json
LARGEST = 1e6  # of a coordinate


class RowKey(NamedTuple):
    """A prediction set of a run; ``run`` counts the records."""

    run: int
    prediction_set: str


def collect_examples(records: Sequence[Record], rows: Mapping[RowKey, int]) -> tuple[list[dict[str, Any]], list[str]]:
    """Examples of all runs joined by data and expression, so that methods stand side by side; images once each.

    Raises:
        UserError: naming the examples file that is damaged, or names a picture that is none of its folder's.
    """
    groups: dict[str, dict[str, Any]] = {}
    images: list[str] = []
    for run, record in enumerate(records):
        row_of = {key.prediction_set: row for key, row in rows.items() if key.run == run}
        embedded = {result.data_hash: result.embedded for result in record.results}
        for file in sorted(record.folder.glob("examples/*/examples.json")) if record.folder else ():
            assert record.folder is not None
            try:
                file_inside(record.folder, file.relative_to(record.folder))
                _add(file, groups, images, row_of, embedded)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, UserError) as error:
                raise UserError(f"{file}: damaged ({error}); evaluate the run again or remove the folder") from error
    filled = [{**group, "items": list(group["items"].values())} for group in groups.values() if group["items"]]
    filled.sort(key=lambda group: (group["embedded"], place(group["split"], SPLITS)[0]))
    return filled, images


def _add(
    file: Path,
    groups: dict[str, dict[str, Any]],
    images: list[str],
    row_of: Mapping[str, int],
    embedded: Mapping[str, bool],
) -> None:
    """Add what an examples file holds to the examples by data hash, and its pictures to ``images``."""
    if file.stat().st_size > FILE_BYTES:
        raise ValueError(f"it is larger than {FILE_BYTES >> 20} MiB")
    stored = json.loads(file.read_bytes())
    group = groups.setdefault(_text(stored["data_hash"]), _group(stored, embedded))
    for example in stored["examples"]:
        key = _text(example["key"])
        if key not in group["items"]:
            group["items"][key] = _item(example, len(images))
            images.append(_data_url(file_inside(file.parent, example["image"])))
        predictions = group["items"][key]["predictions"]
        for name, prediction in example["predictions"].items():
            if name in row_of:
                predictions[row_of[name]] = _prediction(prediction)


def _group(stored: Mapping[str, Any], embedded: Mapping[str, bool]) -> dict[str, Any]:
    """The examples of one split; ``embedded``: by data hash, of the run's results."""
    return {
        "where": f"{_text(stored['dataset'])} {_text(stored['split'])}",
        "split": stored["split"],
        "embedded": embedded.get(stored["data_hash"], False),
        "items": {},
    }


def _item(example: Mapping[str, Any], image: int) -> dict[str, Any]:
    """An expression without predictions; ``image``: number of its picture."""
    return {
        "key": _text(example["key"]),
        "expression": _text(example["expression"]),
        "width": _number(example["width"]),
        "height": _number(example["height"]),
        "truth": {"boxes": _boxes(example["truth"]["boxes"]), "outlines": _outlines(example["truth"]["outlines"])},
        "image": image,
        "predictions": {},
    }


def _prediction(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "boxes": _boxes(stored["boxes"]),
        "scores": _list(stored["scores"], _number),
        "outlines": _outlines(stored["outlines"]),
        "no_target": _or_none(stored.get("no_target"), bool),
        "point": _or_none(stored.get("point"), _point),
        "heatmap": _or_none(stored.get("heatmap"), _heatmap),
        "iou": _or_none(stored.get("iou"), _number),
        "right": bool(stored.get("right")),
        "answer": _or_none(stored.get("answer"), _words),
    }


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where a text is expected")
    return value


def _words(value: object) -> str:
    """A model's words, no longer than they can be read beside a picture."""
    text = _text(value)
    return text if len(text) <= WORDS else f"{text[:WORDS]} ... ({len(text)} characters)"


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST <= value <= LARGEST:
        raise TypeError(f"{ascii(value)[:40]} where a number is expected")
    return value


def _list(value: object, convert: Callable[[Any], Any], lengths: Callable[[int], bool] = lambda _: True) -> list[Any]:
    if not isinstance(value, list) or not lengths(len(value)):
        raise TypeError(f"{ascii(value)[:40]} where a list is expected")
    return [convert(item) for item in value]


def _or_none(value: Any, convert: Callable[[Any], Any]) -> Any:
    return None if value is None else convert(value)


def _point(value: object) -> list[float]:
    return _list(value, _number, lambda length: length == 2)


def _boxes(value: object) -> list[list[float]]:
    return _list(value, lambda box: _list(box, _number, lambda length: length == 4))


def _outlines(value: object) -> list[list[float]]:
    return _list(value, lambda line: _list(line, _number, lambda length: not length % 2))


def _data_url(picture: Path) -> str:
    """A picture of a run folder, decoded and encoded again: nothing else of a file gets into the page.

    Raises:
        ValueError: if it is no picture of an example's size.
    """
    if not picture.is_file() or picture.stat().st_size > PICTURE_BYTES:
        raise ValueError(f"{picture.name} is no file, or larger than {PICTURE_BYTES >> 20} MiB")
    try:
        content = _encoded(picture, PICTURE_SIDE, "RGB")
    except IMAGE_ERRORS as error:
        raise ValueError(f"{picture.name} is no picture of an example: {error}") from None
    return f"data:image/jpeg;base64,{content}"


def _heatmap(value: object) -> str:
    """A grey PNG as base64, decoded and encoded again.

    Raises:
        ValueError: if it is none.
    """
    text = _text(value)
    if len(text) > PICTURE_BYTES:
        raise ValueError("a heat map that is too large")
    try:
        return _encoded(io.BytesIO(base64.b64decode(text, validate=True)), HEAT_SIDE, "L")
    except (binascii.Error, *IMAGE_ERRORS) as error:
        raise ValueError(f"a heat map that is no picture: {error}") from None


def _encoded(source: Path | io.BytesIO, side: int, mode: str) -> str:
    content = io.BytesIO()
    with open_image(source) as opened:
        if max(opened.size) > side:
            raise ValueError(f"it is larger than {side} pixels")
        image = opened.convert(mode)
    if mode == "RGB":
        image.save(content, "JPEG", quality=90)
    else:
        image.save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()
