"""What a run prints."""

from __future__ import annotations

from vgbench.core.grid import Grid
from vgbench.core.processes import process_rank
from vgbench.core.terminal import output


def say(text: str) -> None:
    """Print a line, on process 0."""
    if process_rank() == 0:
        print(text, flush=True)


def say_table(grid: Grid, text: str) -> None:
    """Print a table, on process 0: as wide as the terminal; into a pipe or a file ``text``."""
    if process_rank() == 0:
        output([grid], text)
