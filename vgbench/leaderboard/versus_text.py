"""Two runs against each other as tables, and pictures of where they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vgbench.core.grid import Grid, GridCell, Heading, text_row
from vgbench.core.markdown import markdown_table
from vgbench.data.images import open_image_file
from vgbench.data.pixels import IMAGE_ERRORS, as_rgb
from vgbench.leaderboard.columns import metric_title, task_title
from vgbench.leaderboard.versus import Slice, Versus
from vgbench.pictures import draw

_EXPLANATION = (
    "p: paired permutation test, exchanging the two image by image; intervals: paired bootstrap over images. "
    "*: significant at 5 % (slices: after Holm's correction for all of them)."
)


def comparison_grids(comparison: Versus, pictures: Path | None = None) -> list[Grid]:
    """The slices of :func:`~vgbench.leaderboard.versus.versus`, then the disagreements, if there are any; with
    ``pictures``, these are drawn into a folder below it."""
    grids = [_slices_grid(comparison)]
    if comparison.disagreements:
        grids.append(_disagreements_grid(comparison))
    if pictures is not None:
        folder = pictures / _folder_name(comparison)
        note = f"Pictures: {draw_disagreements(comparison, folder)} in {folder}"
        grids[-1] = replace(grids[-1], notes=[note])
    return grids


def format_versus(comparisons: Sequence[Versus], pictures: Path | None = None) -> str:
    """The tables of :func:`comparison_grids` as Markdown."""
    parts = []
    for comparison in comparisons:
        for place, grid in enumerate(comparison_grids(comparison, pictures)):
            parts += [f"{grid.title}:" if place else f"## {grid.title}", markdown_table(grid, padded=False)]
            parts += [*grid.legend, *grid.notes]
    return "\n\n".join(parts) + "\n"


def _where(comparison: Versus) -> str:
    result = comparison.result
    author = None if result.embedded else result.split_by
    return " ".join(filter(None, (result.dataset, author, result.split)))


def _folder_name(comparison: Versus) -> str:
    result = comparison.result
    sets = "" if result.prediction_set == "main" else f"-{result.prediction_set}"
    return f"{_where(comparison).replace(' ', '-')}-{result.task}{sets}"


def _slices_grid(comparison: Versus) -> Grid:
    first, second, result = comparison.first, comparison.second, comparison.result
    title = (
        f"{second} against {first}: {_where(comparison)}, {metric_title(result.task, comparison.metric)} "
        f"({task_title(result.task, result.embedded)})"
    )
    headings = [
        Heading("slice", align="left"),
        Heading(first),
        Heading(second),
        Heading("difference"),
        Heading("95 % interval", align="centre"),
        Heading("p"),
        Heading("expressions"),
        Heading("images"),
    ]
    return Grid(title, headings, [_slice_row(line) for line in comparison.slices], [_EXPLANATION])


def _slice_row(line: Slice) -> list[GridCell]:
    test = line.test
    name = GridCell(f"{line.rule}: {line.bucket}") if line.rule else GridCell("all", strong=True)
    return [
        name,
        *text_row(
            f"{line.first:.2f}",
            f"{line.second:.2f}",
            f"{test.difference:+.2f}{' *' if line.significant else ''}",
            f"{test.low:+.2f} to {test.high:+.2f}",
            f"{test.p_permutation:.3f}",
            str(test.n),
            str(test.images),
        ),
    ]


def _disagreements_grid(comparison: Versus) -> Grid:
    headings = [
        Heading("expression", align="left"),
        Heading(comparison.first),
        Heading(comparison.second),
        Heading("key", align="left"),
    ]
    rows = [
        text_row(entry.expression, f"{entry.first:.1f}", f"{entry.second:.1f}", entry.key)
        for entry in comparison.disagreements
    ]
    title = f"Largest disagreements ({metric_title(comparison.result.task, comparison.gradual)})"
    return Grid(title, headings, rows)


def draw_disagreements(comparison: Versus, folder: Path) -> int:
    """NN.png for every listed disagreement and sheet.png into ``folder``; returns how many could be drawn."""
    pictures = []
    for number, entry in enumerate(comparison.disagreements):
        row = comparison.table.row(entry.row)
        first, second = (predictions.answer(entry.row) for predictions in comparison.predictions)
        answers = {comparison.first: first, comparison.second: second}
        try:
            with open_image_file(comparison.data.image_path(row.image)) as image:
                pictures.append(draw.draw(as_rgb(image), row.expression, row, answers, size=360))
        except IMAGE_ERRORS:
            continue
        draw.save(pictures[-1], folder / f"{number:02d}.png")
    if pictures:
        draw.save(draw.contact_sheet(pictures), folder / "sheet.png")
    return len(pictures)
