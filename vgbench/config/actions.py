"""What ``vgbench data`` can do: the contract of an action.

A package adds actions of its own through the entry-point group ``vgbench.commands``: each entry point names a tuple of
:class:`Action`. The module that holds it should import what is heavy inside ``execute`` only, because
``vgbench data --help`` reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vgbench.config.compose import compose
from vgbench.core.errors import UserError

if TYPE_CHECKING:
    from vgbench.data.dataset import GroundingData


@dataclass(frozen=True)
class Arguments:
    """What was typed behind ``vgbench data ACTION``.

    Attributes:
        action: name of the action.
        own: values of its own keys.
        overrides: everything else: configuration.
        flags: which of its flags were given.
    """

    action: str
    own: Mapping[str, str]
    overrides: tuple[str, ...]
    flags: frozenset[str] = frozenset()

    @property
    def names_dataset(self) -> bool:
        return any(item.startswith("dataset=") for item in self.overrides)

    def config(self) -> Any:
        """The composed configuration.

        Raises:
            UserError: if it names no dataset.
        """
        if not self.names_dataset:
            raise UserError(f"data {self.action}: say which: dataset=NAME (vgbench list datasets)")
        return compose(self.overrides)

    def dataset(self) -> GroundingData:
        """The dataset that the overrides name; raises UserError as :meth:`config`."""
        from hydra.utils import instantiate

        return instantiate(self.config().dataset)


@dataclass(frozen=True)
class Action:
    """One thing that ``vgbench data`` does.

    Attributes:
        name: what is typed.
        execute: does it; returns the exit code.
        example: arguments of an example command line.
        keys: its own ``key=value`` arguments, which are no configuration.
        usage: how they are given, for ``--help``; empty: ``[split=a,b]`` or nothing.
        flags: option (``--yes``) -> what it does.
    """

    name: str
    execute: Callable[[Arguments], int]
    example: str = ""
    keys: tuple[str, ...] = ()
    usage: str = ""
    flags: Mapping[str, str] = field(default_factory=dict)
