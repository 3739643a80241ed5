"""Pickles from strangers: only what an allow-list names comes into being."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Allowed = Mapping[tuple[str, str], Any]  # (module, name) in the pickle -> what it becomes

CONTAINERS: Allowed = {("builtins", "set"): set, ("builtins", "frozenset"): frozenset}
"""Besides numbers, strings, lists, tuples and dictionaries, which need no name."""


class RefusedObject(pickle.UnpicklingError):
    """The pickle names something that is not allowed: ``global_name``, "module.name"."""

    def __init__(self, global_name: str) -> None:
        super().__init__(f"it refers to {global_name}, which could run code")
        self.global_name = global_name


class RestrictedUnpickler(pickle.Unpickler):
    """Reads pickles of Python 2 and 3 without running anything that is not in ``allowed``."""

    def __init__(self, file: Any, allowed: Allowed) -> None:
        super().__init__(file, encoding="latin1")
        self.allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """The class or function of that name, if it is on the list."""
        module = "builtins" if module == "__builtin__" else module  # Python 2
        try:
            return self.allowed[module, name]
        except KeyError:
            raise RefusedObject(f"{module}.{name}") from None


def load_pickle(path: Path, allowed: Allowed = CONTAINERS) -> Any:
    """The object in a pickle file.

    Raises:
        OSError: if the file cannot be read.
        RefusedObject: if it names anything besides ``allowed``; nothing has been executed then.
        Exception: of almost any kind, if the file is damaged.
    """
    with path.open("rb") as file:
        return RestrictedUnpickler(file, allowed).load()
