"""What makes two configurations the same experiment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgbench.method import GroundingMethod

#: Keys of a config (dotted) that say where and how a run happened, not what was computed.
NOT_IDENTITY = frozenset(
    {
        *("seed", "recipe.seed", "run_dir", "runs", "resume", "hydra", "logger", "workers", "checkpoint_every"),
        *("dataset.data_root", "dataset.image_root", "checkpointing"),
    }
)

#: Such a key that was once counted in: it is there with this value, whatever the run did.
FIXED = {"compile": False}


def resolved(config: Any) -> dict[str, Any]:
    """A composed configuration as plain values, interpolations filled in and Hydra's own node left out."""
    from omegaconf import OmegaConf

    plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    node = OmegaConf.to_container(plain, resolve=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 (16 hex digits) of the resolved config without :data:`NOT_IDENTITY`: equal for two seeds of one thing."""

    def kept(part: Mapping[str, Any], above: str = "") -> dict[str, Any]:
        named = ((f"{above}{key}", key, value) for key, value in part.items())
        return {
            key: kept(value, f"{path}.") if isinstance(value, Mapping) else FIXED.get(path, value)
            for path, key, value in named
            if path not in NOT_IDENTITY
        }

    text = json.dumps(kept(config), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def method_class(node: Mapping[str, Any]) -> type[GroundingMethod]:
    """The class that a ``method`` node names."""
    from hydra.utils import get_class

    return get_class(node["_target_"])


def method_identity(node: Mapping[str, Any]) -> dict[str, Any]:
    """A ``method`` node without what says only where files lie (see :meth:`GroundingMethod.identity`)."""
    return method_class(node).identity(node)
