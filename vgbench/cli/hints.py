"""One line for what went wrong: the key, and what it could have been."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from vgbench.config.compose import compose, options
from vgbench.core.errors import UserError
from vgbench.core.files import NO_ROOM
from vgbench.core.lines import one_line


def text_hint(arguments: Sequence[str]) -> str | None:
    """One line for an argument that is no UTF-8, which nothing could store or print; None if all are."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            return (
                f"argument {ascii(argument)[1:-1][:80]} is no UTF-8 text (byte {error.start}); write it, or rename the "
                "file, in UTF-8"
            )
    return None


def is_config_error(error: Exception) -> bool:
    """Whether it is an error of Hydra or OmegaConf, or was raised in their code (a number as a group's choice is)."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    raised_in = place.tb_frame.f_globals.get("__name__", "") if place is not None else ""
    return any(name.partition(".")[0] in ("hydra", "omegaconf") for name in (type(error).__module__, raised_in))


def config_hint(error: Exception, arguments: argparse.Namespace) -> str:
    """One line for an error of Hydra or OmegaConf: names the key and what it could have been."""
    import re
    from difflib import get_close_matches

    missing = getattr(error, "missing_cfg_file", None)
    group, _, name = (missing or "").rpartition("/")
    choices = getattr(error, "options", None) or (group and options(group))  # Hydra names none for a list of choices
    if choices:
        close = get_close_matches(name, choices, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        return f"{group}={name}: there is no such {group}; {meant}there are: {', '.join(sorted(choices))}"
    if isinstance(error.__cause__, UserError):  # what a method or a dataset said while Hydra was making it
        return one_line(error.__cause__)
    text = one_line(error.__cause__ or error) if type(error).__name__ == "InstantiationException" else one_line(error)
    unknown = re.match(r"Could not override '([^']+)'", text)
    if unknown:
        meant = " or ".join(_similar_keys(unknown[1], arguments))
        return f"{unknown[1]}: unknown key; " + (f"did you mean {meant}?" if meant else "--cfg job shows all keys")
    return f"configuration: {text} (vgbench list shows the choices, --cfg job the composed keys)"


def _similar_keys(key: str, arguments: argparse.Namespace) -> list[str]:
    """Keys of the configuration with the same last part as ``key``, else the one that is spelt most like it."""
    from difflib import get_close_matches

    from omegaconf import OmegaConf

    name = "bench" if arguments.command == "bench" else "run"
    groups = ("method=", "trainer=", *(("bench=",) if name == "bench" else ("dataset=", "recipe=", "logger=")))
    group_overrides = [
        item if "=[" in item else item.partition(",")[0] for item in arguments.overrides if item.startswith(groups)
    ]
    config: Any = OmegaConf.to_container(compose(group_overrides, name))

    def walk(node: Any, above: str = "") -> Iterator[str]:
        for name, value in node.items() if isinstance(node, dict) else ():
            yield above + str(name)
            yield from walk(value, f"{above}{name}.")

    keys = [name for name in walk(config) if name.partition(".")[0] != "hydra"]
    last = key.rpartition(".")[2]
    same = sorted((name for name in keys if name.rpartition(".")[2] == last), key=lambda name: name.count("."))
    ends = {name.rpartition(".")[2]: name for name in keys}
    close_keys = get_close_matches(key, keys, n=1, cutoff=0.8)
    return same[:3] or close_keys or [ends[end] for end in get_close_matches(last, ends, n=1, cutoff=0.8)]


# What vgbench-core leaves out (packaging/core).
MODEL_PACKAGES = frozenset(
    {"torch", "torchvision", "lightning", "torchmetrics", "timm", "transformers", "sentencepiece", "safetensors"}
) | {"scipy", "matplotlib"}


def package_hint(error: BaseException) -> str | None:
    """One line where a package of the whole suite is missing, also behind another error; None for anything else."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError) and (cause.name or "").partition(".")[0] in MODEL_PACKAGES:
            lack = f'this needs the package "{cause.name}", which is not installed'
            return f"{lack}; install the whole suite: pip install vgbench"
        cause = cause.__cause__ or cause.__context__
    return None


def place_hint(error: Exception) -> str | None:
    """One line for a place that cannot be made, read or written, or a full disk; None for any other error."""
    if not isinstance(error, OSError) or not (error.filename or error.errno in NO_ROOM):
        return None
    return f"{error.filename or 'writing'}: {error.strerror or error} (--debug shows what wanted it)"
