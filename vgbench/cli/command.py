"""What a command is: a module of this folder."""

from __future__ import annotations

import textwrap
from argparse import ArgumentParser, HelpFormatter, Namespace
from collections.abc import Sequence
from typing import Any, Protocol


class Command(Protocol):
    """A command of ``vgbench``. Its module imports nothing heavy before :meth:`execute` is called."""

    NAME: str
    HELP: str
    EXAMPLE: str  # of a whole command line
    TAKES_PLUGINS: bool  # whether methods, datasets or metrics may come from --plugin

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments; called only if this is the command on the command line."""

    def execute(self, arguments: Namespace) -> int:
        """Do it; the exit code."""


class Lines(HelpFormatter):
    """Help whose texts keep their lines: an indented one is a command to copy, others are as wide as the terminal."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = (line if line.startswith(" ") else textwrap.fill(line, width) for line in text.splitlines())
        return "\n".join(textwrap.indent(line, indent) for line in lines)


class Parser(ArgumentParser):
    """A parser that asks its command for arguments only when that command is on the command line.

    Attributes:
        words: what stands behind the command.
    """

    command: Command | None = None
    words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.command is not None:
            self.words = list(args or ())
            self.complete()
        return super().parse_known_args(args, namespace)

    def complete(self) -> None:
        """Add the arguments of the command."""
        assert self.command is not None
        self.command.add_arguments(self)
        for action in self._actions:
            if action.nargs == "*":
                action.required = False  # argparse would name key=value among what is missing
