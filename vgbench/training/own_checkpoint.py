"""Checkpoints of trainings (Lightning's ``.ckpt``), read as models: without running anything that stands in them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from vgbench.core.errors import UserError

OWN_KEY = "vgbench"  # in files of ours: JSON with the ``method`` node
PREFIX = "method."  # of a method's tensors in Lightning's module


@dataclass(frozen=True)
class OwnCheckpoint:
    """A training's checkpoint.

    Attributes:
        method: the node that builds the method.
        state: state dict, with our names.
        average: the moving average of parameters and buffers in the method's order; empty without one.
    """

    method: dict[str, Any]
    state: dict[str, Tensor]
    average: Sequence[Tensor]

    def averaged(self, names: Sequence[str]) -> dict[str, Tensor]:
        """State dict with the average where there is one. ``names``: of the method's parameters, then buffers."""
        average = dict(zip(names, self.average, strict=True)) if self.average else {}
        return {name: average.get(name, value) for name, value in self.state.items()}


def training_checkpoint(path: Path) -> OwnCheckpoint | None:
    """The checkpoint in a ``.ckpt`` of ours; None for anything else.

    Raises:
        UserError: if it is one, but nothing says which method it is of.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, OSError, ValueError, EOFError, pickle.UnpicklingError):
        return None  # whoever reads published checkpoints says what it is
    if not isinstance(content, dict) or "pytorch-lightning_version" not in content:
        return None
    state = content.get("state_dict")
    if not isinstance(state, dict) or not state or not all(name.startswith(PREFIX) for name in state):
        return None
    average = content.get("callbacks", {}).get("ExponentialMovingAverage", {}).get("average", [])
    own = {name.removeprefix(PREFIX): value for name, value in state.items()}
    return OwnCheckpoint(_method_node(path, content), own, average)


def _method_node(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """From the checkpoint itself, or from the configuration of its run folder."""
    if OWN_KEY in content:
        return json.loads(content[OWN_KEY])["method"]
    file = path.parent.parent / "config.yaml"
    if not file.is_file():
        raise UserError(f"{path}: the checkpoint of a training, without its run folder (no {file}); keep them together")
    node: Any = OmegaConf.to_container(OmegaConf.load(file))
    return node["method"]
