"""Grids as LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from vgbench.core.grid import Grid, GridCell, Heading
from vgbench.core.lines import one_line

_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
_ALIGN = {"left": "l", "right": "r", "centre": "c"}


def latex(grids: Sequence[Grid]) -> str:
    """Every grid as a ``tabular``; its legend and notes are comments, its footnotes paragraphs below it."""
    return "\n\n".join([r"% needs \usepackage{booktabs}", *map(_tabular, grids)]) + "\n"


def escaped(text: str) -> str:
    """A text without LaTeX's special characters."""
    return "".join(_SPECIAL.get(letter) or (f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


def _tabular(grid: Grid) -> str:
    # the last column is text that nothing stands behind
    columns = "".join(_ALIGN[heading.align] for heading in grid.headings[:-1]) + "l"
    return "\n".join(
        [
            f"% {one_line(grid.title)}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            *_header(grid.headings),
            r"\midrule",
            *(_line(_cell(cell) for cell in row) for row in grid.rows),
            r"\bottomrule",
            r"\end{tabular}",
            *(f"% {one_line(note)}" for note in (*grid.legend, *grid.notes)),
            *(rf"\par\noindent {{\footnotesize {mark} {escaped(note)}}}" for mark, note in grid.footnotes.items()),
        ]
    )


def _header(headings: Sequence[Heading]) -> Iterator[str]:
    if any(heading.group for heading in headings):
        spans: list[str] = []
        for group, members in groupby(headings, key=lambda heading: heading.group):
            count = len(list(members))
            spans += [rf"\multicolumn{{{count}}}{{c}}{{{escaped(group)}}}"] if group else [""] * count
        yield _line(spans)
    yield _line(escaped(heading.text) for heading in headings)


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(cell: GridCell) -> str:
    text = rf"\textbf{{{escaped(cell.text)}}}" if cell.strong else escaped(cell.text)
    if cell.spread is None:
        return text
    return text + rf"{{\scriptsize$\pm${cell.spread:.2f}{'' if cell.seeds == 1 else f' ({cell.seeds})'}}}"
