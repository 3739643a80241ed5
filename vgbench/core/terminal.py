"""Grids on a terminal: as wide as it is. What goes into a pipe or a file is Markdown."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from vgbench.core.console import is_number, text_table
from vgbench.core.grid import Align, Grid, GridCell, Heading, text_row
from vgbench.core.markdown import markdown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_GAP = 3  # characters between two columns
_TEXT = 28  # a column of words may be folded down to this width
_JUSTIFY: dict[Align, Literal["left", "right", "center"]] = {"left": "left", "right": "right", "centre": "center"}


def output(grids: Sequence[Grid], text: str | None = None) -> None:
    """Print grids: as wide as the terminal; into a pipe or a file ``text``, None: as Markdown."""
    if sys.stdout.isatty():
        show(grids)
    else:
        print(markdown(grids) if text is None else text, end="", flush=True)


def output_lines(rows: Sequence[Sequence[str]], headings: Sequence[str] = (), title: str = "") -> None:
    """Print rows of texts: as wide as the terminal; into a pipe or a file as columns of plain text."""
    if not sys.stdout.isatty():
        print(*([f"\n{title}"] if title else []), text_table(rows, headings), sep="\n")
        return
    count = max(map(len, (headings, *rows)))
    whole = [[*map(str, row), *[""] * (count - len(row))] for row in rows]
    names = [*headings, *[""] * (count - len(headings))]
    numeric = [all(is_number(row[place]) or not row[place] for row in whole) for place in range(count)]
    heads = [Heading(name, align="right" if right else "left") for name, right in zip(names, numeric, strict=True)]
    show([Grid(title, heads, [text_row(*row) for row in whole])])


def wrapped(line: str, indent: int) -> None:
    """Print a line; on a terminal it goes on below itself, ``indent`` characters from the left."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        line = textwrap.fill(line, width, subsequent_indent=" " * indent, break_on_hyphens=False)
    print(line)


def show(grids: Sequence[Grid], console: Console | None = None) -> None:
    """Print grids; one that is wider than the terminal comes in parts that repeat the first column.

    ``console``: None: standard output, coloured unless ``NO_COLOR`` is set.
    """
    if console is None:
        from rich.console import Console as Terminal

        console = Terminal(highlight=False)
    for grid in grids:
        show_grid(grid, console)


def show_grid(grid: Grid, console: Console) -> None:
    """One grid with its title, legend, notes and footnotes."""
    console.print(f"\n{grid.title}" if grid.title else "", style="bold", markup=False)
    for number, places in enumerate(parts(grid, console.width)):
        if number:
            console.print()
        console.print(_table(grid, places, console.width))
    if grid.legend:
        console.print(" ".join(grid.legend), style="dim", markup=False)
    for line in [*shared_ends(grid.notes), *(f"{mark}: {note}" for mark, note in grid.footnotes.items())]:
        console.print(f"- {line}", style="dim", markup=False)


def parts(grid: Grid, width: int) -> list[list[int]]:
    """Places of the columns that stand side by side in so many characters: the first column leads every part."""
    widths = [_width(grid, place) for place in range(len(grid.headings))]
    first, *others = range(len(widths))
    if not others:
        return [[first]]
    room = width - widths[first]
    blocks: list[list[int]] = [[]]
    left = room
    for place in others:
        if widths[place] + _GAP > left and blocks[-1]:
            blocks.append([])
            left = room
        blocks[-1].append(place)
        left -= widths[place] + _GAP
    return [[first, *block] for block in blocks]


def _width(grid: Grid, place: int) -> int:
    """What a column needs: the longest of its cells and heading lines; words are folded."""
    heading = grid.headings[place]
    cells = [len(_text(row[place])) for row in grid.rows]
    whole = max([*cells, *map(len, _heading_lines(heading))], default=0)
    return min(whole, _TEXT) if heading.align == "left" else whole


def _heading_lines(heading: Heading) -> list[str]:
    """The group's words, the metric, its variant or control: a column is as wide as its numbers where it can."""
    return [*heading.group.split(), *re.sub(r" (?=[\[(])", "\n", heading.text).split("\n")]


def _text(cell: GridCell) -> str:
    if cell.spread is None:
        return cell.text
    return f"{cell.text} ±{cell.spread:.2f}" if cell.seeds == 1 else f"{cell.text} ±{cell.spread:.2f} ({cell.seeds})"


def _table(grid: Grid, places: Sequence[int], width: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    named = any(grid.headings[place].text for place in places)
    table = Table(box=box.SIMPLE_HEAD, show_header=named, pad_edge=False, show_edge=False, padding=(0, 1))
    heads = [_heading_lines(grid.headings[place]) for place in places]
    height = max(map(len, heads))
    for place, lines in zip(places, heads, strict=True):
        align = grid.headings[place].align
        head = Text("\n".join([*[""] * (height - len(lines)), *lines]))  # all end on the line above the rule
        table.add_column(head, justify=_JUSTIFY[align], overflow="fold", no_wrap=align != "left")
    for row in grid.rows:
        table.add_row(*(Text(_text(row[place]), style="bold" if row[place].strong else "") for place in places))
    return table


def shared_ends(notes: Sequence[str]) -> Iterator[str]:
    """Notes on runs, "label: run (a, b, c)"; what stands in the brackets of all of them is said once."""
    brackets = [match[1].split(", ") for note in notes if (match := re.search(r"\(([^()]*)\)$", note))]
    shared = [part for part in brackets[0] if all(part in other for other in brackets)] if len(brackets) > 1 else []
    for note in notes:
        match = re.search(r"\(([^()]*)\)$", note)
        own = [part for part in match[1].split(", ") if part not in shared] if match and shared else None
        yield note if own is None or match is None else note[: match.start()] + (f"({', '.join(own)})" if own else "")
    if shared:
        yield f"all of these: {', '.join(shared)}"
