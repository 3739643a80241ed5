"""Whole-model weights: ours (safetensors with the method's configuration inside), Lightning's, the authors'."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vgbench.checkpoints.names import LoadReport
from vgbench.config.stored import buildable_method
from vgbench.core.errors import UserError
from vgbench.core.files import atomic_with_digest, file_sha256, matches_digest, sha256_prefix
from vgbench.core.hub import local_path
from vgbench.method import GroundingMethod
from vgbench.training.own_checkpoint import OWN_KEY, training_checkpoint

MODEL_FILE = "model.safetensors"  # in a run folder
SHARDS_FILE = "model.safetensors.index.json"  # in a folder of transformers: which of several files holds which tensor
RAW_FILE = "model.raw.safetensors"  # beside it, of a training with a moving average: the weights without it


def is_shipped(spec: object) -> bool:
    """Whether ``weights=`` / ``checkpoint=`` names weights that come with the suite: "shipped" or "shipped:NAME"."""
    return str(spec).partition(":")[0] == "shipped"


def resolve(spec: str, method: str | None = None, dataset: str | None = None, raw: bool = False) -> Path:
    """The file behind ``weights=`` / ``checkpoint=``: a file, a run folder, "hf://ORG/NAME" of the Hub, "shipped" (for
    the dataset at hand) or "shipped:DATASET". Of a run folder with a moving average ``raw`` takes the weights without.

    Raises:
        UserError: if there is no such file; for "shipped", the message lists what is shipped.
    """
    if is_shipped(spec):
        dataset = spec.partition(":")[2] or dataset
        folder = Path(str(files("vgbench.methods"))) / str(method) / "weights"
        path = folder / f"{dataset}.safetensors"
        if not path.exists():
            names = ", ".join(sorted(file.stem for file in folder.glob("*.safetensors"))) or "none"
            raise UserError(f"no shipped weights of {method} for dataset {dataset!r}; shipped: {names}")
        return path
    path = local_path(spec)
    if path.is_dir():
        candidates = (*((RAW_FILE,) if raw else ()), MODEL_FILE, SHARDS_FILE)
        path = next((path / name for name in candidates if (path / name).exists()), path / MODEL_FILE)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a run folder that finished, a checkpoint file, or 'shipped'")
    return path


def fingerprint(path: Path) -> str:
    """First 16 hex digits of the SHA-256 of a file of weights; of the list of several files, of all of them.

    Raises:
        UserError: if the list is damaged, or a file of it is missing.
    """
    if path.name != SHARDS_FILE:
        return sha256_prefix(path)
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        digests = [file_sha256(path.parent / Path(name).name) for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not all files that it names can be read ({error}); copy the folder again") from None
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def run_folder(path: Path) -> Path | None:
    """The run folder that a file of weights lies in (itself or in its ``checkpoints``), or None."""
    return next((folder for folder in (path.parent, path.parent.parent) if (folder / "config.yaml").is_file()), None)


def save(state: Mapping[str, Tensor], config: Mapping[str, Any], path: Path, half: bool = False) -> None:
    """Write a model of ours atomically, its digest beside it.

    Args:
        state: state dict with our names.
        config: the ``method`` node that builds it.
        half: store floating-point tensors as float16 (shipped weights).

    Raises:
        UserError: if it cannot be written, on a full disk for instance.
    """
    tensors = {}
    for name, value in state.items():
        value = value.detach().cpu()
        tensors[name] = (value.half() if half and value.is_floating_point() else value).contiguous().clone()
    try:
        with atomic_with_digest(path) as temporary:
            save_file(tensors, temporary, metadata={OWN_KEY: json.dumps({"method": dict(config)})})
    except SafetensorError as error:  # what it makes of a full disk is no OSError
        raise UserError(f"{path}: could not be written ({error}); is the disk of {path.parent} full?") from None


def is_ours(path: Path) -> bool:
    """Whether a file was written by :func:`save`: its tensors have our names."""
    if path.suffix == ".ckpt":
        return training_checkpoint(path) is not None
    return _stored_text(path) is not None


def _stored_text(path: Path) -> str | None:
    """What a file of ours says of itself (JSON), or None for anything else.

    Raises:
        UserError: if it is called .safetensors and cannot be read as such.
    """
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(OWN_KEY) or None
    except SafetensorError as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}); write or copy it again") from None


def method_config(path: Path) -> dict[str, Any] | None:
    """The ``method`` node stored in a file of ours, or None for anything else.

    Raises:
        UserError: if the file cannot be read, or as :func:`vgbench.config.stored.buildable_method`.
    """
    if path.suffix == ".ckpt":
        own = training_checkpoint(path)
        return buildable_method(own.method, path) if own else None
    stored = _stored_text(path)
    if stored is None:
        return None
    try:
        content = json.loads(stored)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its metadata is not JSON ({error}); write or copy it again") from None
    return buildable_method(content.get("method") if isinstance(content, dict) else None, path)


def _own_state(path: Path, method: GroundingMethod, raw: bool) -> dict[str, Tensor]:
    """The state dict in a file of ours; of a training with a moving average the average, or the ``raw`` weights."""
    if path.suffix == ".ckpt":
        own = training_checkpoint(path)
        assert own is not None
        if raw:
            return own.state
        try:
            return own.averaged([name for name, _ in (*method.named_parameters(), *method.named_buffers())])
        except UserError as error:
            raise UserError(f"{path}: {error}; take the configuration that it was trained with") from None
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def load(method: GroundingMethod, path: Path, raw: bool = False) -> LoadReport:
    """Load ``path`` into ``method``: our own file by our names, anything else through ``load_official``.

    An official file may hold a moving average besides its weights; ``raw`` takes the weights without it.

    Raises:
        UserError: if the file is damaged, or names or shapes do not fit; the message names the first and the fix.
    """
    if matches_digest(path) is False:
        raise UserError(f"{path}: damaged, it does not match {path.name}.sha256 beside it; copy or write it again")
    if not is_ours(path):
        official = method.read_official(path, ema=not raw)
        try:
            return method.load_official(official)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    own = method.state_dict()
    parts = {name: method.training_part(name) for name in own}
    state = method.adapt_state(_own_state(path, method, raw))
    absent = {part for part in parts.values() if part} - {parts.get(name) for name in state}
    own = {name: value for name, value in own.items() if parts[name] not in absent}
    wrong = [name for name in own if name not in state or state[name].shape != own[name].shape]
    wrong += [name for name in state if name not in own]
    if wrong:
        raise UserError(
            f"{path}: does not fit this configuration of {method.name}: {wrong[0]!r} and {len(wrong) - 1} more names "
            "are missing, superfluous or of another shape; take the configuration that it was trained with "
            "(config.yaml in its run folder)"
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(state[name])
    if absent:
        method.renew(absent)
    return LoadReport(used=tuple(own), absent=tuple(sorted(absent)))


def slim(method: GroundingMethod) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict without what only training needs, and the names of the parts left out."""
    state = method.state_dict()
    parts = {name: method.training_part(name) for name in state}
    kept = {name: value for name, value in state.items() if parts[name] is None}
    return kept, tuple(sorted({part for part in parts.values() if part}))
