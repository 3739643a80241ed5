"""``vgbench reproduce``: a paper's table cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from vgbench.core.errors import UserError
from vgbench.core.files import write_atomically
from vgbench.reproduce.commit import commit
from vgbench.reproduce.judge import Outcome, judge
from vgbench.reproduce.plan import OWN_KEYS, listing, read_plan
from vgbench.reproduce.report import as_json, format_lines, format_plan
from vgbench.reproduce.steps import execute, plan_steps


def main(
    own: Mapping[str, str],
    overrides: Sequence[str],
    *,
    dry_run: bool = False,
    commit_to: Path | None = None,
    json_file: Path | None = None,
    strict: bool = False,
) -> int:
    """``vgbench reproduce``.

    Args:
        own: ``paper`` and, optionally, ``table``, ``runs``, ``checkpoints`` and ``pretrained``.
        overrides: configuration overrides for every run.
        dry_run: print the plan and stop.
        commit_to: folder that gets the record of every run, in a subfolder called after the paper.
        json_file: also write the table here.
        strict: exit code 1 if a cell differs.

    Raises:
        UserError: if there is no such table, or an argument is wrong.
    """
    if "paper" not in own:
        raise UserError(f"reproduce: say which: {listing()}")
    for item in overrides:
        key = item.partition("=")[0]
        if key == "run_dir":
            raise UserError("run_dir: every run of a table has a folder of its own; give runs=FOLDER")
        meant = get_close_matches(key, OWN_KEYS, n=1, cutoff=0.8)
        if meant:  # "checkpoint", which each run has its own of, too
            raise UserError(f"{key}: not a key of reproduce; did you mean {meant[0]}=?")
    plan = read_plan(own["paper"], own.get("table", "main"))
    runs = Path(own.get("runs", "runs"))
    if runs.is_file():
        raise UserError(f"runs={runs}: a file; give the folder of run folders")
    places = {key: Path(own[key]).expanduser() if key in own else None for key in ("checkpoints", "pretrained")}
    for key, place in places.items():
        if place is not None and not place.is_dir():
            raise UserError(f"{key}={place}: no such folder")
    steps = plan_steps(plan, overrides, runs, **places, check_data=not dry_run)
    if dry_run:
        print(format_plan(plan, steps), end="")
        return 0
    steps = [execute(plan, step, runs) if step.action in ("evaluate", "train") else step for step in steps]
    committed = Path(str(files("vgbench.leaderboards") / "results" / plan.paper))
    by_job = {step.job: step for step in steps}
    lines = [judge(plan, cell, by_job.get(cell.job) if cell.job else None, committed) for cell in plan.cells]
    print(format_lines(plan, lines), end="")
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(json_file, as_json(plan, lines).encode())
    if commit_to is not None:
        for step in steps:
            if step.record is not None:
                print(commit(step, commit_to / plan.paper))
    return 1 if strict and any(line.outcome is Outcome.DIFFERS for line in lines) else 0
