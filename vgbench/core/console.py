"""What the terminal shows: progress bars, and tables that fit it. Nothing of it gets into files and pipes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

LINE_EVERY = 30.0  # seconds between two lines of progress in a log


class Pace:
    """Says when the next line of a log is due: the first one after ``seconds``."""

    def __init__(self, seconds: float = LINE_EVERY) -> None:
        self.seconds = seconds
        self._next = time.monotonic() + seconds

    def due(self) -> bool:
        """Whether the time has come; if so, the next line is due ``seconds`` from now."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self.seconds
        return True


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on the error stream, in a log a line every half minute; yields a function to call with
    (done, total)."""
    if not sys.stderr.isatty():
        pace = Pace()

        def line(done: int, total: int) -> None:
            if pace.due():
                print(f"{title}: {done:,} of {total:,}", file=sys.stderr, flush=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def is_number(text: str) -> bool:
    """Whether a cell holds a number and is to be aligned as one."""
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


def text_table(rows: Sequence[Sequence[str]], headings: Sequence[str] = ()) -> str:
    """Columns under each other, two spaces apart; numbers to the right. With ``headings`` a rule below them."""
    lines = [list(map(str, row)) for row in (*([headings] if headings else []), *rows)]
    places = range(max(map(len, lines), default=0))
    columns = [[line[place] if place < len(line) else "" for line in lines] for place in places]
    widths = [max(map(len, column)) for column in columns]
    bodies = [column[1:] if headings else column for column in columns]
    right = [any(body) and all(is_number(cell) or not cell for cell in body) for body in bodies]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        )
        return "  ".join(padded).rstrip()

    texts = [line([column[number] for column in columns]) for number in range(len(lines))]
    if headings:
        texts.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(texts)
