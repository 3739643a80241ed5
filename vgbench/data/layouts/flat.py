"""Layouts that are a plain list with one entry per expression, boxes but (VG-LAW apart) no masks."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file
from vgbench.data.builder import ImageRecord, SentenceIds, TableBuilder
from vgbench.data.checks import BadSample, check_name, check_size, shown, take
from vgbench.data.layouts.base import Layout, LayoutDataset, folders
from vgbench.data.layouts.targets import TargetReader, expression_of, number_in
from vgbench.data.table import AnnotationTable

EVALUATION_FOLDERS = ("minigpt4_refcoco_eval", "eval_data")
SOLUTION_FOLDERS = ("rec_jsons_processed", "rec_jsons")
IMG_ID = re.compile(r"(COCO_train2014_(\d{12}))_(\d+)")


class FlatLayout(Layout):
    """One entry per expression; expressions with the same :meth:`entry` ``object`` form a group."""

    form: Literal["xywh", "xyxy"] = "xywh"

    @abstractmethod
    def entries(self, split: str) -> list[Any]:
        """All entries of ``split``."""

    @abstractmethod
    def entry(self, entry: Any) -> dict[str, Any]:
        """{image, width, height, box, texts, object (hashable), [ann_id], [segmentation], [ref_id]}.

        Raises:
            BadSample: if the entry cannot be used.
        """

    def sources(self, split: str) -> list[Path]:
        return [self.files[split]] if split in self.files else []

    def remark(self, builder: TableBuilder) -> None:
        """Note what the user should know about the layout."""

    def read(self, split: str) -> AnnotationTable:
        """The entries of ``split``; those of the same object (or, where none is named, box) are a group."""
        path = self.files[split]
        entries = self.entries(split)
        if not isinstance(entries, list):
            raise UserError(f"{path}: holds a {type(entries).__name__}, expected a list of expressions")
        builder = self.data.builder(split, self)
        self.remark(builder)
        reader = TargetReader()
        groups: dict[Any, int] = {}
        for index, record in enumerate(entries):
            with builder.sample(f"{path}: {split}[{index}]"):
                fields = self.entry(record)
                width, height = check_size(fields["width"], fields["height"])
                target = {key: fields.get(key) for key in ("box", "segmentation", "ann_id")}
                targets = reader.gather([target], width, height, self.form)
                texts = [expression_of(text) for text in fields["texts"]]
                image = ImageRecord(number_in(fields["image"]), fields["image"], width, height, self.data.source)
                identity = fields.get("object") or (image.id, *targets.boxes[0])
                for number, text in enumerate(texts):
                    group, ids = groups.setdefault(identity, len(groups)), SentenceIds(fields.get("ref_id"))
                    builder.add(f"{split}.{index}.{number}", image, text, targets, group, ids)
        return builder.table()


def files_by_split(
    data: LayoutDataset, stems: tuple[str, ...], places: tuple[str, ...], ending: str
) -> dict[str, Path]:
    """Files ``<stem>_<split><ending>`` of the first folder that has any."""
    for stem in stems:
        for folder in folders(data.data_root, (*places, stem)):
            paths = {split: folder / f"{stem}_{split}{ending}" for split in data.splits}
            paths = {split: path for split, path in paths.items() if path.is_file()}
            if paths:
                return paths
    return {}


class MiniGPTLayout(FlatLayout):
    """MiniGPT-v2's evaluation files ``<set>_<split>.json``: {img_id ``COCO_train2014_<12 digits>_<n>``, sents (one
    text or a list), bbox xywh, height, width}. Names: the set's."""

    key = "minigpt"

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        paths = files_by_split(data, data.layout_names.get(cls.key, ()), EVALUATION_FOLDERS, ".json")
        if any(_holds_solutions(path) for path in paths.values()):
            return None  # another layout under the same names
        return cls(data, paths) if paths else None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        names = data.layout_names.get(cls.key)
        return f"{names[0]}_SPLIT.json (evaluation splits, boxes only)" if names else ""

    def remark(self, builder: TableBuilder) -> None:
        builder.notes.append("the texts of this layout are lower-cased, not as typed")

    def entries(self, split: str) -> list[Any]:
        return self.data.parse_file(self.files[split])

    def entry(self, entry: Any) -> dict[str, Any]:
        img_id = take(entry, "img_id", str)
        parts = IMG_ID.fullmatch(img_id)
        if parts is None:
            raise BadSample("img_id that is not COCO_train2014_<12 digits>_<n>", shown(img_id))
        texts = take(entry, "sents", (str, list))
        return {
            "image": f"{parts[1]}.jpg",
            "width": take(entry, "width", int),
            "height": take(entry, "height", int),
            "box": take(entry, "bbox", list),
            "texts": [texts] if isinstance(texts, str) else texts,
            "object": img_id,
            "ann_id": int(parts[3]) if self.data.file_suffix_is_ann_id else None,
        }


class VLMR1Layout(FlatLayout):
    """VLM-R1's files ``rec_jsons_processed/<set>_<split>.json``: {image (a path), normal_caption, solution xyxy,
    width, height}. Names: the set's."""

    key = "vlm-r1"
    form = "xyxy"

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        paths = files_by_split(data, data.layout_names.get(cls.key, ()), SOLUTION_FOLDERS, ".json")
        paths = {split: path for split, path in paths.items() if _holds_solutions(path)}
        return cls(data, paths) if paths else None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        names = data.layout_names.get(cls.key)
        return f"rec_jsons_processed/{names[0]}_SPLIT.json (boxes only)" if names else ""

    def remark(self, builder: TableBuilder) -> None:
        builder.notes.append("the texts of this layout are normalised, not as typed")

    def entries(self, split: str) -> list[Any]:
        return self.data.parse_file(self.files[split])

    def entry(self, entry: Any) -> dict[str, Any]:
        box = take(entry, "solution", list)
        return {
            "image": check_name(PurePosixPath(take(entry, "image", str)).name),
            "width": take(entry, "width", int),
            "height": take(entry, "height", int),
            "box": box[0] if len(box) == 1 and isinstance(box[0], list) else box,
            "texts": [take(entry, "normal_caption", str)],
        }


def _holds_solutions(path: Path) -> bool:
    """Whether a file is of VLM-R1's layout, by the keys at its start (MiniGPT-v2's files have the same names)."""
    try:
        with ordinary_file(path).open("rb") as file:
            start = file.read(65_536)
    except OSError:
        return False
    return b'"solution"' in start and b'"img_id"' not in start


class QwenLayout(FlatLayout):
    """Qwen-VL's evaluation files ``<set>_<split>.jsonl``: {image (a path), sent, bbox xyxy, width, height} per line.
    Names: the set's."""

    key = "qwen"
    form = "xyxy"

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        paths = files_by_split(data, data.layout_names.get(cls.key, ()), ("qwen",), ".jsonl")
        return cls(data, paths) if paths else None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        names = data.layout_names.get(cls.key)
        return f"{names[0]}_SPLIT.jsonl (evaluation splits, boxes only)" if names else ""

    def entries(self, split: str) -> list[Any]:
        return self.data.parse_file(self.files[split], read_json_lines)

    def entry(self, entry: Any) -> dict[str, Any]:
        return {
            "image": check_name(PurePosixPath(take(entry, "image", str)).name),
            "width": take(entry, "width", int),
            "height": take(entry, "height", int),
            "box": take(entry, "bbox", list),
            "texts": [take(entry, "sent", str)],
        }


def read_json_lines(path: Path) -> list[Any]:
    """One JSON value per line; empty lines are left out.

    Raises:
        UserError: if the file or a line is damaged (with the number of the line).
    """
    entries = []
    try:
        lines = ordinary_file(path).read_bytes().decode().splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); download it again") from None
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                entries.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: line {number} is not valid JSON ({error})") from None
    return entries
