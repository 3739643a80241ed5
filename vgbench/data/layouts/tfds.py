"""TensorFlow Datasets' ``ref_coco`` as ``tfds build`` writes it: one message per image (:mod:`.tfrecord`), with the
image, its objects and their expressions inside."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from vgbench.core.errors import UserError
from vgbench.data.builder import ImageRecord, SentenceIds
from vgbench.data.checks import BadSample
from vgbench.data.layouts.base import Layout, LayoutDataset
from vgbench.data.layouts.parquet import embedded_size
from vgbench.data.layouts.targets import TargetReader, expression_of
from vgbench.data.layouts.tfrecord import parse_example, read_records
from vgbench.data.pixels import IMAGE_ERRORS, open_image
from vgbench.data.table import AnnotationTable

SHARD = re.compile(r"ref_coco-(\w+)\.tfrecord-(\d{5})-of-(\d{5})")
SPLITS = {"val": "validation"}  # our name -> theirs; the others are called alike


class TFDSLayout(Layout):
    """``ref_coco/<config>/<version>/ref_coco-<split>.tfrecord-00000-of-<n>`` with the configurations ``refcoco_unc``,
    ``refcoco_google``, ``refcocoplus_unc``, ``refcocog_umd`` and ``refcocog_google``. Annotation ids, sentence ids and
    (from version 1.1.0 on) masks are there; ref ids and category names are not. Of several versions the latest is
    taken. Name: the configuration."""

    key = "tfds"

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        config, root = data.layout_names.get(cls.key), data.data_root
        if config is None:
            return None
        places = [root / "ref_coco" / config, root / "tensorflow_datasets" / "ref_coco" / config, root / config]
        if root.resolve().name == config:
            places.append(root)
        for place in places:
            versions = {
                tuple(map(int, path.name.split("."))): path
                for path in place.glob("*.*.*")
                if re.fullmatch(r"\d+\.\d+\.\d+", path.name)
            }
            for _, version in sorted(versions.items(), reverse=True):
                shards = {path.name: path for path in sorted(version.iterdir()) if SHARD.fullmatch(path.name)}
                if shards:
                    return cls(data, shards)
        return None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        config = data.layout_names.get(cls.key)
        return "" if config is None else f"ref_coco/{config}/VERSION/ref_coco-SPLIT.tfrecord-*"

    def sources(self, split: str) -> list[Path]:
        stem = f"ref_coco-{SPLITS.get(split, split)}.tfrecord-"
        return [path for name, path in self.files.items() if name.startswith(stem)]

    def read(self, split: str) -> AnnotationTable:
        """The records of ``split``, each an image with its objects, each of which is a group."""
        builder = self.data.builder(split, self)
        reader = TargetReader()
        group = 0
        for path in self._shards(split):
            for index, record in enumerate(read_records(path)):
                where = f"{path}: record {index}"
                texts: list[Any] = []
                try:
                    example = parse_example(record)
                    texts = example.get("objects/refexp/raw/ragged_flat_values", [])
                    image = self._image(example)
                    objects = _objects(example, image.width, image.height)
                except BadSample as error:
                    builder.skip(where, error, max(len(texts), 1))
                    continue
                for number, (target, sentences) in enumerate(objects):
                    with builder.sample(f"{where}, objects[{number}]", len(sentences)):
                        targets = reader.gather([target], image.width, image.height)
                        rows = [(sent_id, expression_of(_text(text))) for sent_id, text in sentences]
                        for sent_id, text in rows:
                            key = f"{target['ann_id']}.{sent_id}"
                            builder.add(key, image, text, targets, group, SentenceIds(sent_id=sent_id))
                        group += 1
        return builder.table()

    def _shards(self, split: str) -> list[Path]:
        paths = self.sources(split)
        total = int(paths[0].name[-5:])
        if len(paths) != total:
            raise UserError(f"{paths[0].parent}: {len(paths)} of {total} files of {split} are there; get the others")
        return paths

    def _image(self, example: dict[str, list[Any]]) -> ImageRecord:
        (image_id,) = _column(example, "image/id", int, 1)
        width, height = embedded_size(_column(example, "image", bytes, 1)[0])
        return ImageRecord(image_id, self.data.canonical_name.format(image_id), width, height, self.data.source)


Object = tuple[dict[str, Any], list[tuple[int, bytes]]]


def _objects(example: dict[str, list[Any]], width: int, height: int) -> list[Object]:
    """(target for :meth:`TargetReader.gather`, (sent_id, text) of its expressions) of every referred object."""
    ids = _column(example, "objects/id", int)
    # normalised ymin, xmin, ymax, xmax in float32, of annotations with two decimals: rounding gives these back
    flat = np.asarray(_column(example, "objects/bbox", float, 4 * len(ids)), np.float64).reshape(-1, 4)
    corners = (flat[:, [1, 0, 3, 2]] * [width, height, width, height]).tolist()
    masks: list[Any] = [None] * len(ids)
    if "objects/mask" in example:
        masks = [_mask(content, width, height) for content in _column(example, "objects/mask", bytes, len(ids))]
    name = "objects/refexp/{}/ragged_{}"
    lengths = _column(example, name.format("raw", "row_lengths_0"), int, len(ids))
    texts = _column(example, name.format("raw", "flat_values"), bytes)
    sent_ids = _column(example, name.format("refexp_id", "flat_values"), int, len(texts))
    if min(lengths, default=0) < 0 or sum(lengths) != len(texts):
        raise BadSample("row lengths that do not fit the expressions", f"{sum(lengths)}, {len(texts)} expressions")
    if _column(example, name.format("refexp_id", "row_lengths_0"), int) != lengths:
        raise BadSample("row lengths of 'raw' and 'refexp_id' differ")
    sentences = iter(zip(sent_ids, texts, strict=True))
    objects = []
    for ann_id, (x1, y1, x2, y2), mask, length in zip(ids, corners, masks, lengths, strict=True):
        x, y = round(x1, 2), round(y1, 2)
        box = [x, y, round(round(x2, 2) - x, 2), round(round(y2, 2) - y, 2)]
        target = {"box": box, "segmentation": mask, "ann_id": ann_id}
        objects.append((target, [next(sentences) for _ in range(length)]))
    return objects


def _column(example: dict[str, list[Any]], name: str, kind: type, count: int | None = None) -> list[Any]:
    """A feature's values, checked: type (the first one's, they are all alike) and number."""
    if name not in example:
        raise BadSample(f"no feature {name!r}", f"there are {', '.join(list(example)[:12])}")
    values = example[name]
    if values and not isinstance(values[0], kind):
        raise BadSample(f"wrong type of {name!r}", f"{type(values[0]).__name__} instead of {kind.__name__}")
    if count is not None and len(values) != count:
        raise BadSample(f"wrong number of values of {name!r}", f"{len(values)} instead of {count}")
    return values


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadSample("text that is not valid Unicode", f"byte {error.start}") from None


def _mask(content: bytes, width: int, height: int) -> dict[str, Any]:
    """A PNG whose pixels are not zero on the object -> RLE."""
    if (size := embedded_size(content)) != (width, height):  # before it is decoded
        raise BadSample("mask of another size than the image", f"{size[0]} x {size[1]}, image {width} x {height}")
    try:
        with open_image(io.BytesIO(content)) as opened:
            pixels = np.asarray(opened)
    except IMAGE_ERRORS as error:
        raise BadSample("mask that is no image", " ".join(str(error).split())) from None
    if pixels.ndim != 2:
        raise BadSample("mask that is no [height, width] image", str(pixels.shape))
    return coco_mask.encode(np.asfortranarray(pixels > 0, dtype=np.uint8))
