"""Checkpoints of trainings (Lightning's ``.ckpt``), read as models: without running anything that stands in them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vgbench.checkpoints.read import problem_of
from vgbench.config.stored import stored_config
from vgbench.core.errors import UserError
from vgbench.core.torch_files import load_torch

OWN_KEY = "vgbench"  # in files of ours: JSON with the ``method`` node
PREFIX = "method."  # of a method's tensors in Lightning's module


@dataclass(frozen=True)
class OwnCheckpoint:
    """A training's checkpoint.

    Attributes:
        method: the node that builds the method, as the file has it (:mod:`vgbench.config.stored` checks it).
        state: state dict, with our names.
        average: the moving average of parameters and buffers in the method's order; empty without one.
    """

    method: Any
    state: dict[str, Tensor]
    average: Sequence[Tensor]

    def averaged(self, names: Sequence[str]) -> dict[str, Tensor]:
        """State dict with the average where there is one.

        Args:
            names: of the method's parameters, then buffers.

        Raises:
            UserError: if the average is of another number of tensors.
        """
        if len(self.average) not in (0, len(names)):
            raise UserError(f"the moving average has {len(self.average)} tensors, the method {len(names)}")
        average = dict(zip(names, self.average, strict=True)) if self.average else {}
        return {name: average.get(name, value) for name, value in self.state.items()}


def training_checkpoint(path: Path) -> OwnCheckpoint | None:
    """The checkpoint in a ``.ckpt`` of ours; None for anything else.

    Raises:
        UserError: if it is one, but nothing says which method it is of.
    """
    try:
        content = load_torch(path, mapped=True)
    except (OSError, pickle.UnpicklingError):
        return None  # whoever reads published checkpoints says what it is
    if not isinstance(content, dict) or "pytorch-lightning_version" not in content:
        return None
    state = content.get("state_dict")
    if not isinstance(state, dict) or not state or not all(name.startswith(PREFIX) for name in state):
        return None
    own = {name.removeprefix(PREFIX): value for name, value in state.items()}
    for name, value in own.items():
        if not isinstance(value, Tensor) or problem_of(value):
            raise UserError(f"{path}: {name[:80]!r} is no ordinary tensor; the file is damaged, copy it again")
    return OwnCheckpoint(_method_node(path, content), own, _average(path, content))


def _average(path: Path, content: dict[str, Any]) -> list[Tensor]:
    """The moving average; empty without one."""
    node: Any = content
    for key in ("callbacks", "ExponentialMovingAverage", "average"):
        node = node.get(key) if isinstance(node, dict) else None
    average = [] if node is None else node
    if not isinstance(average, list) or not all(isinstance(value, Tensor) for value in average):
        raise UserError(f"{path}: its moving average is no list of tensors; the file is damaged, copy it again")
    return average


def _method_node(path: Path, content: dict[str, Any]) -> Any:
    """From the checkpoint itself, or from the configuration of its run folder; nobody has looked at it yet.

    Raises:
        UserError: if neither says it.
    """
    if OWN_KEY in content:
        try:
            return json.loads(content[OWN_KEY])["method"]
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise UserError(f"{path}: what it says of its method is damaged ({error}); copy it again") from None
    file = path.parent.parent / "config.yaml"
    if not file.is_file():
        raise UserError(f"{path}: the checkpoint of a training, without its run folder (no {file}); keep them together")
    return stored_config(file)["method"]
