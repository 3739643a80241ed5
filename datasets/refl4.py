"""Ref-L4: long, checked expressions on COCO and Objects365 images (Chen et al., arXiv 2406.16866); and its
authors' review of RefCOCO, RefCOCO+ and RefCOCOg."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vgbench.core.errors import UserError
from vgbench.data.builder import ImageRecord, SentenceIds, TableBuilder, Targets
from vgbench.data.checks import BadSample, check_box, check_name, check_size, four_numbers, read_json, take
from vgbench.data.dataset import Counts, GroundingData
from vgbench.data.filters import NamedFilter
from vgbench.data.layouts.parquet import read_rows
from vgbench.data.layouts.targets import expression_of, number_in
from vgbench.data.table import AnnotationTable

__all__ = ["RefL4", "ReviewedFilter"]

Identity = tuple[int, tuple[float, ...], str]
COLUMNS = ["id", "caption", "bbox", "bbox_id", "ori_category_id", "image_id", "height", "width", "file_name", "split"]


class ReviewedFilter(NamedFilter):
    """The review of RefCOCO, RefCOCO+ and RefCOCOg by the authors of Ref-L4 (Chen et al., 2024, arXiv 2406.16866).

    Files ``<set>_<split>_reviewed.json`` in ``refcocos_annotation_reviewed`` of their release: one image entry per
    expression with its caption, one annotation with ``caption_quality`` (0: wrong label). Expressions are recognised by
    image, box and words, because the files number them afresh.
    """

    name = "ref-l4"
    FOLDERS = (
        "refcocos_annotation_reviewed",
        "Ref-L4/refcocos_annotation_reviewed",
        "JierunChen/Ref-L4/refcocos_annotation_reviewed",
    )

    def __init__(self, dataset: str, root: Path | None) -> None:
        if dataset not in ("refcoco", "refcoco+", "refcocog"):
            raise UserError(
                f"dataset.filter=ref-l4: there is no review of {dataset}, only of refcoco, refcoco+, refcocog"
            )
        self.dataset = dataset
        places = [] if root is None else [root, *root.resolve().parents[:2]]
        folders = [place / folder for place in places for folder in self.FOLDERS if (place / folder).is_dir()]
        if not folders:
            raise UserError(
                f"dataset.filter=ref-l4: no folder {self.FOLDERS[0]} in {root}; it is part of the Ref-L4 release on "
                "huggingface.co (JierunChen/Ref-L4)"
            )
        self.folder = folders[0]

    def covers(self, split: str) -> bool:
        return split != "train"

    def file(self, split: str) -> Path:
        """The review of a split; raises UserError if it is not there."""
        path = self.folder / f"{self.dataset}_{split}_reviewed.json"
        if not path.is_file():
            raise UserError(f"{path}: is not there, so {split} cannot be filtered; get it, or leave out dataset.filter")
        return path

    def left_out(self, table: AnnotationTable, split: str) -> np.ndarray:
        path = self.file(split)
        wrong = _wrong_expressions(path)
        total = sum(wrong.values())
        out = np.zeros(len(table), dtype=bool)
        for index, row in enumerate(table):
            identity = _identity(row.image_id, row.boxes.reshape(-1).tolist(), row.expression)
            if wrong[identity] > 0:  # duplicates were reviewed one by one
                wrong[identity] -= 1
                out[index] = True
        if int(out.sum()) != total:
            raise UserError(
                f"{path}: {total - int(out.sum()):,} of its {total:,} wrong expressions are not in {split}; does it "
                "belong to this dataset and split author?"
            )
        return out


def _identity(image_id: int, box: list[float], text: str) -> Identity:
    """Image, box to two decimals (as annotated), words without case and punctuation."""
    words = " ".join(re.sub(r"[^\w\s]|_", " ", text.lower()).split())
    return image_id, tuple(round(value, 2) for value in box), words


def _wrong_expressions(path: Path) -> Counter[Identity]:
    content = read_json(path)
    wrong: Counter[Identity] = Counter()
    try:
        images: dict[Any, Any] = {}
        for record in take(content, "images", list):
            images[json.dumps(take(record, "id", (int, str)))] = record
        for index, annotation in enumerate(take(content, "annotations", list)):
            try:
                if take(annotation, "caption_quality", (int, float)) > 0:
                    continue
                image = images.get(json.dumps(take(annotation, "image_id", (int, str))))
                if image is None:
                    raise BadSample("image_id without an image")
                x, y, width, height = four_numbers(take(annotation, "bbox", list))
                name = take(image, "file_name", str)
                digits = re.findall(r"\d{12}", name)
                if not digits:
                    raise BadSample("file_name without an image id", repr(name)[:60])
                corners = [x, y, x + width, y + height]
                wrong[_identity(int(digits[0]), corners, take(image, "caption", str))] += 1
            except BadSample as error:
                raise UserError(f"{path}: annotations[{index}]: {error}") from None
    except BadSample as error:
        raise UserError(f"{path}: {error}") from None
    return wrong


class RefL4(GroundingData):
    """``ref-l4-<split>.parquet``: one row per expression, box xywh in pixels; about half of the captions are rewritten
    versions of another caption of the same box (column ``is_rewrite``), all of them count."""

    name = "ref-l4"
    title = "Ref-L4"
    tasks = ("rec",)
    licence = "CC BY-NC 4.0; images: terms of COCO and Objects365"
    homepage = "https://github.com/JierunChen/Ref-L4"
    splits: Mapping[str, Counts] = {"val": Counts(), "test": Counts()}  # 45,341 expressions together
    filters = (ReviewedFilter,)
    disjoint = False  # by expression
    image_folders = ("Ref-L4/images", "images/ref-l4", "images")
    image_names = ()

    def expected_files(self) -> list[str]:
        return ["{ref-l4-val.parquet, ref-l4-test.parquet} (also in Ref-L4/)"]

    def sources(self, split: str) -> list[Path]:
        self.check_split(split)
        folders = (".", "Ref-L4", "JierunChen/Ref-L4")
        return [self.first_file(f"ref-l4-{split}.parquet", folders, f"ref-l4-{split}.parquet is not there")]

    def read(self, split: str) -> AnnotationTable:
        """The captions of ``split``; those of one box are a group."""
        (path,) = self.sources(split)
        builder = TableBuilder(self.name, split, "rec")
        groups: dict[Any, int] = {}
        for index, row in enumerate(read_rows(path, COLUMNS)):
            with builder.sample(f"{path}: row {index}"):
                if take(row, "split", str) != split:
                    raise BadSample("row of another split", str(row["split"])[:40])
                width, height = check_size(take(row, "width", int), take(row, "height", int))
                box = check_box(take(row, "bbox", list), width, height)
                text, number = expression_of(row["caption"]), take(row, "id", int)
                image, identity = check_name(take(row, "file_name", str)), take(row, "image_id", str)
                image_id, object_id = number_in(identity), take(row, "bbox_id", str)
                targets = Targets([box], categories=[take(row, "ori_category_id", str)])
                source = "objects365" if identity.startswith("o365") else "coco"
                record = ImageRecord(image_id, image, width, height, source)
                group = groups.setdefault(object_id, len(groups))
                builder.add(str(number), record, text, targets, group, SentenceIds(sent_id=number))
        return builder.table()
