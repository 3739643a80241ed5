"""RefBench-PRO: six kinds of expressions, one of them of what is not there (Gao et al., arXiv 2512.06276)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from vgbench.core.errors import UserError
from vgbench.data.builder import ImageRecord, TableBuilder, Targets
from vgbench.data.checks import BadSample, check_box, check_name, check_size, shown, take
from vgbench.data.dataset import Counts, GroundingData
from vgbench.data.layouts.targets import expression_of
from vgbench.data.table import AnnotationTable

__all__ = ["RefBenchPro"]

FILES = ("annotation.jsonl", "annotations_6000.jsonl")  # of PR-Bench, with all boxes; of the first release
KINDS = ("attribute", "position", "interaction", "relation", "commonsense", "reject")
REJECTION = "reject"
PERCEPTION = KINDS[:3]  # the authors' two dimensions; the other three are reasoning


class RefBenchPro(GroundingData):
    """``annotation.jsonl`` of PR-Bench (its name since 2026) or ``annotations_6000.jsonl`` of RefBench-PRO:
    {image_path, task_type, expression, bbox xyxy ([] for "reject"), width, height}.

    The first release holds the boxes of 1,200 expressions, 200 of each kind; an expression whose box was held back is
    left out and counted. Where a line tells no size, the image file does.
    Fields: https://github.com/TG0110/RefBench-PRO (README).
    """

    name = "refbench-pro"
    title = "RefBench-PRO"
    tasks = ("grec",)
    licence = "CC BY-NC 4.0 (PR-Bench); images: terms of FineHARD"
    homepage = "https://github.com/TG0110/RefBench-PRO"
    splits: Mapping[str, Counts] = {"test": Counts(3_102, None, 6_000)}
    version = 3
    own_metrics = ("grec/macc",)
    disagreements = ("the first release, annotations_6000.jsonl, has the boxes of 1,200 of the 6,000 expressions",)
    image_folders = ("RefBench-PRO/images", "PR-Bench/images", "images")
    image_names = ()

    def expected_files(self) -> list[str]:
        return [f"{FILES[0]} or {FILES[1]} (also in PR-Bench/ or RefBench-PRO/)"]

    def sources(self, split: str) -> list[Path]:
        self.check_split(split)
        folders = (".", "PR-Bench", "RefBench-PRO", "thisis1go/PR-Bench", "thisis1go/RefBench-PRO")
        return [self.first_file(FILES, folders, f"neither {FILES[0]} nor {FILES[1]} is there")]

    def read(self, split: str) -> AnnotationTable:
        """The expressions whose box is known, and the rejections; the kind of an expression is its category. Kinds:
        "task type" and "dimension"."""
        (path,) = self.sources(split)
        builder = TableBuilder(self.name, split, "grec", "expression")
        images: dict[str, int] = {}
        held_back = 0
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not readable as text ({error})") from None
        for index, line in enumerate(lines):
            if not line.strip():
                continue
            with builder.sample(f"{path}: line {index + 1}"):
                entry = _entry(line)
                kind, boxes = _kind(entry), entry.get("bbox") or []
                if not boxes and kind != REJECTION:
                    held_back += 1
                    continue
                image, text = check_name(take(entry, "image_path", str)), expression_of(entry.get("expression"))
                if "width" in entry or "height" in entry:
                    width, height = check_size(take(entry, "width", int), take(entry, "height", int))
                else:
                    width, height = self.image_size(image)
                if boxes and kind == REJECTION:
                    raise BadSample("a box for an expression of nothing", shown(boxes))
                targets = Targets([])
                if boxes:
                    targets = Targets([check_box(boxes, width, height, "xyxy")], categories=[kind])
                record = ImageRecord(images.setdefault(image, len(images)), image, width, height, "refbench-pro")
                key = builder.add(f"{split}.{index}", record, text, targets, index)
                builder.classify(key, "task type", kind)
                builder.classify(key, "dimension", "perception" if kind in PERCEPTION else "reasoning")
        if held_back:
            builder.notes.append(f"{held_back:,} expressions have no box in this release and are left out")
        return builder.table()


def _entry(line: str) -> dict[str, object]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadSample("not valid JSON", str(error)) from None
    if not isinstance(entry, dict):
        raise BadSample("not an object", shown(entry))
    return entry


def _kind(entry: dict[str, object]) -> str:
    kind = take(entry, "task_type", str)
    if kind not in KINDS:
        raise BadSample("unknown 'task_type'", f"{shown(kind)}; there are {', '.join(KINDS)}")
    return kind
