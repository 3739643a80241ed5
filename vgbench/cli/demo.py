"""``vgbench demo``: from nothing to a leaderboard, without data of one's own."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from vgbench.cli import compare, run
from vgbench.core.errors import UserError

NAME = "demo"
HELP = "Train the default method on the embedded data, print its leaderboard, write it as a page: minutes, no data."
EXAMPLE = "vgbench demo"
TAKES_PLUGINS = False


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as of vgbench run, e.g. runs=FOLDER")


def execute(arguments: Namespace) -> int:
    """Train, compare, write the page: a line for each step.

    Raises:
        UserError: as ``vgbench run`` and ``vgbench compare``.
    """
    from vgbench.records.store import find

    started = time.monotonic()
    runs = Path(next((item[len("runs=") :] for item in arguments.overrides if item.startswith("runs=")), "runs"))
    if runs.is_file():
        raise UserError(f"{runs}: a file; give the folder of run folders: runs=FOLDER")

    def step(number: int, text: str) -> None:
        print(f"[{number}/3] {text}", flush=True)

    step(1, "render the embedded data (once), fine-tune a small model on it, evaluate it")
    code = run.train(["method=alvg", "dataset=refshapes", *arguments.overrides])
    if code:
        return code
    step(2, f"vgbench compare {runs}")
    records = find([runs])
    compare.show(records)
    step(3, f"vgbench compare {runs} --html {runs / 'page'}")
    page = compare.write_html(records, runs / "page")
    minutes = (time.monotonic() - started) / 60
    print(f"done in {minutes:.1f} minutes; open {page} in a browser")
    return 0
