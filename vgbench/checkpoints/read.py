"""Safe reading of checkpoints as their authors published them."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vgbench.core.errors import UserError

WRAPPERS = ("state_dict", "model", "module")  # entries that hold the weights, in the order they are looked for


EMA_WRAPPERS = ("ema_state_dict", "model_ema")


# Objects besides tensors and plain containers that published checkpoints carry beside their weights (options, metric
# values as numpy scalars); all are inert. numpy 1 and 2 pickle the two functions under different module names.
_scalar, _array = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]


SAFE_GLOBALS: list[Any] = [argparse.Namespace, np.ndarray, np.dtype, _scalar, _array]


SAFE_GLOBALS += [(_scalar, "numpy.core.multiarray.scalar"), (_array, "numpy.core.multiarray._reconstruct")]


SAFE_GLOBALS += [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)]


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
