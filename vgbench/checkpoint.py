"""Checkpoints as their authors published them: safe reading, and loading through explicit tables of names."""

from __future__ import annotations

import argparse
import fnmatch
import pickle
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vgbench.errors import UserError
from vgbench.method import LoadReport

__all__ = ["KeyEntry", "describe_state", "export_mapped", "load_mapped", "read_checkpoint"]

WRAPPERS = ("state_dict", "model", "module")  # entries that hold the weights, in the order they are looked for
EMA_WRAPPERS = ("ema_state_dict", "model_ema")

# Objects besides tensors and plain containers that published checkpoints carry beside their weights (options, metric
# values as numpy scalars); all are inert. numpy 1 and 2 pickle the two functions under different module names.
_scalar, _array = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
SAFE_GLOBALS: list[Any] = [argparse.Namespace, np.ndarray, np.dtype, _scalar, _array]
SAFE_GLOBALS += [(_scalar, "numpy.core.multiarray.scalar"), (_array, "numpy.core.multiarray._reconstruct")]
SAFE_GLOBALS += [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)]


@dataclass(frozen=True)
class KeyEntry:
    """One parameter or buffer of ours and where it comes from.

    Attributes:
        ours: name in our module.
        official: official names; several are concatenated along the first dimension, in equal parts.
        trailing: number of trailing dimensions of size 1 that the official tensor has in addition (1x1 convolutions
            that are linear layers here).
    """

    ours: str
    official: tuple[str, ...]
    trailing: int = 0


def read_checkpoint(path: Path, ema: bool = True) -> dict[str, Tensor]:
    """The state dict inside a ``.pth``/``.pt``/``.ckpt``/``.zip`` (torch) or ``.safetensors`` file.

    Wrapping entries (``state_dict``, ``model``, ``module``) and the prefix ``module.`` of distributed training are
    taken off. No code in the file is ever executed (``weights_only``), and large files are memory-mapped.

    Args:
        path: the file.
        ema: take the exponential moving average where the file has one besides the raw weights (what the authors
            report); False: always the raw weights (what the authors fine-tune from).

    Raises:
        UserError: if the file is not such a checkpoint; the message says what it looks like.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the path of a checkpoint (.pth or .safetensors)")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path}: not a readable safetensors file ({error}); write or copy it again") from None
    state = _unwrap(_torch_load(path), ema)
    if state is None:
        raise UserError(f"{path}: a torch file without a state dict in it; give a checkpoint with named tensors")
    return state


def _torch_load(path: Path) -> Any:
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            # Only the zip format of torch >= 1.6 can be mapped.
            return torch.load(path, mmap=zipfile.is_zipfile(path), **options)
    except pickle.UnpicklingError as error:
        text = " ".join(str(error).split())
        if "GLOBAL" in text or "global" in text:
            what = text.split("GLOBAL ", 1)[-1].split(" ", 1)[0]
            raise UserError(
                f"{path}: contains the object {what}, which is not loaded for safety; save its state dict alone, with "
                "torch.save, where you trust it"
            ) from None
        raise UserError(f"{path}: not a checkpoint ({_look_of_file(path)}); give a .pth or .safetensors file") from None
    except Exception as error:  # torch.load has no common error type for damaged files
        raise UserError(
            f"{path}: not a readable checkpoint ({_look_of_file(path)}; {type(error).__name__}); "
            "give a complete .pth or .safetensors file"
        ) from None


def _look_of_file(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "an empty file"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page, probably the download page instead of the file"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer instead of the file"
    if head.startswith(b"PK"):
        return "a zip archive"
    if head.startswith(b"\x1f\x8b"):
        return "a gzip archive"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return "a text file"
    return "an unknown or damaged binary file"


def _unwrap(content: Any, ema: bool) -> dict[str, Tensor] | None:
    if not isinstance(content, Mapping):
        return None
    wrappers = (*EMA_WRAPPERS, *WRAPPERS) if ema else WRAPPERS
    for name in wrappers:
        if isinstance(content.get(name), Mapping):
            inner = _unwrap(content[name], ema)
            if inner is not None:
                return inner
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        return None
    while all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


# Families by telling keys, the most specific first: (pattern that some key must match, description).
_FAMILIES = (
    ("head.transformer.img_enhance.*", "an ALVG checkpoint"),
    ("head.transformer.decoder.layers.0.linear1.weight", "an ALVG checkpoint without image enhancement"),
    ("head.input_cls_proj.*", "a SimVG checkpoint"),
    ("vis_enc.beit3.*", "a checkpoint of the SimVG family"),
    ("weight_generator.S", "a VG-LAW checkpoint"),
    ("beit3.encoder.*", "a BEiT-3 pre-training checkpoint (that is for pretrained=)"),
    ("visual_encoder_m.*", "an ALBEF/AMC checkpoint"),
    ("text_encoder.*", "an ALBEF/AMC checkpoint"),
    ("visumodel.*", "a TransVG/ResVG checkpoint"),
    ("*relation_embedding*", "a graph-based grounding checkpoint"),
    ("transformer.encoder.layers.*", "a DETR checkpoint"),
    ("*backbone.net.pos_embed", "a ViTDet checkpoint"),
    ("*bert.embeddings.word_embeddings.weight", "a BERT checkpoint"),
    ("*embeddings.word_embeddings.weight", "a BERT checkpoint"),
    ("*blocks.0.attn.qkv.weight", "a vision Transformer (ViT)"),
    ("*layer1.0.conv1.weight", "a ResNet"),
    ("*visual.transformer.*", "a CLIP checkpoint"),
)


def describe_state(names: Collection[str]) -> str:
    """What a state dict looks like, judged by its names: "a ResNet", "a BEiT-3 pre-training checkpoint", ..."""
    for pattern, description in _FAMILIES:
        if any(fnmatch.fnmatchcase(name, pattern) for name in names):
            return description
    first = next(iter(names), None)
    return f"an unknown model whose first key is {first!r}" if first else "an empty state dict"


def load_mapped(
    module: nn.Module,
    state: Mapping[str, Tensor],
    entries: Sequence[KeyEntry],
    expected: str,
    unused: Iterable[str] = (),
    adapted: tuple[str, ...] = (),
) -> LoadReport:
    """Load ``state`` (official names) into ``module`` through a table of names, strictly.

    Args:
        module: owner of all names ``entry.ours``.
        state: official tensors.
        entries: the table.
        expected: what the file should be, for messages ("an official ALVG checkpoint").
        unused: patterns of official names that are known to have no effect.
        adapted: names whose shape the caller has changed; passed through to the report.

    Raises:
        UserError: if a key is missing, unknown or of a wrong shape. Nothing is loaded then.
    """
    unused = tuple(unused)
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    wanted = {name for entry in entries for name in entry.official}
    missing = [name for entry in entries for name in entry.official if name not in state]
    if missing:
        raise UserError(
            f"expected {expected}, but this looks like {describe_state(state)}: "
            f"{len(missing)} of {len(wanted)} keys are missing, the first is {missing[0]!r}"
        )
    ignored = [name for name in state if name not in wanted]
    unknown = [name for name in ignored if not any(fnmatch.fnmatchcase(name, pattern) for pattern in unused)]
    if unknown:
        raise UserError(
            f"expected {expected}, but this looks like {describe_state(state)}: "
            f"{len(unknown)} keys are unknown, the first is {unknown[0]!r}"
        )
    values = {}
    for entry in entries:
        parts = [state[name] for name in entry.official]
        target = own[entry.ours]
        value = torch.cat(parts) if len(parts) > 1 else parts[0]
        if entry.trailing and value.shape[-entry.trailing :] == (1,) * entry.trailing:
            value = value.flatten(-entry.trailing - 1)
        if value.shape != target.shape:
            raise UserError(
                f"{expected} does not fit this configuration: {entry.official[0]!r} is {list(parts[0].shape)}, which "
                f"gives {list(value.shape)} where the model has {list(target.shape)}; take the sizes of the checkpoint"
            )
        values[entry.ours] = value
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    return LoadReport(used=tuple(name for name in state if name in wanted), unused=tuple(ignored), adapted=adapted)


def export_mapped(tensors: Mapping[str, Tensor | None], entries: Sequence[KeyEntry]) -> dict[str, Tensor]:
    """Our tensors (a state dict, or gradients by parameter name) under their official names and shapes.

    Entries whose tensor is absent or None are left out.
    """
    exported = {}
    for entry in entries:
        value = tensors.get(entry.ours)
        if value is None:
            continue
        value = value.detach().reshape(value.shape + (1,) * entry.trailing)
        parts = value.chunk(len(entry.official)) if len(entry.official) > 1 else (value,)
        for name, part in zip(entry.official, parts, strict=True):
            exported[name] = part.clone()
    return exported
