"""Layouts: the forms in which one and the same dataset lies on people's disks, each recognised by its files."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from vgbench.checks import shown
from vgbench.dataset import BadSample, GroundingData, TableBuilder, check_box, check_mask, check_text, take
from vgbench.errors import UserError
from vgbench.table import AnnotationTable


@dataclass(frozen=True)
class Files:
    """What a dataset is called in each layout (empty: it does not exist in that layout).

    Attributes:
        refer: folders of the refer layout.
        refs: names of the file with the expressions in those folders.
        seqtr: folders of the SeqTR layout.
        transvg: folder and stem of ``<stem>/<stem>_<split>.pth`` in the TransVG layout.
        mdetr: stems of ``<stem>_<split>.json`` in the MDETR layout.
        refexp: ``dataset_name`` of its entries in MDETR's ``final_refexp_val.json``.
        hub: folders of the parquet files published as jxu124/<name>.
        benchmark: ``<set>_<split_by>`` in the files of jxu124/refcoco-benchmark and refclef-benchmark.
        lmms: folders of the parquet files published as lmms-lab/<name>.
        lmms_mixed: splits of the latter that mix the split with another author's, and the rows of each.
        tfds: configuration of ``ref_coco`` in TensorFlow Datasets.
        entities: whether the original release of Flickr30k Entities is one of the layouts.
        vglaw: stem of ``<stem>.pkl`` in the VG-LAW layout.
        minigpt: stems of ``<stem>_<split>.json`` in the MiniGPT-v2 evaluation layout, and of Qwen-VL's ``.jsonl``.
    """

    refer: tuple[str, ...] = ()
    refs: tuple[str, ...] = ()
    seqtr: tuple[str, ...] = ()
    transvg: tuple[str, ...] = ()
    mdetr: tuple[str, ...] = ()
    refexp: str = ""
    hub: tuple[str, ...] = ()
    benchmark: str = ""
    lmms: tuple[str, ...] = ()
    lmms_mixed: Mapping[str, str] = field(default_factory=dict)
    tfds: str = ""
    entities: bool = False
    vglaw: tuple[str, ...] = ()
    minigpt: tuple[str, ...] = ()


class Layout(ABC):
    """One layout of one dataset, found on disk."""

    key: ClassVar[str]

    def __init__(self, data: LayoutDataset, files: dict[str, Path]) -> None:
        self.data = data
        self.files = files

    @classmethod
    @abstractmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        """The layout if its files are below ``data.data_root``, else None."""

    @classmethod
    @abstractmethod
    def expects(cls, data: LayoutDataset) -> str:
        """The files of this layout in words; empty if the dataset does not exist in it."""

    @abstractmethod
    def sources(self, split: str) -> list[Path]:
        """Annotation files of ``split``; empty if this layout does not have the split."""

    @abstractmethod
    def read(self, split: str) -> AnnotationTable:
        """Parse ``split``."""


def folders(root: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """Existing folders called ``names`` in the usual places; also ``root``, unless it is called as another dataset."""
    for name in names:
        for place in (
            root / name,
            root / "annotations" / name,
            root / "data" / name,
            root / "data" / "annotations" / name,
            root / "seqtr_type" / "annotations" / name,
            root / "data" / "seqtr_type" / "annotations" / name,
        ):
            if place.is_dir():
                yield place
    if root.resolve().name in names or root.resolve().name not in DATASET_FOLDERS:
        yield root


DATASET_FOLDERS = {
    *("refcoco", "refcoco+", "refcocog", "refclef", "grefcoco", "refcocoplus"),
    *("refcoco-unc", "refcocoplus-unc", "refcocog-umd", "refcocog-google", "referitgame-berkeley"),
    *("flickr30k", "mixed", "mixed-seg", "grefs", "grefs_grec"),
    *("unc", "unc+", "gref", "gref_umd", "referit", "flickr"),
    *("RefCOCO", "RefCOCOplus", "RefCOCOg"),
}


class LayoutDataset(GroundingData):
    """A dataset that may lie on disk in several layouts.

    Args:
        layout: take this layout only (:attr:`Layout.key`); None: the first whose files are there and hold the split.
    """

    files: Files
    layouts: ClassVar[tuple[type[Layout], ...]]
    source: ClassVar[str] = "coco"  # value of the table's source column
    canonical_name: ClassVar[str] = "COCO_train2014_{:012d}.jpg"  # image name where annotations give the id only
    multi_target: ClassVar[bool] = False
    phrases: ClassVar[bool] = False  # expressions are noun phrases of longer sentences (Flickr30k)
    separate_boxes: bool = False  # a phrase keeps all its boxes instead of the one around them
    corner_boxes: ClassVar[bool] = False  # the TransVG lists have xyxy instead of xywh
    file_suffix_is_ann_id: ClassVar[bool] = False  # what the number after the image id in ref file names is

    def __init__(self, data_root: str | Path | None = None, *, layout: str | None = None, **options: Any) -> None:
        super().__init__(data_root, **options)
        if layout is not None and layout not in [kind.key for kind in self.layouts]:
            known = ", ".join(kind.key for kind in self.layouts)
            raise UserError(f"{self.name}: no layout {layout!r}; there are: {known}")
        self._layout = layout

    @property
    def task(self) -> Literal["rec", "grec", "phrase"]:
        return "grec" if self.multi_target else "phrase" if self.separate_boxes else "rec"

    def expected_files(self) -> list[str]:
        return [text for kind in self.layouts if (text := kind.expects(self))]

    @cached_property
    def found_layouts(self) -> list[Layout]:
        """All layouts whose files are on disk.

        Raises:
            UserError: if there are none.
        """
        self.data_root  # noqa: B018 (raises if it is not there)
        kinds = [kind for kind in self.layouts if self._layout in (None, kind.key)]
        found = [layout for kind in kinds if (layout := kind.find(self)) is not None]
        if not found:
            raise self.missing()
        return found

    def layout_of(self, split: str) -> Layout:
        """The layout that ``split`` is read from.

        Raises:
            UserError: if no layout on disk holds it.
        """
        for layout in self.found_layouts:
            if layout.sources(split):
                return layout
        kinds = ", ".join(layout.key for layout in self.found_layouts)
        raise self.missing(f"no annotations of split {split!r} (found the {kinds} layout)")

    def sources(self, split: str) -> list[Path]:
        return self.layout_of(self.check_split(split)).sources(split)

    def read(self, split: str) -> AnnotationTable:
        return self.layout_of(self.check_split(split)).read(split)

    def options(self) -> dict[str, Any]:
        return {"layout": self._layout}

    def builder(self, split: str, layout: Layout, group_unit: str = "ref") -> TableBuilder:
        builder = TableBuilder(self.name, split, self.task, group_unit)
        builder.info["layout"] = layout.key
        return builder


@dataclass(frozen=True)
class Targets:
    """Targets of one expression, checked: columns of the annotation table."""

    boxes: list[list[float]]
    masks: list[str]
    polygons: list[int]
    ann_ids: list[int]
    categories: list[str]


class TargetReader:
    """Checks targets of one image size at a time and gathers them; counts targets whose mask is missing."""

    def __init__(self) -> None:
        self.without_mask = 0

    def gather(
        self, targets: list[dict[str, Any]], width: int, height: int, form: Literal["xywh", "xyxy"] = "xywh"
    ) -> Targets:
        """``targets``: {box (``form``), segmentation, ann_id (int or None), category (str or None)} each.

        Where some targets of the expression have a mask and others have none, the latter get an empty one, so that
        the union is that of the known masks.

        Raises:
            BadSample: see :func:`check_box` and :func:`check_mask`.
        """
        boxes = [check_box(target["box"], width, height, form) for target in targets]
        masks = [check_mask(target.get("segmentation"), width, height) for target in targets]
        known = [mask for mask in masks if mask is not None]
        self.without_mask += len(masks) - len(known)
        if known:
            masks = [mask if mask is not None else (_empty_rle(width, height), 0) for mask in masks]
        ann_ids = [ann for target in targets if isinstance(ann := target.get("ann_id"), int)]
        categories = [name for target in targets if (name := target.get("category")) is not None]
        return Targets(
            boxes=boxes,
            masks=[mask[0] for mask in masks if mask is not None] if known else [],
            polygons=[mask[1] for mask in masks if mask is not None] if known else [],
            ann_ids=ann_ids if len(ann_ids) == len(targets) else [],
            categories=categories if len(categories) == len(targets) else [],
        )


def coco_target(annotation: Any, id_key: str = "id") -> dict[str, Any]:
    """A target for :meth:`TargetReader.gather` from an annotation as COCO writes it, its id under ``id_key``.

    Raises:
        BadSample: if it is no object with a box.
    """
    box = take(annotation, "bbox", list)
    return {"box": box, "segmentation": annotation.get("segmentation"), "ann_id": annotation.get(id_key)}


def add_ref(builder: TableBuilder, ref_id: int, sentences: Iterable[tuple[str, int]], **shared: Any) -> None:
    """Add a ref: one row for each (text, sent_id), with the columns that they share."""
    for text, sent_id in sentences:
        builder.add(key=f"{ref_id}.{sent_id}", expression=text, ref_id=ref_id, sent_id=sent_id, **shared)


def merge_boxes(targets: list[dict[str, Any]], form: Literal["xywh", "xyxy"]) -> dict[str, Any]:
    """The target of a phrase with several boxes where one is wanted: the box around them (in ``form``).

    Raises:
        BadSample: if one of them is no box.
    """
    if len(targets) == 1:
        return targets[0]
    for target in targets:
        box = target["box"]
        if (
            not isinstance(box, list)
            or len(box) != 4
            or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in box)
        ):
            raise BadSample("'bbox' is not a list of four numbers", shown(box))
    boxes = [target["box"] for target in targets]
    if form == "xywh":
        boxes = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[2] for box in boxes), max(box[3] for box in boxes)
    around = [left, top, right, bottom] if form == "xyxy" else [left, top, right - left, bottom - top]
    return {"box": around, "category": targets[0].get("category")}


def _empty_rle(width: int, height: int) -> str:
    packed = check_mask({"size": [height, width], "counts": [width * height]}, width, height)
    assert packed is not None
    return packed[0]


def expression_of(sentence: Any) -> str:
    """The text as typed: a string, or a dictionary with ``raw`` (else ``sent``).

    Raises:
        BadSample: if there is no text.
    """
    if isinstance(sentence, dict):
        sentence = sentence.get("raw") or sentence.get("sent")
    if not isinstance(sentence, str) or not sentence.strip():
        raise BadSample("expression without text", shown(sentence))
    return check_text(sentence)


def number_in(name: str) -> int:
    """The last number in a file name: the image id of COCO, SAIAPR and Flickr30k names.

    Raises:
        BadSample: if there is none.
    """
    digits = re.findall(r"\d+", PurePosixPath(name).stem)
    if not digits or len(digits[-1]) > 18:
        raise BadSample("image name without an id", shown(name))
    return int(digits[-1])
