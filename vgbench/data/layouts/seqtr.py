"""The layout of SeqTR, SimVG and ALVG: one ``instances.json`` per dataset whose keys are the splits, one entry per
object (or, for gRefCOCO, per image) with its expressions; and its variants of PropVG and InstanceVG.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from vgbench.core.errors import UserError
from vgbench.data.builder import TableBuilder
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
        path = self.files["instances"]
        with_ids = path.stem.endswith("_withid")
        train = split == "train"
        per_image = self.data.multi_target and train
        # one entry per object in training, one per expression otherwise
        builder = self.data.builder(split, self, "image" if per_image else "ref" if train else "expression")
        targets = TargetReader()
        grouped = 0
        for index, entry in self.entries(split, builder):
            where = f"{path}: {split}[{index}]"
            written = entry.get("expressions") if isinstance(entry, dict) else None
            flat = isinstance(written, dict)
            count = len(written) if isinstance(written, list) else 1
            try:
                image_id = take(entry, "image_id", int)
                source, name = self.image_name(entry, image_id, split)
                width, height = check_size(take(entry, "width", int), take(entry, "height", int))
                expressions = _raw(written) if flat else take(entry, "expressions", list)
                if not expressions:
                    raise BadSample("expression without text", "expressions []")
                grouped += len(expressions) > 1
                if self.data.multi_target:
                    wanted = [_flat_targets(entry)] if flat else _grouped_targets(entry, len(expressions))
                else:
                    target = {"box": take(entry, "bbox", list), "segmentation": entry.get("mask")}
                    if with_ids and (ann_id := take(entry, "id", int)) > 0:
                        target["ann_id"] = ann_id
                    wanted = [[target]]
            except BadSample as error:
                builder.skip(where, error, max(count, 1))
                continue
            found = None
            for number, expression in enumerate(expressions):
                with builder.sample(f"{where}, expression {number}"):
                    text = expression_of(expression)
                    if found is None or len(wanted) > 1:
                        found = targets.gather(wanted[number if len(wanted) > 1 else 0], width, height)
                    builder.add(
                        key=f"{split}.{index}.{number}",
                        image_id=image_id,
                        image=name,
                        width=width,
                        height=height,
                        expression=text,
                        group=image_id if per_image else index,
                        source=source,
                        **vars(found),
                    )
        if grouped and not train:
            builder.warnings.append(
                f"{grouped:,} evaluation entries hold several expressions (the official loader scores one drawn at "
                "random); all of them are scored here"
            )
        return builder.table()


def _raw(expressions: Any) -> list[Any]:
    raw = take(expressions, "raw", (str, list))
    return [raw] if isinstance(raw, str) else raw


def _flat_targets(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """PropVG's and InstanceVG's gRefCOCO entries: every annotation is a target; without a box it says there is none."""
    annotations = take(entry, "annotations", list)
    there = [a for a in annotations if not (isinstance(a, dict) and a.get("bbox") is None)]
    if there and len(there) < len(annotations):
        raise BadSample("annotations with and without a box", f"{len(there)} of {len(annotations)} have one")
    return _expression_targets([take(annotation, "bbox", list) for annotation in there], there, None)


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
        known = annotation if isinstance(annotation, dict) else {}
        segment = part if part is not None else known.get("segmentation")
        targets.append({"box": box, "segmentation": segment, "ann_id": known.get("original_id", known.get("id"))})
    return targets


def write_seqtr(tables: Tables, names: DatasetNames) -> Contents:
    content: dict[str, list[dict[str, Any]]] = {}
    multi = names.multi
    made_name = names.name if multi else f"{names.name.replace('+', 'plus')}-{names.split_by}"
    folder = names.layout_names.get(SeqTRLayout.key, (made_name,))[0]
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
                found = [[ids.annotations[number] for number in ids.of(row)] for row in rows]
                entry["bbox"] = [[a["bbox"] for a in part] or [[0, 0, 0, 0]] for part in found]
                entry["annotations"] = [[mdetr_annotation(a) for a in part] or [NO_TARGET] for part in found]
                entry["segmentation"] = [[a.get("segmentation") for a in part] for part in found]
            else:
                entry["bbox"] = xywh(first.boxes[0].tolist())
                if first.masks:
                    entry["mask"] = first.masks[0]
            entries.append(entry)
    yield f"annotations/{folder}/instances.json", content


SEQTR = Writer("seqtr", write_seqtr, single_box=True)
