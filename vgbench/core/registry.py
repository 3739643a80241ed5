"""Discovery of methods, datasets and metrics through entry points, so that an installed package can add its own."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from vgbench.core.errors import UserError


class Registry:
    """The classes of one entry-point group by name, imported only when asked for."""

    def __init__(self, group: str, noun: str) -> None:
        self.group = group
        self.noun = noun
        self._added: dict[str, Any] = {}

    def _points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._points(), *self._added}))

    def __contains__(self, name: object) -> bool:
        return name in self._added or name in self._points()

    def added(self) -> list[str]:
        """Names registered in this process."""
        return sorted(self._added)

    def is_own(self, name: str) -> bool:
        """Whether the class is one of the suite's."""
        return name not in self._added and self._points()[name].value.startswith("vgbench.")

    def name_of(self, cls: Any) -> str | None:
        """The name that a class is registered under, or None."""
        for name, value in self._added.items():
            if value is cls:
                return name
        for name, point in self._points().items():
            if point.attr == cls.__name__ and f"{cls.__module__}.".startswith(f"{point.module}."):
                return name
        return None

    def by_path(self, path: str) -> Any | None:
        """The registered class with a dotted path (``_target_`` of a stored configuration), or None.

        Nothing but registered classes of the path's own package is imported: a path is not followed.
        """
        module, _, name = path.rpartition(".")
        named = vars(sys.modules[module]).get(name) if module in sys.modules else None
        for value in self._added.values():
            if value is named or path == f"{value.__module__}.{value.__qualname__}":
                return value
        for point in self._points().values():
            if path == f"{point.module}.{point.attr}":
                return point.load()
            if module.partition(".")[0] == point.module.partition(".")[0] and name == point.attr:
                value = point.load()
                named = vars(sys.modules[module]).get(name) if module in sys.modules else None
                if value is named:
                    return value
        return None

    def add(self, name: str, value: Any) -> None:
        """Register a class of this process (a plugin file, a test)."""
        self._added[name] = value

    def load(self, name: str) -> Any:
        """The class called ``name``.

        Raises:
            UserError: if there is none; the message lists what there is.
        """
        if name in self._added:
            return self._added[name]
        points = self._points()
        if name not in points:
            close = difflib.get_close_matches(name, list(self), n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UserError(f"no {self.noun} {name!r}; {hint}there are: {', '.join(self)}")
        return points[name].load()

    def classes(self) -> Iterator[Any]:
        """All classes, but for those of installed packages that cannot be imported."""
        for name in self:
            with contextlib.suppress(ImportError):
                yield self.load(name)


methods = Registry("vgbench.methods", "method")
datasets = Registry("vgbench.datasets", "dataset")
metrics = Registry("vgbench.metrics", "metric")
probes = Registry("vgbench.probes", "probe")
conformance = Registry("vgbench.conformance", "conformance runner")  # modules with ``run(case)``, by case.yaml's method
commands = Registry("vgbench.commands", "provider of data commands")  # tuples of actions of ``vgbench data``
styles = Registry("vgbench.styles", "answer style")  # of other packages, beside those of vgbench.predictions.styles
