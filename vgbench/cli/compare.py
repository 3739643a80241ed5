"""``vgbench compare``: the leaderboard of run folders."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vgbench.core.errors import UserError

if TYPE_CHECKING:
    from vgbench.core.grid import Grid
    from vgbench.leaderboard.versus import Versus
    from vgbench.records.record import Record

NAME = "compare"
HELP = "Print the leaderboard of run folders."
EXAMPLE = "vgbench compare runs/ --format latex"
TAKES_PLUGINS = True


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument("runs", nargs="*", type=Path, help="run folders, or folders of them (default: runs/)")
    parser.add_argument(
        "--format",
        choices=["markdown", "md", "csv", "json", "latex"],
        help="default: tables that fit the terminal; Markdown in a pipe or a file",
    )
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="short for --format json")
    parser.add_argument("--output", type=Path, help="write to a file instead of the terminal")
    parser.add_argument("--all-metrics", action="store_true", help="every metric, not only a task's headline")
    parser.add_argument("--seeds", action="store_true", help="several seeds of one configuration: mean and deviation")
    parser.add_argument(
        "--published",
        nargs="?",
        const="own",
        choices=["own", "all"],
        help="published numbers beside the measured ones: of the same methods (own) or of every method (all), in the "
        "tables or on the page; without runs: the published numbers alone",
    )
    parser.add_argument("--committed", action="store_true", help="also the results committed with the suite")
    parser.add_argument("--slices", action="store_true", help="two runs: their difference by kind of expression")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="with --slices: draw the disagreements")
    parser.add_argument("--html", type=Path, metavar="DIR", help="write the leaderboard as one static page")
    parser.add_argument("--serve", action="store_true", help="the page at a local address, with the runs under way")
    parser.add_argument("--port", type=int, default=8000, help="with --serve (default: 8000; 0: any that is free)")


def execute(arguments: Namespace) -> int:
    """Find the records, print the leaderboard or write it.

    Raises:
        UserError: if there is no record, a record is bad, ``--slices`` finds other than two runs, or options do not go
            together.
    """
    from vgbench.core.files import write_atomically
    from vgbench.records.store import find

    _check(arguments)
    if arguments.serve:
        return _serve(arguments)
    if not (arguments.runs or arguments.committed or arguments.published or Path("runs").exists()):
        raise UserError(
            "no folder runs/ here, which vgbench run and vgbench demo make; name run folders, or add --committed or "
            "--published"
        )
    records = _without_smoke(find(_places(arguments)), arguments.runs)
    if arguments.html is not None:
        print(write_html(records, arguments.html, arguments.published == "all" or not records))
        return 0
    if arguments.format is None and arguments.output is None and sys.stdout.isatty():
        _show(arguments, records)
        return 0
    text = _text(arguments, records)
    if arguments.output is None:
        print(text, end="")
    else:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(arguments.output, text.encode())
        print(arguments.output)
    return 0


def show(records: Sequence[Record], **options: Any) -> None:
    """Print the leaderboard: as wide as the terminal, as Markdown into a pipe.

    ``options``: as of :func:`vgbench.leaderboard.compare.leaderboard`.
    """
    from vgbench.core.terminal import output
    from vgbench.leaderboard.compare import leaderboard

    output(leaderboard(records, **options))


def write_html(records: Sequence[Record], folder: Path, others: bool = False) -> Path:
    """Write the page; ``others``: with the published numbers of all methods in its tables."""
    from vgbench.leaderboard.page import write_page

    return write_page(records, folder, others=others)


def _serve(arguments: Namespace) -> int:
    from tempfile import TemporaryDirectory

    from vgbench.leaderboard.serve import serve
    from vgbench.records.store import find

    places = _places(arguments)
    with TemporaryDirectory() as folder:

        def page() -> Path | None:
            records = find([place for place in places if any(place.rglob("record.json"))])
            return write_html(records, Path(folder), arguments.published == "all") if records else None

        serve(places, page, arguments.port)
    return 0


def _format(arguments: Namespace) -> Literal["markdown", "csv", "json", "latex"]:
    """The format of a text: Markdown unless another one is asked for."""
    return "markdown" if arguments.format in (None, "md") else arguments.format


def _check(arguments: Namespace) -> None:
    """Raises UserError for options that do not go together."""
    form = _format(arguments)
    if arguments.pictures is not None and not arguments.slices:
        raise UserError("--pictures draws the disagreements of two runs: add --slices")
    of_tables = arguments.slices or arguments.seeds or arguments.output is not None or form != "markdown"
    if (arguments.html is not None or arguments.serve) and of_tables:
        raise UserError("--html and --serve make the page of all runs: leave out --slices, --seeds, --output, --format")
    if arguments.seeds and form in ("csv", "json"):
        raise UserError(f"--seeds: --format {form} holds every run by itself; leave out one of the two")
    if arguments.published == "all" and form in ("csv", "json"):
        raise UserError(f"--published all puts rows into tables; --format {form} holds pairs: --published own")
    if arguments.slices and form != "markdown":
        raise UserError(f"--slices is written as Markdown; leave out --format {form}")


def _places(arguments: Namespace) -> list[Path]:
    """Where to look for records: runs/ if nothing is named, unless the committed or published results are enough."""
    from vgbench.records.store import walk

    places, runs = list(arguments.runs), Path("runs")
    enough = arguments.committed or arguments.published
    if not places and (not enough or (runs.is_dir() and any(walk(runs)))):
        places = [runs]
    if arguments.committed:
        results = Path(str(files("vgbench.leaderboards") / "results"))
        if not results.is_dir():
            raise UserError("--committed: this version of the suite has no committed results")
        places.append(results)
    return places


def _without_smoke(records: Sequence[Record], named: Sequence[Path]) -> Sequence[Record]:
    """Records without those of smoke runs, but for those whose folder was named itself."""
    explicit = {path.resolve() for path in named}
    chosen = [record for record in records if not record.config.get("smoke") or record.folder in explicit]
    if len(chosen) < len(records):
        print(f"note: {len(records) - len(chosen)} smoke runs are left out", file=sys.stderr)
    return chosen


def _options(arguments: Namespace) -> dict[str, Any]:
    from vgbench.leaderboard.published import read_published

    return {
        "all_metrics": arguments.all_metrics,
        "seeds": arguments.seeds,
        "published": read_published() if arguments.published else None,
        "others": arguments.published == "all",
    }


def _text(arguments: Namespace, records: Sequence[Record]) -> str:
    from vgbench.leaderboard.compare import compare

    if not arguments.slices:
        return compare(records, _format(arguments), **_options(arguments))
    from vgbench.core.markdown import markdown
    from vgbench.leaderboard.versus_text import format_versus

    comparisons, stressed = _slices(records)
    parts = [format_versus(comparisons, arguments.pictures)] if comparisons else []
    text = compare(records, _format(arguments), **_options(arguments))
    return "\n".join([text, *parts, *([markdown(stressed)] if stressed else [])])


def _show(arguments: Namespace, records: Sequence[Record]) -> None:
    """The tables, as wide as the terminal."""
    from vgbench.core import terminal
    from vgbench.leaderboard.versus_text import comparison_grids

    grids: list[Grid] = []
    if arguments.slices:
        comparisons, stressed = _slices(records)
        grids = [grid for one in comparisons for grid in comparison_grids(one, arguments.pictures)] + stressed
    show(records, **_options(arguments))
    terminal.show(grids)


def _slices(records: Sequence[Record]) -> tuple[list[Versus], list[Grid]]:
    """The paired tests between two runs: of their answers, and of those to probes.

    Raises:
        UserError: if it is not two runs, or there is nothing to compare.
    """
    from vgbench.leaderboard.stress_versus import versus_grids
    from vgbench.leaderboard.versus import versus

    if len(records) != 2:
        raise UserError(f"--slices compares two runs, found {len(records)}; name two run folders")
    stressed = versus_grids(records[0], records[1])
    return versus(*records, needed=not stressed), stressed
