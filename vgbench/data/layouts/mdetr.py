"""MDETR's files: COCO JSON in which one image entry is one sentence, with character spans into its caption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError
from vgbench.data.builder import ImageRecord, TableBuilder
from vgbench.data.checks import BadSample, check_name, check_size, read_json, shown, take
from vgbench.data.layouts.base import Layout, LayoutDataset
from vgbench.data.layouts.flat import files_by_split
from vgbench.data.layouts.targets import TargetReader, coco_target, expression_of, merge_boxes, number_in
from vgbench.data.layouts.writing import NO_TARGET, Contents, DatasetNames, Ids, Tables, Writer, image_record
from vgbench.data.table import AnnotationTable

MDETR_FOLDERS = ("mdetr_annotations", "OpenSource", "mdetr")
REFEXP_STEM = "final_refexp"


@dataclass(frozen=True)
class MDETRNames:
    """What a dataset is called in MDETR's files: ``<stem>_<split>.json``, and as ``dataset_name`` of its entries in
    ``final_refexp_val.json`` (None: it is not in there)."""

    stems: tuple[str, ...]
    refexp: str | None = None


class MDETRLayout(Layout):
    """``finetune_<set>_<split>.json``: {images: [{id, original_id, file_name, height, width, caption}], annotations:
    [{image_id (of the entry), original_id (COCO), bbox xywh, tokens_positive}]}. Where there is none of val,
    ``final_refexp_val.json`` is taken, which holds three datasets: entries name theirs as ``dataset_name``."""

    key = "mdetr"

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        names = cls.names(data)
        paths = files_by_split(data, names.stems, MDETR_FOLDERS, ".json")
        if names.refexp:
            paths = {**files_by_split(data, (REFEXP_STEM,), MDETR_FOLDERS, ".json"), **paths}
        return cls(data, paths) if paths else None

    @classmethod
    def names(cls, data: LayoutDataset) -> MDETRNames:
        """Those of ``data``."""
        return data.layout_names.get(cls.key, MDETRNames(()))

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        names = cls.names(data)
        merged = f" or {REFEXP_STEM}_val.json" if names.refexp else ""
        return f"{names.stems[0]}_SPLIT.json{merged} (boxes only)" if names.stems else ""

    def sources(self, split: str) -> list[Path]:
        return [self.files[split]] if split in self.files else []

    def entries(self, split: str, images: list[Any], builder: TableBuilder) -> Iterator[tuple[int, int, Any]]:
        """(position in the file, number in the dataset, entry) of what belongs to the dataset.

        Raises:
            UserError: if that is nothing.
        """
        path = self.files[split]
        if not path.name.startswith(REFEXP_STEM):
            yield from ((index, index, entry) for index, entry in enumerate(images))
            return
        own_name = self.names(self.data).refexp
        counts: Counter[str] = Counter()
        for index, entry in enumerate(images):
            try:
                name = take(entry, "dataset_name", str)
            except BadSample as error:
                builder.skip(f"{path}: images[{index}]", error)
                continue
            if name == own_name:
                yield index, counts[name], entry
            counts[name] += 1
        if own_name not in counts:
            others = ", ".join(sorted(counts)) or "none"
            raise UserError(f"{path}: no entry of dataset_name {own_name!r}; there are: {others}")

    @property
    def by_phrase(self) -> bool:
        """Whether the expressions are the noun phrases of the captions, each with its boxes, or whole captions."""
        return self.data.phrases

    def image_of(self, entry: Any) -> tuple[str, int, str]:
        """(source, image id, image name) of an entry.

        Raises:
            BadSample: if it does not tell.
        """
        name = check_name(take(entry, "file_name", str))
        image_id = take(entry, "original_id", int) if "original_id" in entry else number_in(name)
        return self.data.source, image_id, name

    def read(self, split: str) -> AnnotationTable:
        """The sentences of ``split``, or their phrases (:attr:`by_phrase`); those for the same boxes of an image are a
        group."""
        path = self.files[split]
        images, annotations = self._content(path)
        per_image = self.data.multi_target and split == "train"
        builder = self.data.builder(split, self, "image" if per_image else "ref")
        reader = TargetReader()
        groups: dict[Any, int] = {}
        for index, position, entry in self.entries(split, images, builder):
            where = f"{path}: images[{index}]"
            with builder.sample(where):
                image = self._image(entry)
                caption = expression_of(take(entry, "caption", str))
                expressions = self._expressions(caption, annotations.get(take(entry, "id", (int, str)), []))
                for number, (phrase, boxes) in enumerate(expressions):
                    with builder.sample(f"{where}, phrase {number}" if self.by_phrase else where):
                        text = expression_of(phrase)
                        merged = self.by_phrase and not self.data.separate_boxes
                        boxes = [merge_boxes(boxes, "xywh")] if merged else boxes
                        targets = reader.gather(boxes, image.width, image.height)
                        corners = (tuple(box) for box in targets.boxes)
                        identity = (image.source, image.id, tuple(targets.ann_ids), *corners)
                        group = image.id if per_image else groups.setdefault(identity, len(groups))
                        builder.add(f"{split}.{position}.{number}", image, text, targets, group)
        return builder.table()

    def _content(self, path: Path) -> tuple[list[Any], dict[Any, list[dict[str, Any]]]]:
        """(image entries, annotations by the id of their image entry)."""
        content = self.data.parse_file(path, read_json)
        images, annotations = (
            content.get(key) if isinstance(content, dict) else None for key in ("images", "annotations")
        )
        if not isinstance(images, list) or not isinstance(annotations, list):
            raise UserError(f"{path}: expected COCO JSON with lists under the keys 'images' and 'annotations'")
        by_image: dict[Any, list[dict[str, Any]]] = {}
        for index, annotation in enumerate(annotations):
            if not isinstance(annotation, dict) or not isinstance(annotation.get("image_id"), (int, str)):
                raise UserError(f"{path}: annotations[{index}] has no 'image_id'")
            by_image.setdefault(annotation["image_id"], []).append(annotation)
        return images, by_image

    def _image(self, entry: Any) -> ImageRecord:
        source, image_id, name = self.image_of(entry)
        width, height = check_size(take(entry, "width", int), take(entry, "height", int))
        return ImageRecord(image_id, name, width, height, source)

    def _expressions(self, caption: str, annotations: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
        """(text, targets) of each expression of a sentence."""
        objects = [a for a in annotations if a.get("empty") is not True and a.get("category_id") != -1]
        targets = [coco_target(annotation, "original_id") for annotation in objects]
        if self.by_phrase:
            phrases: dict[tuple[tuple[int, int], ...], list[dict[str, Any]]] = {}
            for annotation, target in zip(objects, targets, strict=True):
                phrases.setdefault(_spans(take(annotation, "tokens_positive", list)), []).append(target)
            return [(" ".join(caption[start:end] for start, end in spans), boxes) for spans, boxes in phrases.items()]
        if not self.data.multi_target and len(targets) != 1:
            raise BadSample("not exactly one target", f"{len(targets)} annotations")
        return [(caption, targets)]


def _spans(pairs: list[Any]) -> tuple[tuple[int, int], ...]:
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(end, int) and end >= 0 for end in pair)):
            raise BadSample("tokens_positive that is no list of [start, end]", shown(pairs))
    return tuple((start, end) for start, end in pairs)


def mdetr_annotation(annotation: dict[str, Any]) -> dict[str, Any]:
    """A target's annotation as MDETR writes it, without its mask."""
    fields = {key: value for key, value in annotation.items() if key != "segmentation"}
    return {**fields, "original_id": annotation["id"], "empty": False}


def write_mdetr(tables: Tables, names: DatasetNames) -> Contents:
    """A COCO JSON file per split."""
    ids = Ids(tables)
    for split, table in tables.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index, row in enumerate(table):
            images.append(
                {
                    **image_record(row),
                    "id": index,
                    "original_id": row.image_id,
                    "caption": row.expression,
                    "dataset_name": names.name,
                    "tokens_negative": [],
                }
            )
            targets = [{**ids.annotations[n], "original_id": n, "empty": False} for n in ids.of(row)] or [NO_TARGET]
            for annotation in targets:
                positive = [] if annotation["empty"] else [[0, len(row.expression)]]
                annotations.append(
                    {**annotation, "id": len(annotations), "image_id": index, "tokens_positive": positive}
                )
        categories = ids.category_records()
        content = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
        yield f"finetune_{names.name}_{split}.json", content


MDETR = Writer("mdetr", write_mdetr)
