"""Checks of every value that comes from an annotation file: types, boxes, sizes, texts, masks."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

import numpy as np
from pycocotools import mask as coco_mask

from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file

MAX_SIDE = 65_535  # pixels; no photograph is larger, and mask code allocates by these numbers
_T = TypeVar("_T")
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 60, 60


class BadSample(Exception):
    """One sample that cannot be used: ``reason`` is what it is counted under, ``detail`` names key and value."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason


def shown(value: Any) -> str:
    """A short ``repr`` for messages; of a value that contains itself a billion times too."""
    return _SHORT.repr(value)[:80]


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: if it cannot be read, is not UTF-8 or is not JSON (truncated: with line and column).
    """
    try:
        return json.loads(ordinary_file(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); download it again") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); the file is damaged or truncated") from None


def take(record: Any, key: str, kind: type[_T] | tuple[type, ...]) -> Any:
    """``record[key]`` if it has the right type; bools are not numbers, and floats without fraction count as int.

    Raises:
        BadSample: if ``record`` is no object, has no such key, or the value has another type or is not finite.
    """
    if not isinstance(record, Mapping):
        raise BadSample("not an object", f"{type(record).__name__} instead of an object with {key!r}")
    if key not in record:
        raise BadSample(f"no key {key!r}", f"there are {', '.join(map(str, list(record)[:12]))}")
    value = record[key]
    if kind is int:
        return _integer(value, key)
    if isinstance(value, bool) or not isinstance(value, kind):
        names = kind.__name__ if isinstance(kind, type) else " or ".join(item.__name__ for item in kind)
        raise BadSample(f"wrong type of {key!r}", f"{type(value).__name__} instead of {names}")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadSample(f"{key!r} is not finite", str(value))
    return value


def _integer(value: Any, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1 or abs(value) >= 2**63:
        raise BadSample(f"{key!r} is not an integer", shown(value))
    return int(value)


def four_numbers(value: Any, key: str = "bbox") -> list[float]:
    """A box of any form, as it is written.

    Raises:
        BadSample: unless ``value`` is a list (tuple, array) of four finite numbers.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        raise BadSample(f"{key!r} is not a list of four numbers", shown(value))
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) or not math.isfinite(v) for v in value):
        raise BadSample(f"{key!r} has a value that is not a finite number", shown(value))
    return [float(v) for v in value]


def check_box(
    box: Any, width: int, height: int, form: Literal["xywh", "xyxy"] = "xywh", key: str = "bbox"
) -> list[float]:
    """Four finite numbers -> xyxy pixels as annotated (unclipped).

    Raises:
        BadSample: if it is no box, has no area, or lies entirely outside the image.
    """
    x1, y1, x2, y2 = four_numbers(box, key)
    if form == "xywh":
        x2, y2 = x1 + x2, y1 + y2
    if x2 <= x1 or y2 <= y1:
        raise BadSample("box without area", f"{key} {list(box)}")
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        raise BadSample("box outside the image", f"{key} {list(box)}, image {width} x {height}")
    return [x1, y1, x2, y2]


def check_size(width: int, height: int) -> tuple[int, int]:
    """Raises BadSample unless both are in 1..65535."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise BadSample("impossible image size", f"width {width}, height {height}")
    return width, height


def check_name(name: str) -> str:
    """A relative path that stays below the image root.

    Raises:
        BadSample: if it is empty, absolute, climbs with ``..`` or holds characters that no file name has.
    """
    if not name or "\0" in name or "\\" in name or name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise BadSample("image name leaves the image folder", shown(name))
    return check_text(name)


def check_text(text: str) -> str:
    """Raises BadSample if the text cannot be written as UTF-8 (lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadSample("text that is not valid Unicode", ascii(text)[:80]) from None
    return text


def check_mask(segmentation: Any, width: int, height: int) -> tuple[str, int] | None:
    """COCO segmentation -> (compressed RLE counts, number of polygons; 0 = it was an RLE), None if there is none.

    Polygons of fewer than three points are left out; the others are united (the original ``getMask`` adds them).
    RLE dictionaries may be compressed or not; a list of RLEs is united as well.

    Raises:
        BadSample: if it is neither, has wrong numbers, or is of another size than the image.
    """
    if segmentation is None or segmentation == []:
        return None
    if isinstance(segmentation, Mapping):
        return _check_rle(segmentation, width, height), 0
    if not isinstance(segmentation, list):
        raise BadSample("segmentation is neither polygons nor RLE", type(segmentation).__name__)
    if all(isinstance(part, Mapping) for part in segmentation):
        parts: list[Any] = [
            {"size": [height, width], "counts": _check_rle(part, width, height)} for part in segmentation
        ]
        return _text(coco_mask.merge(parts)["counts"]), 0
    limit = 16 * max(width, height)  # the rasteriser allocates by edge length
    if any(not isinstance(polygon, list) or len(polygon) % 2 for polygon in segmentation):
        raise BadSample("polygon that is no list of x, y pairs", shown(segmentation))
    segmentation = [polygon for polygon in segmentation if len(polygon) >= 6]  # fewer than three points: no area
    if not segmentation:
        return None
    for polygon in segmentation:
        for value in polygon:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not -limit <= value <= limit:
                raise BadSample("polygon with an impossible coordinate", shown(value))
    united = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    return _text(united["counts"]), len(segmentation)


def _text(counts: Any) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts


def _check_rle(rle: Mapping[str, Any], width: int, height: int) -> str:
    size, counts = rle.get("size"), rle.get("counts")
    if isinstance(size, tuple):
        size = list(size)
    if size != [height, width]:
        raise BadSample("RLE of another size than the image", f"{size!r}, image [{height}, {width}]")
    runs: Any = _runs(counts) if isinstance(counts, (str, bytes)) else counts
    if (
        not isinstance(runs, list)
        or any(isinstance(run, bool) or not isinstance(run, int) or run < 0 for run in runs)
        or sum(runs) != width * height
    ):
        raise BadSample("RLE whose runs do not fill the image")
    if isinstance(counts, (str, bytes)):
        return _text(counts)
    return _text(coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"])


def _runs(counts: str | bytes) -> list[int]:
    """Decode COCO's compressed counts in Python: the C decoder trusts its input, and files are not trusted."""
    data = counts.encode("latin-1", "replace") if isinstance(counts, str) else counts
    runs: list[int] = []
    value = shift = 0
    for byte in data:
        chunk = byte - 48
        if not 0 <= chunk < 64 or shift > 60:
            raise BadSample("RLE with a character that no RLE has", repr(chr(byte)))
        value |= (chunk & 31) << shift
        shift += 5
        if not chunk & 32:
            if chunk & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    if shift:
        raise BadSample("RLE that ends in the middle of a number")
    return runs
