"""What a run prints."""

from __future__ import annotations

from vgbench.core.processes import process_rank


def say(text: str) -> None:
    """Print a line, on process 0."""
    if process_rank() == 0:
        print(text, flush=True)
