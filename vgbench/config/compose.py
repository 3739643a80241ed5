"""Configurations: composed from overrides without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from vgbench.config.paths import with_quoted_paths
from vgbench.core.errors import UserError


def compose(overrides: Sequence[str], name: str = "run") -> Any:
    """The configuration of ``vgbench run`` with overrides, composed without running anything.

    ``name="bench"``: that of ``vgbench bench``.
    ``data_root=...`` and ``image_root=...`` are short for ``dataset.data_root=...`` and ``dataset.image_root=...``.
    Paths may have any characters (:mod:`vgbench.config.paths`).
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module

    from vgbench.config.plugins import prepare

    with initialize_config_module("vgbench.configs", version_base="1.3"):
        ready = with_quoted_paths(recipe_files(prepare(expand(overrides))))
        return hydra_compose(name, overrides=ready, return_hydra_config=True)


#: What ``smoke=true`` stands for besides little data, where it is not said otherwise.
SMOKE = {
    **{
        "recipe.epochs": 1,
        "recipe.batch_size": 2,
        "recipe.accumulate": 1,
        "recipe.eval_every": 1,
        "recipe.eval_from": 0,
    },
    **{"eval.batch_size": 2, "eval.limit": 4, "eval.bootstrap": 20, "eval.examples": 2},
}


def expand(overrides: Sequence[str]) -> list[str]:
    """Spell out the short forms of override keys. Every dataset takes a filter, whether its YAML names it or not, and
    every logger can be switched off (``logger.tensorboard=false``), whether it was chosen or not."""
    if "smoke=true" in overrides:
        keys = {item.lstrip("+").partition("=")[0] for item in overrides}
        overrides = [*overrides, *(f"{key}={value}" for key, value in SMOKE.items() if key not in keys)]
    short = ("data_root=", "image_root=", "split_by=")
    spelt = [f"dataset.{item}" if item.startswith(short) else item for item in overrides]
    return [f"++{item}" if item.startswith("dataset.filter=") or _is_logger_off(item) else item for item in spelt]


def _is_logger_off(item: str) -> bool:
    key, _, value = item.partition("=")
    return key.startswith("logger.") and key.count(".") == 1 and value in ("false", "null")


def _recipe_file(name: str, methods: Sequence[str]) -> str:
    """Where the recipe ``alvg-refcoco`` or ``stage/simvg-stage1-refcoco`` lies: ``alvg/refcoco``,
    ``stage/simvg/stage1-refcoco``. Anything else stays as it is."""
    folder, slash, pair = name.rpartition("/")
    method = next((method for method in sorted(methods, key=len, reverse=True) if pair.startswith(f"{method}-")), None)
    if folder not in ("", "stage") or method is None:
        return name
    return f"{folder}{slash}{method}/{pair[len(method) + 1 :]}"


def recipe_files(overrides: Sequence[str]) -> list[str]:
    """Overrides with every ``recipe=NAME`` as the file's place in its configuration group; to be asked once plug-ins
    are known (:func:`vgbench.config.plugins.prepare`)."""
    if not any(item.startswith("recipe=") for item in overrides):
        return list(overrides)
    methods = _method_names()
    return [
        "recipe=" + ",".join(_recipe_file(name, methods) for name in item[len("recipe=") :].split(","))
        if item.startswith("recipe=")
        else item
        for item in overrides
    ]


def _method_names() -> list[str]:
    from vgbench.core.registry import methods

    return sorted({*options("method"), *methods})


def recipes() -> list[str]:
    """All recipes by the names that are typed: ``METHOD-DATASET``, ``stage/METHOD-STAGE-DATASET``, ``base/...``."""
    names = []
    for place in options("recipe"):
        *folders, method, name = place.split("/") if place.count("/") else ["", place]
        names.append(place if method in ("base", "") else "/".join([*folders, f"{method}-{name}"]))
    return sorted(names)


def check_recipe(overrides: Sequence[str]) -> None:
    """Hydra passes over a missing ``recipe`` in silence, because a pair of method and dataset need not have one.

    Raises:
        UserError: if a recipe that was asked for does not exist.
    """
    from difflib import get_close_matches

    names_of_recipes = [
        name for item in overrides if item.startswith("recipe=") for name in item[len("recipe=") :].split(",")
    ]
    for name in names_of_recipes:
        if name == "null" or name in (names := recipes()) or name in options("recipe"):
            continue
        close = get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}?" if close else "vgbench list recipes shows them"
        raise UserError(f"recipe={name}: there is no such recipe; {hint}")


def split_overrides(overrides: Sequence[str], *own: str) -> tuple[dict[str, str], list[str]]:
    """Separate the command's own ``key=value`` arguments from configuration overrides."""
    mine: dict[str, str] = {}
    rest = []
    for item in overrides:
        key, _, value = item.partition("=")
        if key in own:
            mine[key] = value
        else:
            rest.append(item)
    return mine, rest


def options(group: str) -> list[str]:
    """Names of the files in a configuration group, folders included: ``stage/simvg/stage1-refcoco``."""
    from vgbench.config.plugins import config_folders

    folders = [place / group for place in (Path(str(files("vgbench.configs"))), *config_folders())]
    return sorted(
        str(file.relative_to(folder).with_suffix("")) for folder in folders for file in folder.rglob("*.yaml")
    )
