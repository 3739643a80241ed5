"""Files that VG-LAW starts from: MindSpore checkpoints, Detectron2's ViTDet, BERT; and their tables of names.

A MindSpore ``.ckpt`` is one protobuf message (schema ``checkpoint.proto`` of MindSpore, proto2), read here from its
wire format without MindSpore::

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

import logging
import math
import mmap
import pickle
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgbench.checkpoints.names import KeyEntry, LoadReport, load_mapped
from vgbench.checkpoints.parts import Part, load_parts
from vgbench.checkpoints.read import read_checkpoint
from vgbench.core.errors import UserError
from vgbench.layers.bert import load_bert, looks_like_bert
from vgbench.layers.vitdet import ViTDet, fit_relative_positions

__all__ = [
    "load_backbone",
    "load_pretrained",
    "looks_like_mindspore",
    "official_names",
    "read_detectron2",
    "read_mindspore",
]

log = logging.getLogger(__name__)

UNUSED = ("text_encoder.pooler.dense.weight", "text_encoder.pooler.dense.bias")
MASK_HEAD = "up_sample.*"
PARTS_ADVICE = "put Detectron2's model_final_61ccd1.pkl and the folder of bert-base-uncased there"

# --- MindSpore -------------------------------------------------------------------------------------------------------

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
    wanted = math.prod(shape) * dtype.itemsize
    found = sum(map(len, parts))
    if wanted != found:
        raise _Damaged(f"{tag!r} has {found} bytes, {shape} {kind} needs {wanted}")
    if not found:
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


# --- Detectron2 ------------------------------------------------------------------------------------------------------

_SAFE_PICKLE: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): dict,
    **{("builtins", kind.__name__): kind for kind in (bytearray, complex, frozenset, set)},
}
_reconstruct = np.zeros(0).__reduce__()[0]
_scalar = np.float64(0).__reduce__()[0]
_frombuffer = np.zeros(1).__reduce_ex__(5)[0]  # type: ignore[index]
for _module in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    _SAFE_PICKLE[f"{_module}.multiarray", "_reconstruct"] = _reconstruct
    _SAFE_PICKLE[f"{_module}.multiarray", "scalar"] = _scalar
    _SAFE_PICKLE[f"{_module}.numeric", "_frombuffer"] = _frombuffer


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes inside pickles of protocol 2, which has none of its own."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"_codecs.encode to {encoding!r}")
    return text.encode("latin-1")


_SAFE_PICKLE["_codecs", "encode"] = _latin1


class _ArrayUnpickler(pickle.Unpickler):
    """Arrays and plain containers only; any other object is refused by name before it exists."""

    def find_class(self, module: str, name: str) -> Any:
        module = "builtins" if module == "__builtin__" else module  # Python 2
        try:
            return _SAFE_PICKLE[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it contains the object {module}.{name}") from None


def read_detectron2(path: Path) -> dict[str, Tensor]:
    """The weights of a Detectron2 checkpoint: a model-zoo ``.pkl`` (arrays under ``model``) or a ``.pth``.

    Raises:
        UserError: if the file is neither, or holds anything besides arrays and plain containers.
    """
    if path.suffix != ".pkl":
        return read_checkpoint(path)
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="latin1").load()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give Detectron2's ViTDet .pkl") from None
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: not loaded for safety: {error}; give Detectron2's model-zoo file") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{path}: not a pickle of arrays ({type(error).__name__}); download it again") from None
    model = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(model, dict) or not model or not all(isinstance(value, np.ndarray) for value in model.values()):
        raise UserError(f"{path}: no arrays under 'model' in it; give Detectron2's ViTDet checkpoint")
    if any(value.dtype.kind not in "fiub" for value in model.values()):
        raise UserError(f"{path}: holds arrays that are no numbers; give Detectron2's ViTDet checkpoint")
    return {str(name): torch.from_numpy(np.array(value)) for name, value in model.items()}


def _fit_relative(table: Tensor, length: int) -> Tensor:
    """Centre crop of a longer relative-position table [m, d]; a shorter one is interpolated."""
    cut = len(table) - length
    if cut > 0 and cut % 2 == 0:
        return table[cut // 2 : cut // 2 + length]
    return fit_relative_positions(table, length)


def _fit_absolute(table: Tensor, length: int) -> Tensor:
    """Absolute position table [1, 1 + g^2, C] for another grid: bicubic; the class token's row stays."""
    old, new = round((table.shape[1] - 1) ** 0.5), round((length - 1) ** 0.5)
    if old**2 != table.shape[1] - 1:
        return table  # not a square grid with a class token: the shape check says so
    grid = table[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, (new, new), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1].float(), grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1).to(table.dtype)


def load_backbone(backbone: ViTDet, state: Mapping[str, Tensor]) -> LoadReport:
    """Load a Detectron2 ViTDet detector's ViT; the pyramid and the detection heads are left out.

    Relative-position tables of global blocks belong to 1024 px there: their centre is cut out. An absolute table for
    another pretraining grid is resized.

    Raises:
        UserError: if the state dict is no ViTDet, or of other sizes.
    """
    own = dict(backbone.named_parameters())
    prefix = next((prefix for prefix in ("backbone.net.", "net.") if f"{prefix}pos_embed" in state), "")
    fitted = dict(state)
    adapted = []
    for name, target in own.items():
        key = prefix + name
        value = fitted.get(key)
        if value is None or value.shape == target.shape or value.ndim != target.ndim:
            continue
        if name.rsplit(".", 1)[-1] in ("rel_pos_h", "rel_pos_w") and value.shape[1] == target.shape[1]:
            fitted[key] = _fit_relative(value, len(target))
            adapted.append(key)
        elif name == "pos_embed" and value.shape[2] == target.shape[2]:
            fitted[key] = _fit_absolute(value, target.shape[1])
            adapted.append(key)
    return load_mapped(
        backbone,
        fitted,
        [KeyEntry(name, (prefix + name,)) for name in own],
        "a Detectron2 ViTDet checkpoint (ViT-B)",
        unused=("backbone.simfp_*", "simfp_*", "proposal_generator.*", "roi_heads.*", "pixel_mean", "pixel_std"),
        adapted=tuple(adapted),
    )


# --- pretrained parts ------------------------------------------------------------------------------------------------


def load_pretrained(text_encoder: nn.Module, backbone: ViTDet, path: Path) -> LoadReport:
    """Load a ViTDet detector and a BERT, each recognised by its names.

    Args:
        text_encoder: gets the BERT.
        backbone: gets the ViTDet.
        path: one checkpoint, or a folder with both (a transformers folder may be a subfolder of it).

    Raises:
        UserError: if a file is neither, or a folder lacks one of them.
    """
    parts = (
        Part("ViTDet", _looks_like_vitdet, partial(load_backbone, backbone)),
        Part("BERT", looks_like_bert, partial(load_bert, text_encoder)),
    )
    reports = load_parts(path, parts, PARTS_ADVICE, read_detectron2)
    missing_parts = [part.name for part in parts if part.name not in reports]
    if path.is_dir() and missing_parts:
        raise UserError(f"{path}: no {missing_parts[0]} checkpoint in it; {PARTS_ADVICE}, or give one file alone")
    for name in missing_parts:
        encoder = "visual" if name == "ViTDet" else "text"
        log.warning("%s: no %s; the %s encoder starts from random weights", path, name, encoder)
    return LoadReport.joined(reports.values())


def _looks_like_vitdet(state: Mapping[str, Tensor]) -> bool:
    return any(name.endswith("blocks.0.attn.qkv.weight") for name in state)


# --- the authors' whole model ----------------------------------------------------------------------------------------

_GENERATOR = {
    "fc1_weight": "0.weight",
    "fc1_bias": "0.bias",
    "norm_weight": "1.gamma",
    "norm_bias": "1.beta",
    "fc2_weight": "3.weight",
    "fc2_bias": "3.bias",
}


def official_names(network: nn.Module, blocks: int) -> list[KeyEntry]:
    """The table: every parameter of the network and its name(s) in dcdcvgroup/vglaw-mindspore."""
    return [_official_name(name, blocks) for name, _ in network.named_parameters()]


def _official_name(name: str, blocks: int) -> KeyEntry:
    if name in ("weight_generator.S", "weight_generator.D"):
        return KeyEntry(name, (name,), trailing=1)
    if name.startswith("weight_generator.proj."):
        part = _GENERATOR[name.rsplit(".", 1)[-1]]
        return KeyEntry(name, tuple(f"weight_generator.proj.{block}.{part}" for block in range(blocks)))
    official = name
    if name.startswith("text_encoder."):
        official = official.replace("attention.self.", "attention.self_attn.").replace("LayerNorm", "layer_norm")
        if "_embeddings." in official:
            official = official.replace(".weight", ".embedding_table")
    # MindSpore's own layer norms; the up-sampling's channel norm is a module of the authors with plain names.
    if ".norm1." in name or ".norm2." in name or "LayerNorm" in name:
        official = official.replace(".weight", ".gamma").replace(".bias", ".beta")
    return KeyEntry(name, (official,))
