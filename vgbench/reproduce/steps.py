"""What is there already for a table, what is missing, and running it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vgbench.core.errors import UserError
from vgbench.records import store
from vgbench.records.record import Record
from vgbench.reproduce.estimate import estimate
from vgbench.reproduce.existing import find_file, find_result, reason_against
from vgbench.reproduce.plan import Job, Plan, Step


def plan_steps(
    plan: Plan,
    overrides: Sequence[str],
    runs: Path,
    checkpoints: Path | None,
    pretrained: Path | None,
    *,
    check_data: bool = True,
) -> list[Step]:
    """What is to be done for every job of a table.

    Args:
        overrides: of the user, for every run (``data_root=...``, ``method.tokenizer=...``, ``trainer=gpu``).
        runs: where existing records are looked for.
        checkpoints: folder of the authors' checkpoints.
        pretrained: folder of the checkpoints that trainings start from.
        check_data: look at the data that records were made with, too (generates the embedded data if need be).
    """
    known = store.find([runs]) if runs.is_dir() and any(store.walk(runs)) else []
    return [_step(plan, job, overrides, known, checkpoints, pretrained, check_data) for job in plan.jobs]


def _step(
    plan: Plan,
    job: Job,
    overrides: Sequence[str],
    known: Sequence[Record],
    checkpoints: Path | None,
    pretrained: Path | None,
    check_data: bool,
) -> Step:
    from vgbench.config.compose import compose, quoted
    from vgbench.training.setup import build_data, choices
    from vgbench.training.weights import resolve

    config = compose([*job.overrides, *overrides])
    file: Path | None = None
    lacking = []
    if job.shipped:
        chosen = choices(config)
        try:
            file = resolve(str(job.checkpoint), chosen["method"], chosen["dataset"])
        except UserError as error:
            return Step(job, "missing", str(error))
    elif job.checkpoint is not None:
        if checkpoints is None:
            lacking.append(f"checkpoints=FOLDER with {job.checkpoint!r} is not given")
        else:
            try:
                file = find_file(checkpoints, job.checkpoint)
            except UserError as error:
                lacking.append(str(error))

    data = build_data(config)
    unfit = []
    for record in known:
        against = reason_against(record, job, config, file)
        if against is None and data.embedded and check_data:
            fresh = {split: data.load(split).hash for split in plan.splits(job)}
            stale = any(fresh.get(result.split) not in (None, result.data_hash) for result in record.results)
            against = "scored on other data than this version's" if stale else None
        wanted = [cell for cell in plan.cells if cell.job == job]
        if against is None and all(find_result(record, cell) for cell in wanted):
            return Step(job, "have", str(record.folder), record, config)
        if against and any(find_result(record, cell) for cell in wanted):
            unfit.append(f"{record.name} does not count: {against}")

    step = Step(job, "missing", config=config)
    if not data.embedded:
        try:
            for split in plan.splits(job):
                data.sources(split)
        except UserError as error:
            short = str(error).partition("; set data_root")[0] + ": data_root=FOLDER is needed"
            lacking, file = [*lacking, short], None
    if not job.shipped and config.method.get("tokenizer", "") is None:
        lacking, file = [*lacking, "method.tokenizer=FILE is not given"], None
    if file is not None:
        chosen_file = f"'{job.checkpoint}'" if job.shipped else quoted(file)  # by name: its record says "shipped"
        step.action, step.config = "evaluate", compose([*job.overrides, *overrides, f"checkpoint={chosen_file}"])
    elif job.pretrained is not None and pretrained is not None and not _no_data(lacking):
        try:
            start = pretrained if job.pretrained == "." else find_file(pretrained, job.pretrained)
            step.action, step.config = "train", compose([*job.overrides, *overrides, f"pretrained={quoted(start)}"])
        except UserError as error:
            lacking.append(str(error))
    elif job.pretrained is not None and pretrained is None:
        held = "" if job.pretrained == "." else f" with {job.pretrained!r}"
        lacking.append(f"nor pretrained=FOLDER{held} to train from")
    elif job.pretrained is None and not job.shipped:
        lacking.append("no official recipe to train it here")
    if step.action == "missing":
        step.why = "; ".join([*unfit[:1], *lacking])
    estimate(step, data, known, plan.splits(job))
    return step


def _no_data(lacking: Sequence[str]) -> bool:
    return any("data_root" in text or "tokenizer" in text for text in lacking)


def execute(plan: Plan, step: Step, runs: Path) -> None:
    """Run a step that is due; afterwards it is "have", or "missing" with the reason."""
    from omegaconf import open_dict

    from vgbench.training import run

    config = step.config
    with open_dict(config):
        config.run_dir = str(runs / "reproduce" / f"{plan.paper}-{plan.table}" / step.job.name)
        config.eval.splits = plan.splits(step.job)
    try:
        result = (run.evaluate if step.action == "evaluate" else run.run)(config)
    except UserError as error:
        step.action, step.why = "missing", " ".join(str(error).split())
        return
    step.record = store.read(result.folder)
    step.action, step.why = "have", str(step.record.folder)
