"""Options whose value is a path: whatever it is called, it is no expression in Hydra's grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

#: Keys of the configuration that hold a path. Methods and datasets declare those of their own (``file_options``).
PATH_KEYS = frozenset(
    {
        *("weights", "pretrained", "checkpoint", "run_dir", "runs", "out", "bench.json"),
        *("recipe.extra_train", "eval.stress_objects"),
        *("dataset.data_root", "dataset.image_root", "dataset.cache_dir", "dataset.filter"),
    }
)
_PLAIN = re.compile(r"[A-Za-z0-9_/.+\-]+")  # is itself in Hydra's grammar


def quoted(path: Path | str) -> str:
    """A path as a value in Hydra's grammar."""
    text = str(path)
    if _PLAIN.fullmatch(text):
        return text
    text = re.sub(r"(\\+)(?='|$)", r"\1\1", text)  # a backslash counts before a quote only
    return "'" + text.replace("'", r"\'").replace("${", r"\${") + "'"


def with_quoted_paths(overrides: Sequence[str], sweep: bool = False) -> list[str]:
    """Overrides in which the paths are quoted, so that they may have any characters.

    What is Hydra's already stays: a value in quotes, a list in brackets (its parts are quoted), an interpolation.

    Args:
        overrides: ``key=value``, the keys spelt out.
        sweep: a comma separates the values of a sweep, unless there is a file of the whole name.
    """
    return [_with_quoted_path(item, overrides, sweep) for item in overrides]


def _with_quoted_path(item: str, overrides: Sequence[str], sweep: bool) -> str:
    key, equals, value = item.partition("=")
    if not equals or not value or _PLAIN.fullmatch(value) or _is_hydra(value):
        return item
    if not _is_path(key.lstrip("+~"), overrides):
        return item
    if _exists(value):
        return f"{key}={quoted(value)}"
    if value[0] == "[" and value[-1] == "]":
        return f"{key}=[{','.join(_part(part.strip()) for part in value[1:-1].split(','))}]"
    if sweep and "," in value:
        return f"{key}={','.join(_part(part) for part in value.split(','))}"
    return f"{key}={quoted(value)}"


def _part(value: str) -> str:
    return value if _is_hydra(value) else quoted(value)


def _is_hydra(value: str) -> bool:
    """Whether a value is in quotes or an interpolation."""
    return (len(value) > 1 and value[0] == value[-1] and value[0] in "'\"") or "${" in value


def _exists(value: str) -> bool:
    try:
        return Path(value).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # a name that is too long, or of a user that is not there
        return False


def _is_path(key: str, overrides: Sequence[str]) -> bool:
    if key in PATH_KEYS:
        return True
    group, _, option = key.partition(".")
    return group in ("method", "dataset") and bool(option) and option in _file_options(group, overrides)


def _file_options(group: str, overrides: Sequence[str]) -> frozenset[str]:
    """What the chosen method or dataset declares as paths; nothing where it is not known."""
    from vgbench.core.registry import datasets, methods

    registry = methods if group == "method" else datasets
    choice = next((item.partition("=")[2] for item in overrides if item.startswith(f"{group}=")), None)
    choice = _default_choice(group) if choice is None else choice
    # alvg_large is a configuration of alvg
    names = [name for name in registry if choice == name or choice.startswith(f"{name}_")]
    return registry.load(max(names, key=len)).file_options if names else frozenset()


def _default_choice(group: str) -> str:
    from omegaconf import OmegaConf

    for entry in OmegaConf.load(str(files("vgbench.configs") / "run.yaml")).defaults:
        if group in entry:
            return str(entry[group])
    return ""
