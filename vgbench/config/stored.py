"""Configurations that come out of files (models, records, run folders): data, never a program.

Hydra calls whatever a node's ``_target_`` names, at any depth. That is right for the configuration that a user
composes, and wrong for one that somebody sent: here a method or dataset is one of the registered ones (of the suite, of
installed packages, of ``--plugin``), and its arguments are plain values. Nothing is imported to find that out but
registered classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgbench.config.identity import config_hash
from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file
from vgbench.core.registry import Registry, datasets, methods

if TYPE_CHECKING:
    from vgbench.data.dataset import GroundingData
    from vgbench.method import GroundingMethod

TABLES = "tables"  # the folder of annotation tables in a cache
MAX_DEPTH = 16  # of nested values; ours have three


def stored_method(node: object, source: Path | str) -> dict[str, Any]:
    """The ``method`` node of a file, checked: to be compared with another one.

    Args:
        node: what the file has.
        source: the file (and key), for messages.

    Raises:
        UserError: unless it names a registered method and all arguments are plain values.
    """
    return _check(node, source, methods)[0]


def buildable_method(node: object, source: Path | str) -> dict[str, Any]:
    """The ``method`` node of a file, checked, without the options that name a program
    (:attr:`GroundingMethod.program_options`): only the user gives those.

    Raises:
        UserError: as :func:`stored_method`.
    """
    checked, cls = _check(node, source, methods)
    return {key: value for key, value in checked.items() if key not in cls.program_options}


def stored_dataset(node: object, source: Path | str) -> dict[str, Any]:
    """The ``dataset`` node of a file, checked.

    Raises:
        UserError: unless it names a registered dataset and all arguments are plain values.
    """
    return _check(node, source, datasets)[0]


def make_method(node: Mapping[str, Any], source: Path | str) -> GroundingMethod:
    """The method of a node that :func:`buildable_method` checked, perhaps with options of the user's over it.

    Raises:
        UserError: naming the file, if the class does not take these arguments.
    """
    return _make(node, source)


def make_dataset(node: object, source: Path | str) -> GroundingData:
    """The dataset of a stored node. It is read where the node says, and nothing is written but to caches.

    A folder of the node is a cache if there are tables in it; else the user's own is taken.

    Raises:
        UserError: as :func:`stored_dataset`, if the class does not take these arguments, or if its data would have to
            be made in a folder that the file names.
    """
    options = stored_dataset(node, source)
    cache = options.get("cache_dir")
    if cache is not None and not (isinstance(cache, str) and (Path(cache).expanduser() / TABLES).is_dir()):
        options = {**options, "cache_dir": None}
    data: GroundingData = _make(options, source)
    if data.embedded and options.get("data_root") is not None and not data.data_root.is_dir():
        raise UserError(
            f"{source}: dataset.data_root={data.data_root.parent}: its data are not there; render them anew"
        )
    return data


def stored_config(file: Path) -> dict[str, Any]:
    """The ``config.yaml`` of a run folder as plain values. It is compared, never instantiated or resolved.

    Raises:
        UserError: naming the file, if it is damaged.
    """
    import yaml
    from omegaconf import OmegaConf

    try:
        text = ordinary_file(file).read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("it has aliases")  # a few lines of them can fill the memory; we write none
        node: Any = OmegaConf.to_container(OmegaConf.create(text))
        if not isinstance(node, dict) or not all(isinstance(node.get(group), dict) for group in ("method", "dataset")):
            raise ValueError("it lacks method or dataset")
        config_hash(node)  # keys of several kinds cannot be put in order
    except Exception as error:  # both libraries raise what they like at text that is none of theirs
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: not a readable configuration ({reason}); copy the run folder again") from None
    return node


def _check(node: object, source: Path | str, registry: Registry) -> tuple[dict[str, Any], Any]:
    """The node and the registered class that it names."""
    noun = registry.noun
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        raise UserError(
            f"{source}: holds no configuration of a {noun} (a mapping with _target_); write or copy it again"
        )
    target = node["_target_"]
    cls = registry.by_path(target)
    if cls is None:
        raise UserError(
            f"{source}: {noun}._target_={target!r} is not a registered {noun}, and a file cannot name anything else; "
            f"there are: {', '.join(registry)}; --plugin FILE.py adds one of your own"
        )
    for key, value in node.items():
        if key != "_target_":
            _check_plain(key, value, f"{noun}.{key}", source)
    return node, cls


def _check_plain(key: object, value: object, where: str, source: Path | str, depth: int = 0) -> None:
    """
    Raises:
        UserError: unless ``value`` is a number, a text, a truth value, None, or a list or mapping of such.
    """
    problem = None
    if not isinstance(key, str) or (key.startswith("_") and key.endswith("_")):
        problem = f"{key!r} is no name of an argument"
    elif depth > MAX_DEPTH:
        problem = "is nested too deeply"
    elif isinstance(value, str) and "${" in value:
        problem = "is an interpolation"
    elif not isinstance(value, str | int | float | list | dict | None):
        problem = f"is a {type(value).__name__}"
    if problem:
        raise UserError(f"{source}: {where}: {problem}; the configuration in a file is made of plain values only")
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check_plain("item", item, f"{where}[{index}]", source, depth + 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_plain(name, item, f"{where}.{name}", source, depth + 1)


def _make(node: Mapping[str, Any], source: Path | str) -> Any:
    from hydra.utils import instantiate

    try:
        return instantiate(dict(node))
    except Exception as error:  # whatever a constructor makes of values that it did not expect
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise UserError(f"{source}: {cause}") from error
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())
        raise UserError(f"{source}: its configuration does not make a {node['_target_']} ({reason})") from error
