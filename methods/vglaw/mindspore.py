"""MindSpore checkpoints, read without MindSpore.

A ``.ckpt`` is one protobuf message (schema ``checkpoint.proto`` of MindSpore, proto2), read here from its wire
format::

    Checkpoint   repeated Value value = 1
    Value        string tag = 1 (the parameter's name); TensorProto tensor = 2; MapTensorProto maptensor = 3
    TensorProto  repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3

``tensor_type`` is a name such as "Float32", ``tensor_content`` the little-endian values in row-major order, ``dims`` is
``[0]`` for a scalar. A large tensor is cut into several consecutive values with the same tag and the same ``dims``.
In the wire format every field begins with a varint ``number << 3 | type``; type 0 is a varint (7 bits per byte, least
significant group first, the top bit says that more follows), type 2 a varint length and so many bytes, types 1 and 5
are 8 and 4 bytes.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from vgbench.core.errors import UserError

__all__ = ["looks_like_mindspore", "read_mindspore"]

_MINDSPORE_TYPES = {
    "Float64": torch.float64,
    "Float32": torch.float32,
    "Float16": torch.float16,
    "BFloat16": torch.bfloat16,
    "Int64": torch.int64,
    "Int32": torch.int32,
    "Int16": torch.int16,
    "Int8": torch.int8,
    "UInt8": torch.uint8,
    "Bool": torch.bool,
}


class _Damaged(Exception):
    """The bytes are not the message they should be."""


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """Value and position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise _Damaged("ends within a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), position
    raise _Damaged("number longer than 64 bits")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Fields of one message: (number, integer value or content)."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        if kind == 2:
            length, position = _varint(data, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise _Damaged(f"unknown field type {kind}")
        if length > len(data) - position:
            raise _Damaged(f"a field of {length} bytes with {len(data) - position} left")
        yield key >> 3, data[position : position + length]
        position += length


def _content(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _Damaged("a number where bytes are expected")
    return value


def _text(value: int | memoryview) -> str:
    content = _content(value)
    if not 0 < len(content) <= 4096:
        raise _Damaged(f"a name of {len(content)} bytes")
    return bytes(content).decode("utf-8")


def _tensor_proto(data: memoryview) -> tuple[list[int], str, memoryview]:
    dims: list[int] = []
    kind = ""
    content = memoryview(b"")
    for number, value in _fields(data):
        if number == 1 and isinstance(value, int):
            dims.append(value)
        elif number == 1:  # packed
            packed, position = _content(value), 0
            while position < len(packed):
                size, position = _varint(packed, position)
                dims.append(size)
        elif number == 2:
            kind = _text(value)
        elif number == 3:
            content = _content(value)
    if len(dims) > 16:
        raise _Damaged(f"a tensor of {len(dims)} dimensions")
    return dims, kind, content


def _tensor(tag: str, dims: list[int], kind: str, parts: list[memoryview]) -> Tensor:
    dtype = _MINDSPORE_TYPES.get(kind)
    if dtype is None:
        raise _Damaged(f"{tag!r} has the type {kind!r}")
    shape = [] if dims == [0] else dims
    needed, size = math.prod(shape) * dtype.itemsize, sum(map(len, parts))
    if needed != size:
        raise _Damaged(f"{tag!r} has {size} bytes, {shape} {kind} needs {needed}")
    if not size:
        return torch.empty(shape, dtype=dtype)
    content = bytearray()
    for part in parts:
        content += part
    return torch.frombuffer(content, dtype=dtype).reshape(shape)


def _values(data: memoryview) -> Iterator[tuple[str, list[int], str, memoryview]]:
    for number, value in _fields(data):
        if number != 1:
            raise _Damaged(f"unknown field {number}")
        tag, tensor = "", None
        for inner, item in _fields(_content(value)):
            if inner == 1:
                tag = _text(item)
            elif inner == 2:
                tensor = _tensor_proto(_content(item))
            elif inner == 3:
                raise _Damaged(f"{tag!r} is a map tensor, which no grounding model has")
        if not tag or tensor is None:
            raise _Damaged("an entry without name or tensor")
        yield (tag, *tensor)


def looks_like_mindspore(path: Path) -> bool:
    """Whether the file begins with the first field of a MindSpore checkpoint (a torch file never does)."""
    with path.open("rb") as file:
        return file.read(1) == b"\x0a"


def read_mindspore(path: Path) -> dict[str, Tensor]:
    """All parameters of a MindSpore ``.ckpt`` by name.

    Raises:
        UserError: if the file is missing, empty, damaged, encrypted or something else.
    """
    try:
        with path.open("rb") as file:
            # Closed when the last view of it is gone: views may outlive this block in an exception's traceback.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _read_values(memoryview(mapped))
    except (_Damaged, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a MindSpore checkpoint ({error}); give the complete, unencrypted .ckpt file"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give the path of a MindSpore .ckpt file") from None


def _read_values(view: memoryview) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    pending: tuple[str, list[int], str] | None = None
    parts: list[memoryview] = []

    def finish() -> None:
        if pending is not None:
            if pending[0] in state:
                raise _Damaged(f"{pending[0]!r} occurs twice")
            state[pending[0]] = _tensor(*pending, parts)

    for tag, dims, kind, content in _values(view):
        if pending is not None and tag != pending[0]:
            finish()
            parts.clear()
        pending = (tag, dims, kind)
        parts.append(content)
    finish()
    return state
