"""The door: one file per command. It imports everybody, nobody imports it."""

from vgbench.cli.main import main

__all__ = ["main"]
