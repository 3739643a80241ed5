"""Ref-Adv-s: expressions among objects that look alike (Dong et al., ICLR 2026), not the Ref-Adv of 2020."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgbench.data.builder import ImageRecord, SentenceIds, TableBuilder, Targets
from vgbench.data.checks import BadSample, check_box, check_name, check_size, shown, take
from vgbench.data.dataset import Counts
from vgbench.data.layouts.contained import ContainedImages
from vgbench.data.layouts.parquet import has_columns, parquet_columns, read_rows
from vgbench.data.layouts.targets import expression_of, number_in
from vgbench.data.table import AnnotationTable

__all__ = ["RefAdvS"]

COLUMNS = ["file_name", "normal_caption", "solution", "width", "height"]
FURTHER = ("image_source", "human_authored", "use_negation", "distractors")  # the authors' loader does without them
FOLDERS = ("ref-adv-s/data", "dddraxxx/ref-adv-s/data", "ref-adv-s", "data", ".")


class RefAdvS(ContainedImages):
    """``train-*.parquet`` (all of it is for evaluation): {image, file_name, normal_caption, solution (box xyxy in
    pixels), width, height, image_source, human_authored, use_negation, distractors}.

    The public part of a benchmark of 5,000. The images are in the files; they are written into the cache folder when
    the first is asked for. Fields as the authors' ``run.py`` reads them: https://github.com/dddraxxx/Ref-Adv.
    """

    name = "ref-adv-s"
    title = "Ref-Adv-s"
    tasks = ("rec",)
    licence = "CC BY 4.0; images: terms of COCO and OpenImages"
    homepage = "https://github.com/dddraxxx/Ref-Adv"
    splits: Mapping[str, Counts] = {"test": Counts(None, None, 1_142)}
    own_metrics = ("rec/acc",)

    image_key = "file_name"

    def image_name(self, row: dict[str, Any]) -> str | None:
        """The name in the row, if it is one."""
        try:
            return check_name(take(row, "file_name", str))
        except BadSample:
            return None

    def expected_files(self) -> list[str]:
        return ["train-*.parquet (also in data/, ref-adv-s/ or ref-adv-s/data/)"]

    def sources(self, split: str) -> list[Path]:
        self.check_split(split)
        what = f"no train-*.parquet with the columns {', '.join(COLUMNS)}"
        return self.first_files(["train-*.parquet"], FOLDERS, what, lambda path: has_columns(path, COLUMNS))

    def read(self, split: str) -> AnnotationTable:
        """The expressions; those of one image and box are a group. Kinds: "distractors", "negation", "written by"."""
        builder = TableBuilder(self.name, split, "rec")
        groups: dict[tuple[str, tuple[float, ...]], int] = {}
        others: dict[str, int] = {}
        number = -1
        for path in self.sources(split):
            further = [name for name in FURTHER if name in parquet_columns(path)]
            for index, row in enumerate(read_rows(path, [*COLUMNS, *further])):
                number += 1
                with builder.sample(f"{path}: row {index}"):
                    width, height = check_size(take(row, "width", int), take(row, "height", int))
                    box = check_box(take(row, "solution", list), width, height, "xyxy", "solution")
                    image, text = check_name(take(row, "file_name", str)), expression_of(row["normal_caption"])
                    kinds = _kinds(row)
                    image_id, source = _identity(row, image, others)
                    record = ImageRecord(image_id, image, width, height, source)
                    group = groups.setdefault((image, tuple(box)), len(groups))
                    ids = SentenceIds(sent_id=number)
                    key = builder.add(str(number), record, text, Targets([box]), group, ids)
                    for rule, kind in kinds.items():
                        builder.classify(key, rule, kind)
        return builder.table()


def _identity(row: dict[str, Any], image: str, others: dict[str, int]) -> tuple[int, str]:
    """Number of an image, and the collection that numbers it: COCO's own; others, whose names are no numbers, get
    negative ones, which no COCO image has."""
    if isinstance(row.get("image_source"), str) and row["image_source"].startswith("coco"):
        return number_in(image), "coco"
    return -1 - others.setdefault(image, len(others)), "ref-adv-s"


def _kinds(row: dict[str, Any]) -> dict[str, str]:
    """What the authors tell apart, as far as the file says it."""
    kinds = {}
    if row.get("distractors") is not None:
        count = _count(row["distractors"])
        kinds["distractors"] = (
            "fewer than 2" if count < 2 else "2-3" if count < 4 else "4-6" if count < 7 else "7 or more"
        )
    if row.get("use_negation") is not None:
        kinds["negation"] = "with" if _flag(row, "use_negation") else "without"
    if row.get("human_authored") is not None:
        kinds["written by"] = "people" if _flag(row, "human_authored") else "a model, checked by people"
    return kinds


def _flag(row: dict[str, Any], key: str) -> bool:
    if not isinstance(row[key], bool):
        raise BadSample(f"{key!r} is neither true nor false", shown(row[key]))
    return row[key]


def _count(value: Any) -> int:
    """How many distractors: a number, a list of them, or either as JSON text.

    Raises:
        BadSample: if it is none of these.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadSample("'distractors' is not valid JSON", str(error)) from None
    return len(value) if isinstance(value, list) else take({"distractors": value}, "distractors", int)
