"""What is there already for a table, what is missing, and running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vgbench.config.identity import method_class
from vgbench.core.errors import MissingData, UserError
from vgbench.data.dataset import GroundingData
from vgbench.records import store
from vgbench.records.record import Record
from vgbench.reproduce.estimate import estimate
from vgbench.reproduce.existing import Misfit, Mismatch, find_file, find_result, misfit, other_questions
from vgbench.reproduce.plan import Job, Lack, Need, Plan, Step


@dataclass(frozen=True)
class Inputs:
    """What the user gives for every run: overrides, and folders of checkpoints to evaluate and to start from."""

    overrides: tuple[str, ...]
    checkpoints: Path | None
    pretrained: Path | None


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
    records = store.find([runs]) if runs.is_dir() and any(store.walk(runs)) else []
    inputs = Inputs(tuple(overrides), checkpoints, pretrained)
    return [_step(plan, job, inputs, records, check_data) for job in plan.jobs]


def _step(plan: Plan, job: Job, inputs: Inputs, records: Sequence[Record], check_data: bool) -> Step:
    """A record if one fits; else the run that the inputs allow, or what it lacks; with the hours it takes."""
    from vgbench.config.compose import compose
    from vgbench.training.setup import build_data

    config = compose([*job.overrides, *inputs.overrides])
    checkpoint = locate_checkpoint(job, config, inputs.checkpoints)
    if job.shipped and isinstance(checkpoint, Lack):
        return Step(job, "missing", checkpoint.text)
    data = build_data(config)
    file = checkpoint if isinstance(checkpoint, Path) else None
    record, unfit = find_record(plan, job, config, file, records, data if check_data else None)
    if record is not None:
        return Step(job, "have", str(record.folder), record, config)
    lacks = lacking_inputs(plan, job, config, data)
    step = choose_action(job, config, inputs, checkpoint, lacks)
    if step.action == "missing":
        step = replace(step, why="; ".join([*unfit[:1], *([step.why] if step.why else [])]))
    return replace(step, estimate=estimate(job, config, data, plan.splits(job), records))


def locate_checkpoint(job: Job, config: Any, folder: Path | None) -> Path | Lack | None:
    """The file that a job evaluates, or why it is not here; None if none was released."""
    from vgbench.training.setup import choices
    from vgbench.training.weights import resolve

    if job.checkpoint is None:
        return None
    try:
        if job.shipped:
            return resolve(job.checkpoint, choices(config)["method"], choices(config)["dataset"])
        if folder is None:
            return Lack(Need.CHECKPOINT, f"checkpoints=FOLDER with {job.checkpoint!r} is not given")
        return find_file(folder, job.checkpoint)
    except UserError as error:
        return Lack(Need.CHECKPOINT, str(error))


def find_record(
    plan: Plan, job: Job, config: Any, checkpoint: Path | None, records: Sequence[Record], data: GroundingData | None
) -> tuple[Record | None, list[str]]:
    """The record that fills all cells of a job, or None and why those about its cells do not count.

    Args:
        data: the job's dataset, if rendered data are to be compared with what a record was scored on.
    """
    cells = plan.cells_of(job)
    notes = []
    for record in records:
        reason = misfit(record, job, config, checkpoint)
        if reason is None and plan.probes(job):
            reason = other_questions(record, config)
        if reason is None and data is not None and data.embedded:
            reason = _other_data(record, data, plan.splits(job))
        if reason is None and all(find_result(record, cell) for cell in cells):
            return record, []
        if (
            reason is not None
            and reason.mismatch is not Mismatch.SUBJECT
            and any(find_result(record, cell) for cell in cells)
        ):
            notes.append(f"{record.name} does not count: {reason.text}")
    return None, notes


def _other_data(record: Record, data: GroundingData, splits: Sequence[str]) -> Misfit | None:
    """Whether plain splits are others now, or the first expressions of them that stress tests may be limited to."""
    limit = (record.config.get("eval") or {}).get("stress_limit")
    hashes: dict[str, set[str]] = {}
    for split in splits:
        table = data.load(split)
        hashes[split] = {table.hash, table.take(range(min(limit or len(table), len(table)))).hash}
    if all(result.data_hash in hashes.get(result.split, {result.data_hash}) for result in record.results):
        return None
    return Misfit(Mismatch.DATA, "scored on other data than this version's")


def lacking_inputs(plan: Plan, job: Job, config: Any, data: GroundingData) -> list[Lack]:
    """What neither an evaluation nor a training of a job can do without, and is not there."""
    lacks = []
    if not data.embedded:
        try:
            for split in plan.splits(job):
                data.sources(split)
        except MissingData as error:
            lacks.append(Lack(Need.DATA, f"{error.dataset}: {error.problem}: data_root=FOLDER is needed"))
        except UserError as error:
            lacks.append(Lack(Need.DATA, f"{error}: data_root=FOLDER is needed"))
    if not job.shipped:
        for option in sorted(method_class(config.method).required_files):
            if config.method.get(option) is None:
                lacks.append(Lack(Need.METHOD_FILE, f"method.{option}=FILE is not given"))
    return lacks


def choose_action(job: Job, config: Any, inputs: Inputs, checkpoint: Path | Lack | None, lacks: Sequence[Lack]) -> Step:
    """Evaluate the checkpoint if it is here, else train from the start weights if they are; else say what is lacking.

    Args:
        checkpoint: of :func:`locate_checkpoint`.
        lacks: of :func:`lacking_inputs`: with any of them nothing can be run.
    """
    from vgbench.config.compose import compose
    from vgbench.config.paths import quoted

    overrides = [*job.overrides, *inputs.overrides]
    if isinstance(checkpoint, Path) and not lacks:
        # shipped weights by their name: the record says "shipped"
        value = f"'{job.checkpoint}'" if job.shipped else quoted(checkpoint)
        return Step(job, "evaluate", config=compose([*overrides, f"checkpoint={value}"]))
    start = None if job.shipped else locate_start(job, inputs.pretrained, open_folder=not lacks)
    if isinstance(start, Path) and not lacks:
        return Step(job, "train", config=compose([*overrides, f"pretrained={quoted(start)}"]))
    all_lacks = [checkpoint, *lacks, start]
    return Step(job, "missing", "; ".join(lack.text for lack in all_lacks if isinstance(lack, Lack)), config=config)


def locate_start(job: Job, folder: Path | None, open_folder: bool = True) -> Path | Lack:
    """The file or folder that a training starts from, or why there is none.

    Args:
        open_folder: look for the file; else the folder stands for it.
    """
    if job.pretrained is None:
        return Lack(Need.RECIPE, "no official recipe to train it here")
    if folder is None:
        files = "" if job.pretrained == "." else f" with {job.pretrained!r}"
        return Lack(Need.PRETRAINED, f"nor pretrained=FOLDER{files} to train from")
    if job.pretrained == "." or not open_folder:
        return folder
    try:
        return find_file(folder, job.pretrained)
    except UserError as error:
        return Lack(Need.PRETRAINED, str(error))


def execute(plan: Plan, step: Step, runs: Path) -> Step:
    """Run a step that is due; returns it as "have", or as "missing" with the reason."""
    from omegaconf import open_dict

    from vgbench.training import run

    config = step.config
    with open_dict(config):
        config.run_dir = str(runs / "reproduce" / f"{plan.paper}-{plan.table}" / step.job.name)
        config.eval.splits = plan.splits(step.job)
        config.eval.stress = plan.probes(step.job)
    work = run.run if step.action == "train" else run.stress if plan.probes(step.job) else run.evaluate
    try:
        result = work(config)
    except UserError as error:
        return replace(step, action="missing", why=" ".join(str(error).split()))
    record = store.read(result.folder)
    return replace(step, action="have", why=str(record.folder), record=record)
