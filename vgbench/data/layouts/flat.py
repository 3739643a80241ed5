"""Layouts that are a plain list with one entry per expression, boxes but (VG-LAW apart) no masks."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from vgbench.core.errors import UserError
from vgbench.data.builder import TableBuilder
from vgbench.data.checks import BadSample, check_name, check_size, shown, take
from vgbench.data.layouts.base import Layout, LayoutDataset, folders
from vgbench.data.layouts.refer import read_pickle
from vgbench.data.layouts.targets import TargetReader, expression_of, number_in
from vgbench.data.table import AnnotationTable

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
        path = self.files[split]
        entries = self.entries(split)
        if not isinstance(entries, list):
            raise UserError(f"{path}: holds a {type(entries).__name__}, expected a list of expressions")
        builder = self.data.builder(split, self)
        self.remark(builder)
        targets = TargetReader()
        groups: dict[Any, int] = {}
        for index, record in enumerate(entries):
            try:
                known = self.entry(record)
                width, height = check_size(known["width"], known["height"])
                target = {key: known.get(key) for key in ("box", "segmentation", "ann_id")}
                found = targets.gather([target], width, height, self.form)
                texts = [expression_of(text) for text in known["texts"]]
                image_id = number_in(known["image"])
            except BadSample as error:
                builder.skip(f"{path}: {split}[{index}]", error)
                continue
            identity = known.get("object") or (image_id, *found.boxes[0])
            for number, text in enumerate(texts):
                builder.add(
                    key=f"{split}.{index}.{number}",
                    image_id=image_id,
                    image=known["image"],
                    width=width,
                    height=height,
                    expression=text,
                    ref_id=known.get("ref_id"),
                    group=groups.setdefault(identity, len(groups)),
                    source=self.data.source,
                    **vars(found),
                )
        return builder.table()


def files_by_split(
    data: LayoutDataset, stems: tuple[str, ...], places: tuple[str, ...], ending: str
) -> dict[str, Path]:
    """Files ``<stem>_<split><ending>`` of the first folder that has any."""
    for stem in stems:
        for folder in folders(data.data_root, (*places, stem)):
            paths = {split: folder / f"{stem}_{split}{ending}" for split in data.splits}
            there = {split: path for split, path in paths.items() if path.is_file()}
            if there:
                return there
    return {}


class MiniGPTLayout(FlatLayout):
    """MiniGPT-v2's evaluation files ``<set>_<split>.json``: {img_id ``COCO_train2014_<12 digits>_<n>``, sents (one
    text or a list), bbox xywh, height, width}."""

    key = "minigpt"

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        there = files_by_split(data, data.files.minigpt, ("minigpt4_refcoco_eval", "eval_data"), ".json")
        return cls(data, there) if there else None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        return f"{data.files.minigpt[0]}_SPLIT.json (evaluation splits, boxes only)" if data.files.minigpt else ""

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


class QwenLayout(FlatLayout):
    """Qwen-VL's evaluation files ``<set>_<split>.jsonl``: {image (a path), sent, bbox xyxy, width, height} per line."""

    key = "qwen"
    form = "xyxy"

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        there = files_by_split(data, data.files.minigpt, ("qwen",), ".jsonl")
        return cls(data, there) if there else None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        return f"{data.files.minigpt[0]}_SPLIT.jsonl (evaluation splits, boxes only)" if data.files.minigpt else ""

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
        lines = path.read_bytes().decode().splitlines()
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


class TransVGLayout(FlatLayout):
    """``<set>/<set>_<split>.pth`` of TransVG, VLTVG, QRNet, HiVG and ResVG: a list of (image file, mask file, box,
    phrase, attributes) or, for Flickr30k, (image file, box, phrase). Sizes come from the image files."""

    key = "transvg"

    def __init__(self, data: LayoutDataset, files: dict[str, Path]) -> None:
        super().__init__(data, files)
        self.form = "xyxy" if data.corner_boxes else "xywh"
        self._sizes: dict[str, tuple[int, int]] = {}

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        there = files_by_split(data, data.files.transvg, (), ".pth")
        return cls(data, there) if there else None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        if not data.files.transvg:
            return ""
        stem = data.files.transvg[0]
        return f"data/{stem}/{stem}_SPLIT.pth (boxes only; image sizes are read from the images)"

    def entries(self, split: str) -> list[Any]:
        return self.data.parse_file(self.files[split], read_torch_list)

    def entry(self, entry: Any) -> dict[str, Any]:
        if not isinstance(entry, (tuple, list)) or len(entry) not in (3, 5):
            raise BadSample("not a tuple of 5 (image, mask, box, phrase, attributes) or 3 (image, box, phrase)")
        image, box, phrase = entry if len(entry) == 3 else (entry[0], entry[2], entry[3])
        if not isinstance(image, str):
            raise BadSample("image name is no text", shown(image))
        image = check_name(image)
        if image not in self._sizes:
            self._sizes[image] = self.data.image_size(image)
        width, height = self._sizes[image]
        box = box.tolist() if hasattr(box, "tolist") else box
        return {"image": image, "width": width, "height": height, "box": box, "texts": [phrase]}


def read_torch_list(path: Path) -> Any:
    """A list saved with ``torch.save``; only plain containers, tensors and NumPy arrays are accepted.

    Raises:
        UserError: if the file is damaged or refers to anything else (named in the message).
    """
    import torch

    reconstruct: Any = np.zeros(1).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    allowed: list[Any] = [np.ndarray, np.dtype]
    allowed += [type(np.dtype(name)) for name in ("float32", "float64", "int32", "int64", "uint8")]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # NumPy 1 and 2
        allowed += [(reconstruct, f"{module}._reconstruct"), (scalar, f"{module}.scalar")]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises almost anything
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it refers to {refused[1]}, which could run code" if refused else f"damaged ({type(error).__name__})"
        raise UserError(f"{path}: not read ({what}); expected a list of tuples saved with torch.save") from None


class VGLawLayout(FlatLayout):
    """VG-LAW's ``<set>(<split_by>).pkl``: {items: {split: [{image_id, bbox xywh, phrase, ref_id}]}}, masks as
    ``masks/<set>(<split_by>)/<ref_id>.npy``. Sizes come from the masks, else from the image files."""

    key = "vglaw"

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        for stem in data.files.vglaw:
            for folder in folders(data.data_root, ("vglaw", "refcoco")):
                path = folder / f"{stem}.pkl"
                if path.is_file():
                    return cls(data, dict.fromkeys(data.splits, path))
        return None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        return f"{data.files.vglaw[0]}.pkl with masks/{data.files.vglaw[0]}/REF_ID.npy" if data.files.vglaw else ""

    def entries(self, split: str) -> list[Any]:
        path = self.files[split]
        content = self.data.parse_file(path, read_pickle)
        items = content.get("items") if isinstance(content, dict) else None
        if not isinstance(items, dict):
            raise UserError(f"{path}: no object under the key 'items'")
        if split not in items:
            raise UserError(f"{path}: no split {split!r}; splits in the file: {', '.join(map(str, items)) or 'none'}")
        return items[split]

    def entry(self, entry: Any) -> dict[str, Any]:
        ref_id = take(entry, "ref_id", int)
        image = self.data.canonical_name.format(take(entry, "image_id", int))
        path = self.files[next(iter(self.files))]
        mask_path = path.parent / "masks" / path.stem / f"{ref_id}.npy"
        segmentation = None
        if mask_path.is_file():
            try:
                mask = np.load(mask_path, allow_pickle=False)
            except (OSError, ValueError, EOFError, MemoryError) as error:
                raise BadSample("mask file that is no array", f"{mask_path}: {error}") from None
            if mask.ndim != 2 or mask.dtype.kind not in "biuf":
                raise BadSample("mask that is no [height, width] array", f"{mask_path}: {mask.shape} {mask.dtype}")
            height, width = mask.shape
            segmentation = coco_mask.encode(np.asfortranarray(mask > 0, dtype=np.uint8))
        else:
            width, height = self.data.image_size(image)
        return {
            "image": image,
            "width": width,
            "height": height,
            "box": take(entry, "bbox", (list, tuple)),
            "texts": [take(entry, "phrase", str)],
            "object": ("ref", ref_id),
            "ref_id": ref_id,
            "segmentation": segmentation,
        }
