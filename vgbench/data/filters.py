"""Named filters: evaluation sets without the expressions that somebody found to be wrong, over the same files.

Lists stay where their authors publish them; a filtered dataset has a name of its own (``refcoco@ref-l4``), so that its
results never stand in one column with those of the whole set.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vgbench.core.errors import UserError
from vgbench.data.checks import BadSample, read_json, take
from vgbench.data.table import AnnotationTable

Identity = tuple[int, tuple[float, ...], str]


class Filter(ABC):
    """Which expressions of a split to leave out."""

    name: str

    @abstractmethod
    def covers(self, split: str) -> bool:
        """False: the split stays whole."""

    @abstractmethod
    def file(self, split: str) -> Path:
        """The file that tells what to leave out of ``split``.

        Raises:
            UserError: if it is not there.
        """

    @abstractmethod
    def left_out(self, table: AnnotationTable, split: str) -> np.ndarray:
        """Boolean per row: leave it out.

        Raises:
            UserError: if the list is damaged, or names expressions that the table does not have.
        """

    def apply(self, table: AnnotationTable, split: str) -> AnnotationTable:
        """``table`` without them; ``info["filter"]`` says which filter and how many expressions it took."""
        out = self.left_out(table, split)
        kept = table.take(np.flatnonzero(~out))
        kept.info = {**table.info, "filter": {"name": self.name, "left_out": int(out.sum())}}
        return kept


def open_filter(spec: str, dataset: str, splits: Collection[str], root: Path | None) -> Filter:
    """
    Args:
        spec: "ref-l4", or a JSON file (:class:`ListFilter`).
        dataset: name of the dataset.
        splits: its splits.
        root: data_root, where the lists of "ref-l4" are looked for.

    Raises:
        UserError: if there is no such filter or file, or the file names a split that there is not.
    """
    if spec == ReviewedFilter.name:
        return ReviewedFilter(dataset, root)
    path = Path(spec).expanduser()
    if path.suffix != ".json" or not path.is_file():
        raise UserError(f"dataset.filter={spec}: neither a JSON file that is there nor the name of a filter (ref-l4)")
    listed = ListFilter(path)
    unknown = sorted(listed.exclude.keys() - set(splits))
    if unknown:
        raise UserError(f"{path}: exclude: {dataset} has no split {unknown[0]!r}; there are: {', '.join(splits)}")
    return listed


class ListFilter(Filter):
    """A list of one's own: ``{"name": ..., "by": "sent_id", "exclude": {"val": [17, 23]}}``.

    ``by``: what the numbers (or keys) are: key, sent_id, ref_id, image_id or ann_id. Splits that are not under
    ``exclude`` stay whole.
    """

    COLUMNS: ClassVar = {"key": "key", "sent_id": "sent_id", "ref_id": "ref_id", "image_id": "image_id"}

    def __init__(self, path: Path) -> None:
        self.path = path
        content = read_json(path)
        try:
            self.name, self.by = take(content, "name", str), take(content, "by", str)
            self.exclude = {
                split: frozenset(take(content["exclude"], split, list)) for split in take(content, "exclude", dict)
            }
        except (BadSample, TypeError) as error:
            raise UserError(f"{path}: {error}; a filter has name, by and exclude (split -> list of ids)") from None
        if self.by not in (*self.COLUMNS, "ann_id"):
            raise UserError(f"{path}: by={self.by!r} is not known; use {', '.join(self.COLUMNS)} or ann_id")
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", self.name):
            raise UserError(f"{path}: name {self.name!r}: use lower-case letters, digits, dots and dashes")
        if self.name == ReviewedFilter.name:
            raise UserError(f"{path}: name {self.name!r} is that of a published review; choose another")

    def covers(self, split: str) -> bool:
        return split in self.exclude

    def file(self, split: str) -> Path:
        return self.path

    def left_out(self, table: AnnotationTable, split: str) -> np.ndarray:
        wanted = self.exclude[split]
        if self.by == "ann_id":
            ids: list[Any] = table.arrow.column("ann_ids").to_pylist()
            found = {ann for row in ids for ann in row}
            out = [not wanted.isdisjoint(row) for row in ids]
        else:
            ids = table.arrow.column(self.COLUMNS[self.by]).to_pylist()
            found = set(ids)
            out = [number in wanted for number in ids]
        unknown = wanted - found
        if unknown:
            first = ", ".join(map(repr, sorted(unknown, key=str)[:3]))
            raise UserError(
                f"{self.path}: {len(unknown):,} of {len(wanted):,} {self.by} of {split} are not in the data ({first}); "
                "does the list belong to this dataset, split author and layout?"
            )
        return np.array(out, dtype=bool)


class ReviewedFilter(Filter):
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
        found = [place / folder for place in places for folder in self.FOLDERS if (place / folder).is_dir()]
        if not found:
            raise UserError(
                f"dataset.filter=ref-l4: no folder {self.FOLDERS[0]} in {root}; it is part of the Ref-L4 release on "
                "huggingface.co (JierunChen/Ref-L4)"
            )
        self.folder = found[0]

    def covers(self, split: str) -> bool:
        return split != "train"

    def file(self, split: str) -> Path:
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
                box = take(annotation, "bbox", list)
                if len(box) != 4 or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in box):
                    raise BadSample("'bbox' is not a list of four numbers")
                name = take(image, "file_name", str)
                digits = re.findall(r"\d{12}", name)
                if not digits:
                    raise BadSample("file_name without an image id", repr(name)[:60])
                corners = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
                wrong[_identity(int(digits[0]), corners, take(image, "caption", str))] += 1
            except BadSample as error:
                raise UserError(f"{path}: annotations[{index}]: {error}") from None
    except BadSample as error:
        raise UserError(f"{path}: {error}") from None
    return wrong
