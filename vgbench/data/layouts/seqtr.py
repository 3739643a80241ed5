"""The layout of SeqTR, SimVG and ALVG: one ``instances.json`` per dataset whose keys are the splits, one entry per
object (or, for gRefCOCO, per image) with its expressions; and its variants of PropVG and InstanceVG.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from vgbench.core.errors import UserError
from vgbench.data.builder import ImageRecord, TableBuilder
from vgbench.data.checks import BadSample, check_size, read_json, take
from vgbench.data.layouts.base import Layout, LayoutDataset, folders
from vgbench.data.layouts.mdetr import mdetr_annotation
from vgbench.data.layouts.refer import ReferLayout, ReferNames
from vgbench.data.layouts.targets import TargetReader, expression_of
from vgbench.data.layouts.writing import NO_TARGET, Contents, DatasetNames, Ids, Tables, Writer, xywh
from vgbench.data.table import AnnotationTable, Row


def read_splits(path: Path) -> dict[str, list[Any]]:
    """The lists of entries by split; other keys (``info``) are left out."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, expected an object whose keys are splits")
    return {key: value for key, value in content.items() if isinstance(value, list)}


class SeqTRLayout(Layout):
    """``annotations/<folder>/instances.json``. PropVG and InstanceVG call it ``instances_withid.json`` (each entry has
    the ``id`` of its annotation too) or, for gRefCOCO, ``instance.json``: there ``expressions`` is an object whose
    ``raw`` is a text or a list of texts, all of them for the objects in the list ``annotations``. Names: folders."""

    key = "seqtr"
    file_names: ClassVar[tuple[str, ...]] = ("instances.json", "instances_withid.json", "instance.json")

    @classmethod
    def folder_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return names

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        refer: ReferNames | None = data.layout_names.get(ReferLayout.key)
        refs = () if refer is None else refer.refs
        names: tuple[str, ...] = data.layout_names.get(cls.key, ())
        for folder in folders(data.data_root, names) if names else ():
            for path in (folder / name for name in cls.file_names):
                # refer's instances.json lies beside a file of refs
                if path.is_file() and not any((folder / name).is_file() for name in refs):
                    return cls(data, {"instances": path})
        return None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        names = data.layout_names.get(cls.key)
        return f"annotations/{names[0]}/{cls.file_names[0]}" if names else ""

    def sources(self, split: str) -> list[Path]:
        return list(self.files.values())

    def split_content(self, split: str) -> list[Any]:
        """All entries of ``split``.

        Raises:
            UserError: if the file has no such split.
        """
        path = self.files["instances"]
        splits = self.data.parse_file(path, read_splits)
        if split not in splits:
            raise UserError(f"{path}: no split {split!r}; splits in the file: {', '.join(splits) or 'none'}")
        return splits[split]

    def entries(self, split: str, builder: TableBuilder) -> Iterator[tuple[int, Any]]:
        """(position in the file, entry) of what belongs to the dataset; what is left out is noted in ``builder``."""
        yield from enumerate(self.split_content(split))

    def image_name(self, entry: dict[str, Any], image_id: int, split: str) -> tuple[str, str]:
        """(source, image name) of an entry."""
        return self.data.source, self.data.canonical_name.format(image_id)

    def read(self, split: str) -> AnnotationTable:
        """The entries of ``split``: one per object (or, for gRefCOCO, per image) in training, one per expression
        otherwise."""
        train = split == "train"
        per_image = self.data.multi_target and train
        builder = self.data.builder(split, self, "image" if per_image else "ref" if train else "expression")
        reader = TargetReader()
        several_expressions = 0
        for index, entry in self.entries(split, builder):
            where = f"{self.files['instances']}: {split}[{index}]"
            texts = entry.get("expressions") if isinstance(entry, dict) else None
            with builder.sample(where, len(texts) if isinstance(texts, list) else 1):
                image, expressions, target_lists = self._parts(entry, split)
                several_expressions += len(expressions) > 1
                targets = None
                for number, expression in enumerate(expressions):
                    with builder.sample(f"{where}, expression {number}"):
                        text = expression_of(expression)
                        if targets is None or len(target_lists) > 1:
                            of_text = target_lists[number if len(target_lists) > 1 else 0]
                            targets = reader.gather(of_text, image.width, image.height)
                        builder.add(f"{split}.{index}.{number}", image, text, targets, image.id if per_image else index)
        if several_expressions and not train:
            builder.warnings.append(
                f"{several_expressions:,} evaluation entries hold several expressions (the official loader scores one "
                "drawn at random); all of them are scored here"
            )
        return builder.table()

    def _parts(self, entry: Any, split: str) -> tuple[ImageRecord, list[Any], list[list[dict[str, Any]]]]:
        """(image, expressions, targets of each expression or, in a list of one, of all) of an entry."""
        image_id = take(entry, "image_id", int)
        source, name = self.image_name(entry, image_id, split)
        width, height = check_size(take(entry, "width", int), take(entry, "height", int))
        flat = isinstance(entry.get("expressions"), dict)
        expressions = _raw(entry["expressions"]) if flat else take(entry, "expressions", list)
        if not expressions:
            raise BadSample("expression without text", "expressions []")
        image = ImageRecord(image_id, name, width, height, source)
        if self.data.multi_target:
            return image, expressions, [_flat_targets(entry)] if flat else _grouped_targets(entry, len(expressions))
        target = {"box": take(entry, "bbox", list), "segmentation": entry.get("mask")}
        if self.files["instances"].stem.endswith("_withid") and (ann_id := take(entry, "id", int)) > 0:
            target["ann_id"] = ann_id
        return image, expressions, [[target]]


def _raw(expressions: Any) -> list[Any]:
    raw = take(expressions, "raw", (str, list))
    return [raw] if isinstance(raw, str) else raw


def _flat_targets(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """PropVG's and InstanceVG's gRefCOCO entries: every annotation is a target; without a box it says there is none."""
    annotations = take(entry, "annotations", list)
    with_box = [a for a in annotations if not (isinstance(a, dict) and a.get("bbox") is None)]
    if with_box and len(with_box) < len(annotations):
        raise BadSample("annotations with and without a box", f"{len(with_box)} of {len(annotations)} have one")
    return _expression_targets([take(annotation, "bbox", list) for annotation in with_box], with_box, None)


def _grouped_targets(entry: dict[str, Any], count: int) -> list[list[dict[str, Any]]]:
    """gRefCOCO entries: targets of each of ``count`` expressions (none: no target)."""
    boxes = take(entry, "bbox", list)
    annotations = entry.get("annotations") or [None] * count
    segmentation = entry.get("segmentation") or [None] * count
    for key, value in (("bbox", boxes), ("annotations", annotations), ("segmentation", segmentation)):
        if not isinstance(value, list) or len(value) != count:
            raise BadSample(f"{key!r} does not go with 'expressions'", f"{count} expressions")
    return [_expression_targets(*parts) for parts in zip(boxes, annotations, segmentation, strict=True)]


def _expression_targets(boxes: Any, annotations: Any, segmentation: Any) -> list[dict[str, Any]]:
    if not isinstance(boxes, list):
        raise BadSample("wrong type of 'bbox'", f"{type(boxes).__name__} instead of a list of boxes")
    annotations = annotations if isinstance(annotations, list) else [annotations] * len(boxes)
    if any(isinstance(a, dict) and (a.get("category_id") == -1 or a.get("empty") is True) for a in annotations):
        return []
    if boxes == [[0, 0, 0, 0]]:
        return []
    parts = segmentation if isinstance(segmentation, list) and segmentation else [None] * len(boxes)
    if not len(boxes) == len(annotations) == len(parts):
        raise BadSample("'bbox', 'annotations' and 'segmentation' differ in length", f"{len(boxes)} boxes")
    targets = []
    for box, annotation, part in zip(boxes, annotations, parts, strict=True):
        fields = annotation if isinstance(annotation, dict) else {}
        segment = part if part is not None else fields.get("segmentation")
        targets.append({"box": box, "segmentation": segment, "ann_id": fields.get("original_id", fields.get("id"))})
    return targets


def write_seqtr(tables: Tables, names: DatasetNames) -> Contents:
    """One ``instances.json`` of all splits."""
    content: dict[str, list[dict[str, Any]]] = {}
    multi = names.multi
    usual_folder = names.name if multi else f"{names.name.replace('+', 'plus')}-{names.split_by}"
    folder = names.layout_names.get(SeqTRLayout.key, (usual_folder,))[0]
    ids = Ids(tables)
    for split, table in tables.items():
        groups: dict[Any, list[Row]] = {}
        for row in table:
            groups.setdefault((row.image_id if multi else row.group) if split == "train" else row.key, []).append(row)
        entries = content.setdefault(split, [])
        for rows in groups.values():
            first = rows[0]
            entry: dict[str, Any] = {"image_id": first.image_id, "height": first.height, "width": first.width}
            entry["data_source"] = first.source  # tells the images of a merged set apart; others ignore it
            entry["expressions"] = [row.expression for row in rows]
            if multi:
                by_row = [[ids.annotations[number] for number in ids.of(row)] for row in rows]
                entry["bbox"] = [[a["bbox"] for a in part] or [[0, 0, 0, 0]] for part in by_row]
                entry["annotations"] = [[mdetr_annotation(a) for a in part] or [NO_TARGET] for part in by_row]
                entry["segmentation"] = [[a.get("segmentation") for a in part] for part in by_row]
            else:
                entry["bbox"] = xywh(first.boxes[0].tolist())
                if first.masks:
                    entry["mask"] = first.masks[0]
            entries.append(entry)
    yield f"annotations/{folder}/instances.json", content


SEQTR = Writer("seqtr", write_seqtr, single_box=True)
