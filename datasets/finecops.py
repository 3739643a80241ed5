"""FineCops-Ref: composed expressions of three levels, and edited ones that fit nothing (Liu et al., EMNLP 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from vgbench.core.errors import UserError
from vgbench.data.builder import ImageRecord, SentenceIds, TableBuilder, Targets
from vgbench.data.checks import BadSample, check_box, check_name, check_size, shown, take
from vgbench.data.dataset import Counts, GroundingData
from vgbench.data.layouts.targets import expression_of
from vgbench.data.table import AnnotationTable

__all__ = ["FineCopsRef"]

FILES = ("test_expression_all_coco_format.json", "test_coco_format.json")  # as released; as the evaluator calls it
EDITED = "neg_"  # how the names of edited images start; others are GQA's: NUMBER.jpg
FIRST_EDITED = 10**9  # numbers of edited images here, beyond those of Visual Genome
FOLDERS = (("gqa_images/images", "images", "gqa"), ("final_neg_images", "neg_images"))  # of GQA's and edited images
EDIT = "edit"  # the rule that the metric "contrast" compares within


class FineCopsRef(GroundingData):
    """``test_expression_all_coco_format.json``: an entry of ``images`` per expression ({id, file_name, caption, width,
    height}), one annotation each ({image_id, bbox xywh, level; of what fits nothing: negative_type, negative_level,
    negative_cate, positive_id}). ``positive_id`` is the ``images`` id of the expression that was edited: their common
    ``ref_id`` here.

    Fields as the authors' evaluator reads them: https://github.com/liujunzhuo/FineCops-Ref (``evaluation``).
    """

    name = "finecops-ref"
    title = "FineCops-Ref"
    tasks = ("grec",)
    licence = "CC BY 4.0 (figshare); images: terms of GQA (Visual Genome)"
    homepage = "https://github.com/liujunzhuo/FineCops-Ref"
    splits: Mapping[str, Counts] = {"test": Counts(12_820, None, 27_926)}  # 9,605 of something
    version = 3
    own_metrics = ("contrast",)
    image_folders = ("FineCops-Ref/images", "gqa/images", "gqa", "images", "FineCops-Ref")
    image_names = ()

    def expected_files(self) -> list[str]:
        return [f"{FILES[0]} or {FILES[1]} (also in annotations/, FineCops-Ref/ or FineCops-Ref/annotations/)"]

    def sources(self, split: str) -> list[Path]:
        self.check_split(split)
        folders = (".", "annotations", "FineCops-Ref", "FineCops-Ref/annotations")
        return [self.first_file(FILES, folders, f"neither {FILES[0]} nor {FILES[1]} is there")]

    def image_file_names(self, image: str) -> Iterator[str]:
        """GQA's images and the edited ones lie in one folder, or in the two that their archives unpack to."""
        yield from super().image_file_names(image)
        edited = PurePosixPath(image).name.startswith(EDITED)
        yield from (f"{folder}/{image}" for folder in FOLDERS[edited])

    def read(self, split: str) -> AnnotationTable:
        """All expressions; the level is the category of a target. Kinds: "level" of what fits, "edit" of the others."""
        (path,) = self.sources(split)
        content: Any = self.parse_file(path)
        if not isinstance(content, dict):
            raise UserError(f"{path}: holds a {type(content).__name__}, expected COCO's images and annotations")
        builder = TableBuilder(self.name, split, "grec", "expression")
        annotations = {shown(item.get("image_id")): item for item in _list(content, "annotations", path)}
        edited: dict[str, int] = {}
        for index, entry in enumerate(_list(content, "images", path)):
            with builder.sample(f"{path}: images[{index}]"):
                identity = take(entry, "id", int)
                annotation = annotations.get(shown(identity))
                if annotation is None:
                    raise BadSample("image without an annotation", shown(identity))
                width, height = check_size(take(entry, "width", int), take(entry, "height", int))
                image, text = (
                    check_name(take(entry, "file_name", str)),
                    expression_of(entry.get("caption", annotation.get("caption"))),
                )
                record = _image(image, width, height, edited)
                if annotation.get("negative_type") is None:
                    rule, kind, original = "level", f"level {take(annotation, 'level', int)}", identity
                    targets = Targets([check_box(take(annotation, "bbox", list), width, height)], categories=[kind])
                else:
                    rule, kind, targets = EDIT, _edit(annotation), Targets([])
                    original = None if annotation.get("positive_id") is None else _number(annotation, "positive_id")
                key = builder.add(str(identity), record, text, targets, index, SentenceIds(original, identity))
                builder.classify(key, rule, kind)
        return builder.table()


def _image(name: str, width: int, height: int, edited: dict[str, int]) -> ImageRecord:
    """An image of GQA has its number in Visual Genome for a name; ``edited`` numbers the others."""
    stem = PurePosixPath(name).stem
    if stem.isdecimal() and stem.isascii() and len(stem) < 10:
        return ImageRecord(int(stem), name, width, height, "vg")
    return ImageRecord(edited.setdefault(name, FIRST_EDITED + len(edited)), name, width, height, "finecops-ref")


def _number(annotation: dict[str, Any], key: str) -> int:
    """An id that is written as a number or as a text of digits."""
    value = annotation[key]
    return take(
        {key: int(value)} if isinstance(value, str) and value.isdecimal() and len(value) < 19 else annotation, key, int
    )


def _edit(annotation: dict[str, Any]) -> str:
    """What was edited and how: "text, relation, level 1"; what is not said is left out."""
    parts = [annotation.get("negative_cate"), take(annotation, "negative_type", str)]
    if annotation.get("negative_level") is not None:
        parts.append(f"level {take(annotation, 'negative_level', int)}")
    return ", ".join(shown(part) if not isinstance(part, str) else part for part in parts if part is not None)


def _list(content: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path}: {key!r} is no list of objects; give the file in COCO's format")
    return entries
