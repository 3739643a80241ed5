"""TensorFlow Datasets' ``ref_coco`` as ``tfds build`` writes it, read without TensorFlow: TFRecord files of
``tf.train.Example`` messages, one per image, with the image, its objects and their expressions inside."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from vgbench.core.errors import UserError, require_extra
from vgbench.data.checks import BadSample
from vgbench.data.images import IMAGE_ERRORS
from vgbench.data.layouts.base import Layout, LayoutDataset
from vgbench.data.layouts.hub import embedded_size
from vgbench.data.layouts.targets import TargetReader, expression_of
from vgbench.data.table import AnnotationTable

SHARD = re.compile(r"ref_coco-(\w+)\.tfrecord-(\d{5})-of-(\d{5})")
SPLITS = {"val": "validation"}  # our name -> theirs; the others are called alike


class TFDSLayout(Layout):
    """``ref_coco/<config>/<version>/ref_coco-<split>.tfrecord-00000-of-<n>`` with the configurations ``refcoco_unc``,
    ``refcoco_google``, ``refcocoplus_unc``, ``refcocog_umd`` and ``refcocog_google``. Annotation ids, sentence ids and
    (from version 1.1.0 on) masks are there; ref ids and category names are not. Of several versions the latest is
    taken."""

    key = "tfds"

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        config, root = data.files.tfds, data.data_root
        if not config:
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
        return f"ref_coco/{data.files.tfds}/VERSION/ref_coco-SPLIT.tfrecord-*" if data.files.tfds else ""

    def sources(self, split: str) -> list[Path]:
        stem = f"ref_coco-{SPLITS.get(split, split)}.tfrecord-"
        return [path for name, path in self.files.items() if name.startswith(stem)]

    def read(self, split: str) -> AnnotationTable:
        paths = self.sources(split)
        total = int(paths[0].name[-5:])
        if len(paths) != total:
            raise UserError(f"{paths[0].parent}: {len(paths)} of {total} files of {split} are there; get the others")
        builder = self.data.builder(split, self)
        reader = TargetReader()
        group = 0
        for path in paths:
            for index, record in enumerate(read_records(path)):
                where = f"{path}: record {index}"
                raw: list[Any] = []
                try:
                    example = parse_example(record)
                    raw = example.get("objects/refexp/raw/ragged_flat_values", [])
                    (image_id,) = _column(example, "image/id", int, 1)
                    width, height = embedded_size(_column(example, "image", bytes, 1)[0])
                    objects = _objects(example, width, height)
                except BadSample as error:
                    builder.skip(where, error, max(len(raw), 1))
                    continue
                for number, (target, sentences) in enumerate(objects):
                    try:
                        found = reader.gather([target], width, height)
                        rows = [(sent_id, expression_of(_text(text))) for sent_id, text in sentences]
                    except BadSample as error:
                        builder.skip(f"{where}, objects[{number}]", error, max(len(sentences), 1))
                        continue
                    for sent_id, text in rows:
                        builder.add(
                            key=f"{target['ann_id']}.{sent_id}",
                            image_id=image_id,
                            image=self.data.canonical_name.format(image_id),
                            width=width,
                            height=height,
                            expression=text,
                            sent_id=sent_id,
                            group=group,
                            source=self.data.source,
                            **vars(found),
                        )
                    group += 1
        return builder.table()


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
    found = []
    for ann_id, (x1, y1, x2, y2), mask, length in zip(ids, corners, masks, lengths, strict=True):
        x, y = round(x1, 2), round(y1, 2)
        box = [x, y, round(round(x2, 2) - x, 2), round(round(y2, 2) - y, 2)]
        target = {"box": box, "segmentation": mask, "ann_id": ann_id}
        found.append((target, [next(sentences) for _ in range(length)]))
    return found


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
        with Image.open(io.BytesIO(content)) as opened:
            pixels = np.asarray(opened)
    except IMAGE_ERRORS as error:
        raise BadSample("mask that is no image", " ".join(str(error).split())) from None
    if pixels.ndim != 2:
        raise BadSample("mask that is no [height, width] image", str(pixels.shape))
    return coco_mask.encode(np.asfortranarray(pixels > 0, dtype=np.uint8))


# ---------------------------------------------------------------------------------------------------------- the format


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: each has its length (uint64), the checksum of these eight bytes (uint32), the
    content and its checksum, in little-endian order.

    The content's own checksum is not compared: in Python that would take longer than everything else, and the SHA-256
    of the file is in every record of a run.

    Raises:
        UserError: if the file is damaged or none of this kind.
    """
    try:
        left = path.stat().st_size
        with path.open("rb") as file:
            while left:
                head = file.read(12)
                length, checksum = struct.unpack("<QI", head) if len(head) == 12 else (0, -1)
                left -= length + 16
                if masked_crc32c(head[:8]) != checksum or left < 0:
                    raise UserError(f"{path}: not a TFRecord file, damaged or truncated (byte {file.tell()})")
                yield file.read(length)
                file.seek(4, io.SEEK_CUR)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def masked_crc32c(content: bytes) -> int:
    """TFRecord's checksum: CRC-32C, rotated right by 15 bits, plus a constant."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# message -> (name, number, type, repeated) of its fields; a map field is a list of entries on the wire
EXAMPLE = {
    "BytesList": [("value", 1, "bytes", True)],
    "FloatList": [("value", 1, "float", True)],
    "Int64List": [("value", 1, "int64", True)],
    "Feature": [("bytes", 1, "BytesList", False), ("float", 2, "FloatList", False), ("int64", 3, "Int64List", False)],
    "Entry": [("key", 1, "string", False), ("value", 2, "Feature", False)],
    "Features": [("feature", 1, "Entry", True)],
    "Example": [("features", 1, "Features", False)],
}


@cache
def example_type() -> Any:
    """The message class ``tf.train.Example`` (tensorflow/core/example/example.proto and feature.proto)."""
    purpose = "reading TensorFlow Datasets' files"
    pb2 = require_extra("google.protobuf.descriptor_pb2", "tfds", purpose)
    pool = require_extra("google.protobuf.descriptor_pool", "tfds", purpose).DescriptorPool()
    factory = require_extra("google.protobuf.message_factory", "tfds", purpose)
    schema = pb2.FileDescriptorProto(name="example.proto", package="tfds", syntax="proto3")
    for message, fields in EXAMPLE.items():
        made = schema.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            field = made.field.add(name=name, number=number, label=3 if repeated else 1)
            if kind in EXAMPLE:
                field.type, field.type_name = field.TYPE_MESSAGE, f".tfds.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
    pool.Add(schema)
    return factory.GetMessageClass(pool.FindMessageTypeByName("tfds.Example"))


def parse_example(record: bytes) -> dict[str, list[Any]]:
    """Features by name; values are bytes, floats (float32) or integers.

    Raises:
        BadSample: if the record is no ``tf.train.Example``.
        UserError: if protobuf is not installed.
    """
    kind = example_type()
    try:
        entries = kind.FromString(record).features.feature
    except Exception as error:  # protobuf's DecodeError, from whichever of its implementations is installed
        raise BadSample("record that is no tf.train.Example", " ".join(str(error).split())[:80]) from None
    found: dict[str, list[Any]] = {}
    for entry in entries:
        there = next((name for name in ("bytes", "float", "int64") if entry.value.HasField(name)), None)
        found[entry.key] = [] if there is None else list(getattr(entry.value, there).value)
    return found
