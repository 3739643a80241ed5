"""What makes two configurations the same experiment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgbench.method import GroundingMethod

#: Keys of a config (dotted) that say where and how a run happened, not what was computed.
NOT_IDENTITY = frozenset(
    {
        *("seed", "recipe.seed", "run_dir", "runs", "resume", "hydra", "logger", "workers", "checkpoint_every"),
        *("dataset.data_root", "dataset.image_root", "checkpointing", "smoke", "eval.price"),
    }
)

#: Such a key that was once counted in: it is there with this value, whatever the run did.
FIXED = {"compile": False}

#: Keys that came later, with the value that changes nothing: left out then, so that older runs are the same experiment.
SILENT = {"eval.stress": [], "eval.stress_seed": 0, "eval.stress_limit": None, "eval.stress_objects": None}
SILENT |= {"recipe.max_time": None, "recipe.early_stop": None}

EPOCHS = "recipe.epochs"


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
            if path not in NOT_IDENTITY and not (path in SILENT and value == SILENT[path])
        }

    text = json.dumps(kept(config), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


#: What may differ besides when a run goes on: more places, and what is chosen after training.
NOT_TRAINING = NOT_IDENTITY - {"seed"} | {
    *("eval", "checkpoint", "dataset.cache_dir", "weights", "pretrained", "recipe.max_time", "recipe.early_stop")
}


def training_identity(config: Mapping[str, Any], files: Collection[str] = ()) -> dict[str, Any]:
    """By dotted key, what a training is made of: equal for two configurations of which one continues the other.

    Args:
        files: options of the method that say only where a file lies, or how something is computed.
    """
    node = dict(config)
    node["method"] = {key: value for key, value in config["method"].items() if key not in files}
    flat = {
        key: FIXED.get(key, value)
        for key, value in _flat(node).items()
        if not any(key == name or key.startswith(f"{name}.") for name in NOT_TRAINING)
    }
    # where start weights lie does not matter, that there are some does
    flat |= {f"{name} given": bool(config.get(name)) for name in ("weights", "pretrained")}
    if flat.get("recipe.exclude_leaked"):
        flat["eval.splits"] = config["eval"]["splits"]
    return flat


def training_differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What keeps a run from going on under a configuration: "recipe.lr is 0.0003 there, 0.0001 now"."""
    cls = method_class(now["method"])  # nothing that a stored file names is imported
    files = cls.file_options | cls.handling_options
    theirs, ours = training_identity(stored, files), training_identity(now, files)
    differing = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
    lines = [f"{_short(key)} is {_short(theirs.get(key))} there, {_short(ours.get(key))} now" for key in differing]
    if EPOCHS in differing and _longer(theirs.get(EPOCHS), ours[EPOCHS]):
        if differing == [EPOCHS]:  # the schedule does not ask for the number of epochs: the first ones are the same
            return []
        if all(key == EPOCHS or key.startswith("recipe.schedule.") for key in differing):
            lines.append("the schedule of fewer epochs is another one, so that none can be added")
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"and {len(lines) - SHOWN} more"]


SHOWN = 8  # differences that are told one by one


def _longer(stored: object, now: object) -> bool:
    return isinstance(stored, int) and isinstance(now, int) and now > stored


def _short(value: object) -> str:
    """A value on one line, of a file that may hold anything."""
    text = " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def _flat(node: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) and value else {f"{above}{key}": value}
    return flat


def method_class(node: Mapping[str, Any]) -> type[GroundingMethod]:
    """The class that a ``method`` node names."""
    from hydra.utils import get_class

    return get_class(node["_target_"])


def method_identity(node: Mapping[str, Any]) -> dict[str, Any]:
    """A ``method`` node without what says only where files lie (see :meth:`GroundingMethod.identity`)."""
    return method_class(node).identity(node)
