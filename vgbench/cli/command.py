"""What a command is: a module of this folder."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Protocol


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
