"""Tables on a terminal: never wider than it is, and the same numbers as in Markdown."""

import io
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from rich.console import Console

from vgbench.core.grid import Grid, GridCell, Heading, text_row
from vgbench.core.terminal import output_lines, parts, shared_ends, show, wrapped
from vgbench.leaderboard.compare import compare, leaderboard
from vgbench.leaderboard.page import write_page
from vgbench.leaderboard.published import read_published
from vgbench.records.store import find

COMMITTED = Path(str(files("vgbench.leaderboards") / "results"))


def shown(grids: list[Grid], width: int) -> str:
    out = io.StringIO()
    show(grids, Console(file=out, width=width, highlight=False))
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 100, 200])
def test_tables_of_the_committed_runs_fit(width: int) -> None:
    text = shown(leaderboard(find([COMMITTED])), width)
    assert max(map(len, text.splitlines())) <= width
    assert "87.78 ±1.60" in text and "87.78** ±1.60" in compare(find([COMMITTED]))


def test_a_wide_table_comes_in_parts_led_by_its_first_column() -> None:
    headings = [Heading("name", align="left"), *(Heading(f"column {number}") for number in range(6))]
    grid = Grid("wide", headings, [text_row("a", *"123456"), text_row("b", *"789012")])
    assert parts(grid, 40) == [[0, 1, 2, 3], [0, 4, 5, 6]]
    assert parts(grid, 100) == [[0, 1, 2, 3, 4, 5, 6]]
    assert parts(grid, 5) == [[0, place] for place in range(1, 7)]
    lines = shown([grid], 40).splitlines()
    assert [line.split() for line in lines if line.startswith("a")] == [["a", "1", "2", "3"], ["a", "4", "5", "6"]]


def test_lines_of_text_are_columns_in_a_pipe_and_fit_a_terminal(
    capsys: pytest.CaptureFixture[str], terminal_lines: Callable[[Callable[[], object]], list[str]]
) -> None:
    rows = [["images", "3,600", "400"], ["words", "the one object left right plain", "the small object"]]
    output_lines(rows, ["", "train", "val"])
    assert capsys.readouterr().out.splitlines()[2] == "images  3,600                            400"
    output_lines([["a", "1"]], title="costs")
    assert capsys.readouterr().out == "\ncosts\na  1\n"
    wide = [[*row, row[1], row[2]] for row in rows]
    lines = terminal_lines(lambda: output_lines(wide, ["", "train", "val", "testA", "testB"]))
    assert max(map(len, lines)) <= 80 and sum(line.startswith("images") for line in lines) == 2
    assert terminal_lines(lambda: output_lines([["a", "1"]], title="costs"))[1:] == ["costs", "a   1"]


def test_folded_cells_start_on_the_line_of_their_row() -> None:
    words = " ".join(["word"] * 12)
    headings = [Heading("name", align="left"), Heading("text", align="left")]
    rows = shown([Grid("t", headings, [text_row("a", words)])], 40).splitlines()[4:]
    assert rows[0].startswith("a      word") and rows[1].startswith("       word")


def test_what_all_runs_share_is_said_once() -> None:
    notes = ["A: x (config 1, commit c)", "B: y (config 2, commit c)", "no brackets"]
    assert list(shared_ends(notes)) == ["A: x (config 1)", "B: y (config 2)", "no brackets", "all of these: commit c"]
    assert list(shared_ends(["A: x (config 1)"])) == ["A: x (config 1)"]


def test_markup_in_names_is_text() -> None:
    grid = Grid("[bold]t[/bold]", [Heading("[red]h", align="left")], [[GridCell("[link=x]c")]])
    text = shown([grid], 80)
    assert "[bold]t[/bold]" in text and "[red]h" in text and "[link=x]c" in text


def test_published_numbers_need_no_run(tmp_path: Path) -> None:
    rows = read_published()
    text = compare([], published=rows)
    assert "## REC on real data" in text and "InternVL" in text
    one = next(row for row in rows if (row.method, row.dataset, row.split) == ("TransVG", "refcoco", "testA"))
    line = next(line for line in text.splitlines() if line.startswith("| TransVG, R-50") and f"{one.value:.2f}" in line)
    assert "djiajunustc" in line or "arXiv" in line
    page = write_page([], tmp_path, others=True).read_text()
    assert "InternVL2.5-78B" in page
    assert "InternVL2.5-78B" not in write_page(find([COMMITTED]), tmp_path).read_text()


def test_lists_go_on_below_themselves_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], terminal_lines: Callable[[Callable[[], object]], list[str]]
) -> None:
    line = "  name         " + "word " * 30 + "end"
    wrapped(line, 15)
    assert capsys.readouterr().out == f"{line}\n"
    first, *others = terminal_lines(lambda: wrapped(line, 15))
    assert len(first) <= 80 and all(other.startswith(" " * 15 + "word") for other in others)
