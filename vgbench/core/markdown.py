"""Grids as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from vgbench.core.grid import Grid, GridCell
from vgbench.core.lines import printable


def markdown(grids: Sequence[Grid]) -> str:
    """Every grid with its title, legend, notes and footnotes."""
    parts = []
    for grid in grids:
        parts += [f"## {grid.title}", markdown_table(grid)]
        parts += [" ".join(grid.legend)] if grid.legend else []
        parts += [bullets(grid.notes)] if grid.notes else []
        parts += ["\n".join(f"{mark}: {note}  " for mark, note in grid.footnotes.items())] if grid.footnotes else []
    return "\n\n".join(parts) + "\n"


def bullets(notes: Sequence[str]) -> str:
    """Notes as a list."""
    return "\n".join(f"- {printable(' '.join(note.split()))}" for note in notes)


def markdown_table(grid: Grid, *, padded: bool = True) -> str:
    """The grid's headings and rows alone; ``padded``: all cells of a column as wide as its widest, for a plain text."""
    header = [plain(f"{heading.group} {heading.text}") for heading in grid.headings]
    rows = [[_cell(cell) for cell in row] for row in grid.rows]
    widths = [max(len(row[place]) for row in (header, *rows)) if padded else 0 for place in range(len(header))]
    fill = {"left": str.ljust, "right": str.rjust, "centre": str.center}
    rule = {"left": ":{0}-", "right": "{0}-:", "centre": ":{0}:"}

    def line(row: Sequence[str]) -> str:
        cells = (
            fill[heading.align](cell, width) for heading, cell, width in zip(grid.headings, row, widths, strict=True)
        )
        return f"| {' | '.join(cells)} |"

    rules = (
        rule[heading.align].format("-" * max(width, 1)) for heading, width in zip(grid.headings, widths, strict=True)
    )
    return "\n".join([line(header), f"|{'|'.join(rules)}|", *map(line, rows)])


def plain(text: str) -> str:
    """A text that is one line and ends no cell."""
    return printable(" ".join(text.replace("|", r"\|").split()))


def _cell(cell: GridCell) -> str:
    text = f"**{plain(cell.text)}**" if cell.strong else plain(cell.text)
    if cell.spread is None:
        return text
    return f"{text} ±{cell.spread:.2f}" if cell.seeds == 1 else f"{text} ± {cell.spread:.2f} ({cell.seeds} seeds)"
