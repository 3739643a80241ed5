"""Safe reading of checkpoints as their authors published them."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vgbench.checkpoints.inert import InertValue, is_part_of_tensors, pickle_head, stand_in
from vgbench.core.errors import UserError
from vgbench.core.torch_files import DamagedFile, load_torch
from vgbench.core.unpickle import RefusedObject

# Entries that hold the weights, in the order they are looked for.
WRAPPERS = ("state_dict", "model", "module", "model_state_dict", "net", "network")
EMA_WRAPPERS = ("ema_state_dict", "model_ema")

# Objects besides tensors and plain containers that published checkpoints carry beside their weights (options, metric
# values as numpy scalars); all are inert. numpy 1 and 2 pickle the two functions under different module names.
_scalar, _array = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
SAFE_GLOBALS: list[Any] = [argparse.Namespace, np.ndarray, np.dtype, _scalar, _array]
SAFE_GLOBALS += [(_scalar, "numpy.core.multiarray.scalar"), (_array, "numpy.core.multiarray._reconstruct")]
SAFE_GLOBALS += [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)]

# What wraps a module and puts its name before all others, in any order: distributed training, moving averages,
# Lightning modules and scripts that keep the network as an attribute.
OUTER_NAMES = ("module.", "model.", "_forward_module.")
# What wraps a module anywhere inside a model: torch.compile, FSDP, activation checkpointing.
INNER_NAMES = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
AVERAGED = "n_averaged"  # the counter of torch.optim.swa_utils.AveragedModel

PROTOCOL = 2  # of pickle, which torch.save writes and torch reads safely


def read_checkpoint(path: Path, ema: bool = True) -> dict[str, Tensor]:
    """The state dict inside a ``.pth``/``.pt``/``.ckpt``/``.zip`` (torch) or ``.safetensors`` file.

    Wrapping entries (``state_dict``, ``model``, ``module``) and the names of wrappers (:func:`without_wrappers`) are
    taken off. No code in the file is ever executed (``weights_only``), other objects than tensors are left out
    (:mod:`vgbench.checkpoints.inert`), and large files are memory-mapped.

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
            return without_wrappers(load_file(path))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
        except SafetensorError as error:
            raise UserError(f"{path}: not a readable safetensors file ({error}); write or copy it again") from None
    state = _unwrap(_torch_load(path), ema)
    if state is None:
        raise UserError(f"{path}: a torch file without a state dict in it; give a checkpoint with named tensors")
    for name, tensor in state.items():
        if problem := problem_of(tensor):
            raise UserError(f"{path}: {name[:80]!r} {problem}; give a checkpoint with ordinary tensors")
    return state


MAX_EXPANDED = 1 << 28  # bytes of a tensor that are not in its file


def problem_of(tensor: Tensor) -> str | None:
    """Why a tensor of a file is no weight; None if nothing is wrong with it."""
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_nested:
        return f"is a {tensor.layout} tensor on {tensor.device}, or a quantized one, not plain numbers"
    if tensor.numel() * tensor.element_size() > max(MAX_EXPANDED, tensor.untyped_storage().nbytes()):
        return (
            f"stands for {tensor.numel():,} numbers, of which the file has {tensor.untyped_storage().nbytes():,} bytes"
        )
    return None


def load_file_of_torch(path: Path, mapped: bool = True) -> Any:
    """What is in a file of ``torch.save``, with :data:`SAFE_GLOBALS`; nothing is left out.

    Raises:
        UserError: if it is damaged, no such file, or names an object that is not allowed.
    """
    try:
        return load_torch(path, SAFE_GLOBALS, mapped)
    except RefusedObject as error:
        raise UserError(
            f"{path}: contains the object {error.global_name}, which is not loaded for safety; save its state dict "
            "alone, with torch.save, where you trust it"
        ) from None
    except (OSError, pickle.UnpicklingError) as error:
        raise _unreadable(path, error) from None


def _torch_load(path: Path) -> Any:
    try:
        return load_torch(path, SAFE_GLOBALS, mapped=True)
    except (OSError, DamagedFile) as error:
        raise _unreadable(path, error) from None
    except pickle.UnpicklingError:
        return _load_among_others(path)


def _load_among_others(path: Path) -> Any:
    """The content of a file that holds other objects than tensors, with stand-ins for those that are inert.

    Raises:
        UserError: if one is not known to be inert; the message names it as the file does.
    """
    try:
        head = pickle_head(path)
    except Exception:  # what a damaged pickle raises is of almost any kind
        raise UserError(f"{path}: not a checkpoint ({_look_of_file(path)}); give a .pth or .safetensors file") from None
    refused = [name for name in head.names if stand_in(name) is None and not is_part_of_tensors(name)]
    if refused:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise UserError(
            f"{path}: contains the object {refused[0]}{more}, which is not loaded for safety; save its state dict "
            "alone, with torch.save, where you trust it"
        )
    try:
        inert: list[Any] = [(cls, name) for name in head.names if (cls := stand_in(name)) is not None]
        return load_torch(path, [InertValue, *inert], mapped=True)
    except (OSError, DamagedFile) as error:
        raise _unreadable(path, error) from None
    except pickle.UnpicklingError:
        how = f"with pickle protocol {head.protocol}" if head.protocol > PROTOCOL else "in an unusual way"
        raise UserError(
            f"{path}: written {how}, which torch does not read without running code; save its state dict alone, with "
            "torch.save as it is, where you trust it"
        ) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: not a readable checkpoint ({_look_of_file(path)}; {error}); give a complete .pth or .safetensors file"
    )


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
    return without_wrappers(tensors)


def without_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the names that wrappers of a model put into those of its tensors."""
    names = {name: _without(name, INNER_NAMES) for name in tensors if name != AVERAGED or len(tensors) == 1}
    while prefix := next((item for item in OUTER_NAMES if all(bare.startswith(item) for bare in names.values())), None):
        names = {name: bare.removeprefix(prefix) for name, bare in names.items()}
    if len(set(names.values())) < len(names):  # the same model wrapped and bare, side by side
        return dict(tensors)
    return {bare: tensors[name] for name, bare in names.items()}


def _without(name: str, parts: Iterable[str]) -> str:
    for part in parts:
        name = name.replace(part, "") if name.startswith(part) or f".{part}" in name else name
    return name
