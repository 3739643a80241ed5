"""TFRecord files of ``tf.train.Example`` messages, read without TensorFlow."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError, require_extra
from vgbench.core.files import ordinary_file
from vgbench.data.checks import BadSample


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: each has its length (uint64), the checksum of these eight bytes (uint32), the
    content and its checksum, in little-endian order.

    The content's own checksum is not compared: in Python that would take longer than everything else, and the SHA-256
    of the file is in every record of a run.

    Raises:
        UserError: if the file is damaged or none of this kind.
    """
    try:
        remaining = path.stat().st_size
        with ordinary_file(path).open("rb") as file:
            while remaining:
                head = file.read(12)
                length, checksum = struct.unpack("<QI", head) if len(head) == 12 else (0, -1)
                remaining -= length + 16
                if masked_crc32c(head[:8]) != checksum or remaining < 0:
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
        descriptor = schema.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            field = descriptor.field.add(name=name, number=number, label=3 if repeated else 1)
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
    features: dict[str, list[Any]] = {}
    for entry in entries:
        kind_name = next((name for name in ("bytes", "float", "int64") if entry.value.HasField(name)), None)
        features[entry.key] = [] if kind_name is None else list(getattr(entry.value, kind_name).value)
    return features
