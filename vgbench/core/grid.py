"""A table before it is written: what stands in its cells, whatever it is printed as."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Align = Literal["left", "right", "centre"]


@dataclass(frozen=True)
class Heading:
    """The head of a column; neighbours of one ``group`` may share a line above their texts."""

    text: str
    group: str = ""
    align: Align = "right"


@dataclass(frozen=True)
class GridCell:
    """One cell, without any mark-up.

    Attributes:
        strong: printed bold: e.g. a value that leads its column.
        spread: behind the text: half the width of an interval or, of several ``seeds``, their standard deviation.
    """

    text: str = ""
    strong: bool = False
    spread: float | None = None
    seeds: int = 1


@dataclass(frozen=True)
class Grid:
    """A table with what is said about it.

    Attributes:
        rows: cells, as many in each as there are headings.
        legend: sentences that explain the signs in the cells.
        notes: about the table and its runs.
        footnotes: texts by the mark that refers to them, e.g. "[1]".
    """

    title: str
    headings: list[Heading]
    rows: list[list[GridCell]]
    legend: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    footnotes: dict[str, str] = field(default_factory=dict)

    def without_empty_columns(self) -> Grid:
        """The grid without columns that no row fills (a cost nobody measured)."""
        filled = [place for place in range(len(self.headings)) if any(row[place].text for row in self.rows)]
        return replace(
            self,
            headings=[self.headings[place] for place in filled],
            rows=[[row[place] for place in filled] for row in self.rows],
        )


def text_row(*texts: str) -> list[GridCell]:
    """A row of plain cells."""
    return [GridCell(text) for text in texts]
