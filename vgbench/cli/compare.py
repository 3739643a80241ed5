"""``vgbench compare``: the leaderboard of run folders."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal

from vgbench.core.errors import UserError
from vgbench.core.files import write_atomically
from vgbench.leaderboard.compare import Format, compare
from vgbench.leaderboard.published import read_published
from vgbench.records.store import find


def main(
    paths: Sequence[Path],
    format: Format = "markdown",
    output: Path | None = None,
    *,
    all_metrics: bool = False,
    seeds: bool = False,
    published: Literal["own", "all"] | None = None,
    slices: bool = False,
    pictures: Path | None = None,
    html: Path | None = None,
    committed: bool = False,
) -> int:
    """``vgbench compare``: find the records below ``paths``, print the leaderboard or write it to ``output``.

    Args:
        published: "own": measured against published numbers of the same methods; "all": of every method, too.
        slices: two runs only: their difference by kind of expression, tested, and where they disagree most.
        pictures: with ``slices``, folder for pictures of the disagreements.
        html: write the page into this folder instead of printing tables.
        committed: also the committed results of the suite (``leaderboards/results``).

    Raises:
        UserError: if there is no record, a record is bad, ``slices`` finds other than two runs, or options do not go
            together.
    """
    if pictures is not None and not slices:
        raise UserError("--pictures draws the disagreements of two runs: add --slices")
    if html is not None and (slices or seeds or output is not None or format != "markdown"):
        raise UserError("--html writes the page of all runs: leave out --slices, --seeds, --output and --format")
    if seeds and format in ("csv", "json"):
        raise UserError(f"--seeds: --format {format} holds every run by itself; leave out one of the two")
    if published == "all" and format in ("csv", "json"):
        raise UserError(f"--published all puts rows into tables; --format {format} holds pairs: --published own")
    if slices and format != "markdown":
        raise UserError(f"--slices is written as Markdown; leave out --format {format}")
    places = [*paths]
    if committed:
        results = Path(str(files("vgbench.leaderboards") / "results"))
        if not results.is_dir():
            raise UserError("--committed: this version of the suite has no committed results")
        places.append(results)
    records = find(places)
    if html is not None:
        from vgbench.leaderboard.page import write_page

        print(write_page(records, html))
        return 0
    text = compare(
        records,
        format,
        all_metrics=all_metrics,
        seeds=seeds,
        published=read_published() if published else None,
        others=published == "all",
    )
    if slices:
        if len(records) != 2:
            raise UserError(f"--slices compares two runs, found {len(records)}; name two run folders")
        from vgbench.leaderboard.versus import versus
        from vgbench.leaderboard.versus_text import format_versus

        text += "\n" + format_versus(versus(*records), pictures)
    if output is None:
        print(text, end="")
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, text.encode())
        print(output)
    return 0
