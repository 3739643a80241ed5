"""Pickles from strangers: only what an allow-list names comes into being."""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgbench.core.files import ordinary_file
from vgbench.core.opcodes import MAX_DEPTH, SuspiciousPickle, survey

Allowed = Mapping[tuple[str, str], Any]  # (module, name) in the pickle -> what it becomes

CONTAINERS: Allowed = {("builtins", "set"): set, ("builtins", "frozenset"): frozenset}
"""Besides numbers, strings, lists, tuples and dictionaries, which need no name."""

NESTING = (list, tuple, dict, set, frozenset)
MAX_GROWTH = 100  # values that a pickle may stand for, per byte of its length


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
        pickle.UnpicklingError: if it would take memory or time out of proportion to its length.
        Exception: of almost any kind, if the file is damaged.
    """
    with ordinary_file(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise EOFError("it is empty")
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                shares = survey(mapped).shares
        except SuspiciousPickle as error:
            raise pickle.UnpicklingError(str(error)) from None
        value = RestrictedUnpickler(file, allowed).load()
    if shares:
        _check_extent(value, MAX_GROWTH * size)
    return value


def _check_extent(value: object, limit: int) -> None:
    """
    Raises:
        pickle.UnpicklingError: if lists and dictionaries contain themselves, are nested without end, or stand for more
            than ``limit`` values when each is counted wherever it occurs: whoever writes them out comes to no end.
    """
    totals: dict[int, tuple[int, int]] = {}  # by identity: values that it stands for, depth
    above: set[int] = set()
    todo: list[tuple[Any, bool]] = [(value, False)]
    while todo:
        container, inside_done = todo.pop()
        inside = [*container, *container.values()] if isinstance(container, dict) else container
        inside = [item for item in inside if isinstance(item, NESTING)]
        if not inside_done:
            if not isinstance(container, NESTING) or id(container) in totals:
                continue
            if id(container) in above or len(above) > 10 * MAX_DEPTH:
                raise pickle.UnpicklingError("it has containers that contain themselves or are nested without end")
            above.add(id(container))
            todo.append((container, True))
            todo += [(item, False) for item in inside if id(item) not in totals]
            continue
        above.discard(id(container))
        total = len(container) + 1 + sum(totals[id(item)][0] for item in inside)
        depth = 1 + max((totals[id(item)][1] for item in inside), default=0)
        if total > limit or depth > MAX_DEPTH:
            raise pickle.UnpicklingError("it has containers within containers without end")
        totals[id(container)] = total, depth
