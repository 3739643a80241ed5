"""OpenRef: any number of objects in many kinds of scenes, and expressions of what is not there (Wu and Zhang, 2026)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from vgbench.core.errors import UserError
from vgbench.data.builder import ImageRecord, SentenceIds, TableBuilder, Targets
from vgbench.data.checks import BadSample, check_box, check_name, check_size, shown, take
from vgbench.data.dataset import Counts, GroundingData
from vgbench.data.layouts.targets import expression_of
from vgbench.data.table import AnnotationTable

__all__ = ["OpenRef"]

RELATIONS = ("single", "multi", "none")
PERCENT = 100.0
SLACK = 1.01  # boxes may end a little outside of their image
LABELS = "_test_labels.json"  # after the name of a dimension


class OpenRef(GroundingData):
    """``train.json``, ``val.json`` and, one per dimension, ``DIMENSION_test_labels.json``: lists of {image,
    relation_type, proposal, positive, negative, bbox_num}. The images of a dimension are in the folder DIMENSION.

    ``proposal`` holds the boxes of ``positive`` as Label Studio writes them: {x, y, width, height} in percent of the
    image, {original_width, original_height} in pixels. The card on the Hub calls them "normalized [x, y, w, h]" with an
    "original_size": keys ``w`` and ``h``, shares from 0 to 1 instead of percent, and boxes without a size are read too.
    Fields: https://huggingface.co/datasets/Wuzj/OpenRef and the evaluators of
    https://github.com/zongjianwu/OpenRef-Benchmark.
    """

    name = "openref"
    title = "OpenRef"
    tasks = ("grec",)
    licence = "Apache 2.0; on the Hub behind a form"
    homepage = "https://huggingface.co/datasets/Wuzj/OpenRef"
    splits: Mapping[str, Counts] = {"train": Counts(), "val": Counts(), "test": Counts()}  # test: 3,540 entries
    disjoint = False  # nothing is said about it
    version = 2
    own_metrics = ("rejection/n3r",)
    image_folders = ("OpenRef/images", "OpenRef/test", "OpenRef", "images/openref", "images", "test")
    image_names = ()

    def expected_files(self) -> list[str]:
        return [f"{{train.json, val.json, DIMENSION{LABELS} (for test)}} (also in OpenRef/, test/, OpenRef/test/)"]

    def sources(self, split: str) -> list[Path]:
        self.check_split(split)
        if split == "test":
            folders = ("test", ".", "OpenRef/test", "OpenRef")
            return self.first_files([f"*{LABELS}"], folders, f"no DIMENSION{LABELS} is there")
        return [self.first_file(f"{split}.json", (".", "OpenRef", "Wuzj/OpenRef"), f"{split}.json is not there")]

    def read(self, split: str) -> AnnotationTable:
        """The expressions ``positive``; after each its ``negative``, which fits nothing. The ``ref_id`` of both is the
        number of the entry. Kinds: "relation" (single, multi, none; negative) and, of the test split, "dimension"."""
        builder = TableBuilder(self.name, split, "grec", "image")
        images: dict[str, int] = {}
        before = 0
        for path in self.sources(split):
            entries: Any = self.parse_file(path)
            if not isinstance(entries, list):
                kind = type(entries).__name__
                raise UserError(f"{path}: holds a {kind}, expected a list of entries{_keys_of(entries)}")
            dimension = path.name.removesuffix(LABELS) if split == "test" else ""
            self._read_entries(builder, path, entries, images, before, dimension)
            before += len(entries)
        return builder.table()

    def _read_entries(
        self,
        builder: TableBuilder,
        path: Path,
        entries: list[Any],
        images: dict[str, int],
        before: int,
        dimension: str,
    ) -> None:
        """Add the entries of a file; ``before`` is how many entries the files before it have."""
        whole = _unit(entries, path)
        start = f"{builder.split}.{dimension}." if dimension else f"{builder.split}."
        for index, entry in enumerate(entries):
            with builder.sample(f"{path}: entry {index}"):
                image, relation = check_name(take(entry, "image", str)), _relation(entry)
                image = f"{dimension}/{image}" if dimension else image
                positive, negative = _text(entry, "positive"), _text(entry, "negative")
                boxes = _proposals(entry, relation)
                width, height = self._size(entry, image)
                targets = Targets([_pixels(box, width, height, whole) for box in boxes])
                expressions = [(relation, positive, targets)] if positive is not None else []
                if negative is not None:
                    expressions.append(("negative" if expressions else relation, negative, Targets([])))
                if not expressions or (positive is None and targets.boxes):
                    raise BadSample("no expression", "neither 'positive' nor 'negative' has a text for it")
                number = images.setdefault(image, len(images))
                record = ImageRecord(number, image, width, height, "openref")
                for place, (kind, text, meant) in enumerate(expressions):
                    name = f"{start}{index}" + (".negative" if place else "")
                    key = builder.add(name, record, text, meant, number, SentenceIds(before + index))
                    builder.classify(key, "relation", kind)
                    if dimension:
                        builder.classify(key, "dimension", dimension)

    def image_file_names(self, image: str) -> Iterator[str]:
        """An image of the test split is in the folder of its dimension, or in one folder with all others."""
        yield from super().image_file_names(image)
        if "/" in image:
            yield PurePosixPath(image).name

    def _size(self, entry: Any, image: str) -> tuple[int, int]:
        """(width, height) as the first box tells, else of the image file."""
        box = next(iter(_proposal_list(entry)), {})
        told = box if "original_width" in box else box.get("original_size")
        names = next((pair for pair in _SIZES if isinstance(told, Mapping) and set(pair) <= told.keys()), None)
        if names is None:
            return self.image_size(image)  # a bare pair of numbers would not tell which of them is the width
        return check_size(take(told, names[0], int), take(told, names[1], int))


_SIZES = (("original_width", "original_height"), ("width", "height"))
_SIDES = (("width", "height"), ("w", "h"))


class _Box(NamedTuple):
    """x, y, width and height as they are written."""

    x: float
    y: float
    width: float
    height: float


def _keys_of(value: Any) -> str:
    return f" (its keys: {', '.join(map(str, list(value)[:12]))})" if isinstance(value, Mapping) else ""


def _relation(entry: Any) -> str:
    relation = take(entry, "relation_type", str)
    if relation not in RELATIONS:
        raise BadSample("unknown 'relation_type'", f"{shown(relation)}; there are {', '.join(RELATIONS)}")
    return relation


def _text(entry: Any, key: str) -> str | None:
    """An expression; None where there is none: no such key, null, or an empty text."""
    value = entry.get(key)
    return None if value is None or (isinstance(value, str) and not value.strip()) else expression_of(value)


def _proposal_list(entry: Any) -> list[dict[str, Any]]:
    boxes = entry.get("proposal") or []
    if not isinstance(boxes, list) or not all(isinstance(box, Mapping) for box in boxes):
        raise BadSample("'proposal' is no list of boxes", shown(boxes))
    return boxes


def _proposals(entry: Any, relation: str) -> list[_Box]:
    """The boxes of an entry, as many as it says.

    Raises:
        BadSample: if their number does not go with ``bbox_num`` or ``relation_type``, or a box has other keys.
    """
    boxes = [_box(box) for box in _proposal_list(entry)]
    if entry.get("bbox_num") is not None and take(entry, "bbox_num", int) != len(boxes):
        raise BadSample("'bbox_num' is not the number of boxes", f"{shown(entry['bbox_num'])}, there are {len(boxes)}")
    if (relation == "none") != (not boxes) or (relation == "single" and len(boxes) > 1):
        raise BadSample("'relation_type' does not go with the boxes", f"{relation}, {len(boxes)} boxes")
    return boxes


def _box(box: dict[str, Any]) -> _Box:
    sides = next((pair for pair in _SIDES if set(pair) <= box.keys()), _SIDES[0])
    return _Box(*(float(take(box, key, (int, float))) for key in ("x", "y", *sides)))


def _unit(entries: list[Any], path: Path) -> float:
    """The number that stands for the whole side of an image in this file: 100, or 1 where no box goes beyond it.

    Raises:
        UserError: if boxes go beyond 100.
    """
    largest = 0.0
    for entry in entries:
        try:
            boxes = [_box(box) for box in _proposal_list(entry)] if isinstance(entry, Mapping) else []
        except BadSample:
            continue  # said when it is read
        largest = max([largest, *(max(box.x + box.width, box.y + box.height) for box in boxes)])
    if largest > PERCENT * SLACK:
        raise UserError(f"{path}: a box ends at {largest:g}, where percent or shares of the image are expected")
    return PERCENT if largest > SLACK else 1.0


def _pixels(box: _Box, width: int, height: int, whole: float) -> list[float]:
    x, y, box_width, box_height = box
    pixels = [x * width / whole, y * height / whole, box_width * width / whole, box_height * height / whole]
    return check_box(pixels, width, height, key="proposal")
