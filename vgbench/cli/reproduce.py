"""``vgbench reproduce``: a paper's table cell by cell."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from vgbench.config.compose import split_overrides
from vgbench.core.errors import UserError

if TYPE_CHECKING:
    from vgbench.reproduce.judge import Line
    from vgbench.reproduce.plan import Plan, Step

NAME = "reproduce"
HELP = "Make a paper's table: published value, ours, interval, verdict; runs what is missing."
EXAMPLE = "vgbench reproduce paper=simvg table=main data_root=data checkpoints=released method.tokenizer=beit3.spm"
TAKES_PLUGINS = True

OVERRIDES = (
    "paper=... [table=main] [runs=FOLDER] [checkpoints=FOLDER: the authors' files] [pretrained=FOLDER: start weights] "
    "and, for each run, data_root=..., method.tokenizer=..., trainer=gpu"
)


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    parser.add_argument("--dry-run", action="store_true", help="print the plan with estimated GPU hours and stop")
    parser.add_argument("--commit-to", type=Path, metavar="DIR", help="copy the records to DIR/PAPER[-TABLE]/RUN")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table as JSON")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a cell differs")


def execute(arguments: Namespace) -> int:
    """Plan the table's runs, run what is missing, judge every cell.

    Raises:
        UserError: if there is no such table, or an argument is wrong.
    """
    from vgbench.reproduce import plan as plans
    from vgbench.reproduce import report, steps
    from vgbench.reproduce.judge import Outcome

    own, overrides = split_overrides(arguments.overrides, *plans.OWN_KEYS)
    _check(own, overrides)
    plan = plans.read_plan(own["paper"], own.get("table", "main"))
    runs = Path(own.get("runs", "runs"))
    if runs.is_file():
        raise UserError(f"runs={runs}: a file; give the folder of run folders")
    checkpoints, pretrained = _folder(own, "checkpoints"), _folder(own, "pretrained")
    todo = steps.plan_steps(plan, overrides, runs, checkpoints, pretrained, check_data=not arguments.dry_run)
    if arguments.dry_run:
        report.print_page(plan, report.plan_grid(plan, todo))
        return 0
    done = [steps.execute(plan, step, runs) if step.action in ("evaluate", "train") else step for step in todo]
    lines = _judged(plan, done)
    report.print_page(plan, report.lines_grid(plan, lines))
    _write(arguments, plan, done, lines)
    return 1 if arguments.strict and any(line.outcome is Outcome.DIFFERS for line in lines) else 0


def _check(own: Mapping[str, str], overrides: Sequence[str]) -> None:
    """Raises UserError for keys that are missing or not meant."""
    from vgbench.reproduce.plan import OWN_KEYS, listing

    if "paper" not in own:
        raise UserError(f"reproduce: say which: {listing()}")
    for item in overrides:
        key = item.partition("=")[0]
        if key == "run_dir":
            raise UserError("run_dir: every run of a table has a folder of its own; give runs=FOLDER")
        meant = get_close_matches(key, OWN_KEYS, n=1, cutoff=0.8)
        if meant:  # "checkpoint", which each run has its own of, too
            raise UserError(f"{key}: not a key of reproduce; did you mean {meant[0]}=?")


def _folder(own: Mapping[str, str], key: str) -> Path | None:
    folder = Path(own[key]).expanduser() if key in own else None
    if folder is not None and not folder.is_dir():
        raise UserError(f"{key}={folder}: no such folder")
    return folder


def _judged(plan: Plan, done: Sequence[Step]) -> list[Line]:
    """Every cell of the table with its verdict."""
    from vgbench.reproduce.judge import judge

    committed = Path(str(files("vgbench.leaderboards") / "results" / plan.folder))
    by_job = {step.job: step for step in done}
    return [judge(plan, cell, by_job.get(cell.job) if cell.job else None, committed) for cell in plan.cells]


def _write(arguments: Namespace, plan: Plan, done: Sequence[Step], lines: Sequence[Line]) -> None:
    """The table as JSON and the records, where they are wished."""
    from vgbench.core.files import write_atomically
    from vgbench.reproduce.commit import commit
    from vgbench.reproduce.report import as_json

    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(arguments.json, as_json(plan, lines).encode())
    if arguments.commit_to is not None:
        for step in done:
            if step.record is not None:
                print(commit(step, arguments.commit_to / plan.folder))
