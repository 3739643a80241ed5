"""Two runs against each other as Markdown, and pictures of where they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vgbench.data.images import open_image_file
from vgbench.data.pixels import IMAGE_ERRORS, as_rgb
from vgbench.leaderboard.columns import metric_title, task_title
from vgbench.leaderboard.grid import Grid, GridCell, Heading, text_row
from vgbench.leaderboard.markdown import markdown_table
from vgbench.leaderboard.versus import Slice, Versus
from vgbench.pictures import draw

_EXPLANATION = (
    "p: paired permutation test, exchanging the two image by image; intervals: paired bootstrap over images. "
    "*: significant at 5 % (slices: after Holm's correction for all of them)."
)


def format_versus(comparisons: Sequence[Versus], pictures: Path | None = None) -> str:
    """Markdown of :func:`~vgbench.leaderboard.versus.versus`; with ``pictures``, the disagreements are drawn into
    folders below it."""
    parts = []
    for comparison in comparisons:
        slices = _slices_grid(comparison)
        parts += [f"## {slices.title}", markdown_table(slices, padded=False), _EXPLANATION]
        if comparison.disagreements:
            disagreements = _disagreements_grid(comparison)
            parts += [f"{disagreements.title}:", markdown_table(disagreements, padded=False)]
        if pictures is not None:
            folder = pictures / _folder_name(comparison)
            parts.append(f"Pictures: {draw_disagreements(comparison, folder)} in {folder}")
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
    return Grid(title, headings, [_slice_row(line) for line in comparison.slices])


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
