"""``vgbench reproduce``: a paper's table cell by cell: published value, ours, its interval, a verdict.

One YAML in ``configs/paper`` per paper and table says which run, or which checkpoint of the authors, makes which cells.
Published values are looked up in ``published.csv``; the YAML only names the rows. Cells that existing records fill are
taken from them, what is missing is run where its inputs are there, and everything else says why it was not.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from vgbench import record as records
from vgbench.core.errors import UserError
from vgbench.core.files import sha256_prefix, write_atomically
from vgbench.leaderboard import (
    PublishedRow,
    markdown_table,
    metric_title,
    pair_of,
    published_dataset,
    published_metric,
    published_task,
    read_published,
    result_column,
)
from vgbench.record import FILE_NAME, METHOD_FILES, Metric, Record, Result

OWN_KEYS = ("paper", "table", "runs", "checkpoints", "pretrained")
ENDINGS = (".pth", ".pt", ".ckpt", ".safetensors", ".pkl")
_ROW_KEYS = frozenset({"label", "run", "set", "published", "cells", "variants", "jobs"})
_JOB_KEYS = frozenset({"run", "checkpoint", "pretrained", "epoch_samples"})


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        name: of its run folder.
        overrides: Hydra overrides of ``vgbench run`` or ``vgbench eval``.
        checkpoint: name of the authors' file below ``checkpoints=FOLDER``, "shipped" or "shipped:NAME" (weights of
            the suite), or None if none was released.
        pretrained: names of the files below ``pretrained=FOLDER`` that training starts from; None: it cannot be trained
            here (there is no recipe).
        epoch_samples: samples of one training epoch, where no published count of the data set tells.
    """

    name: str
    overrides: tuple[str, ...]
    checkpoint: str | None = None
    pretrained: str | None = None
    epoch_samples: int | None = None

    @property
    def shipped(self) -> bool:
        from vgbench.weights import is_shipped

        return is_shipped(self.checkpoint)


@dataclass(frozen=True)
class Cell:
    """One number of the table. ``job`` is None where nobody can say which run made the published one."""

    row: str
    job: Job | None
    dataset: str  # as published.csv spells it: the split's author is part of the name
    split: str
    task: str
    metric: str
    variant: str
    prediction_set: str
    published: PublishedRow | None = None

    @property
    def where(self) -> str:
        return f"{self.dataset} {self.split} {metric_title(self.metric, self.variant)}"


@dataclass
class Plan:
    """A table: its cells in order, and the jobs that fill them."""

    paper: str
    table: str
    title: str
    cells: list[Cell]
    tolerance: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def jobs(self) -> list[Job]:
        return list(dict.fromkeys(cell.job for cell in self.cells if cell.job is not None))

    def splits(self, job: Job) -> list[str]:
        return list(dict.fromkeys(cell.split for cell in self.cells if cell.job == job))


@dataclass
class Step:
    """What is to be done for a job, in view of what is there.

    Attributes:
        action: "have" (a record fills its cells), "evaluate", "train", or "missing".
        why: for "missing", what is lacking; for "have", where the record is.
        config: the composed configuration; None if it could not be composed.
        hours: estimated GPU hours of the evaluation and of the training, None where nobody can say.
        basis: what the estimates rest on.
    """

    job: Job
    action: Literal["have", "evaluate", "train", "missing"]
    why: str = ""
    record: Record | None = None
    config: Any = None
    hours: tuple[float | None, float | None] = (None, None)
    basis: list[str] = field(default_factory=list)


# The tables ----------------------------------------------------------------------------------------------------------


def available() -> dict[str, list[str]]:
    """Paper -> its tables."""
    found: dict[str, list[str]] = {}
    for file in sorted(Path(str(files("vgbench.configs") / "paper")).glob("*-*.yaml")):
        paper, _, table = file.stem.partition("-")
        found.setdefault(paper, []).append(table)
    return found


def read_plan(paper: str, table: str = "main", published: Sequence[PublishedRow] | None = None) -> Plan:
    """The cells of ``configs/paper/PAPER-TABLE.yaml``.

    Args:
        published: rows of ``published.csv``; None: the ones in the package.

    Raises:
        UserError: if there is no such table, a key of it is not known, or it names published rows that do not exist.
    """
    there = available()
    if table not in there.get(paper, ()):
        listed = ", ".join(f"paper={name} table={'|'.join(tables)}" for name, tables in there.items())
        raise UserError(f"paper={paper} table={table}: there is no such table; there are: {listed}")
    file = Path(str(files("vgbench.configs") / "paper" / f"{paper}-{table}.yaml"))
    return parse_plan(paper, table, yaml.safe_load(file.read_text("utf-8")), str(file), published)


def parse_plan(
    paper: str, table: str, node: Mapping[str, Any], source: str, published: Sequence[PublishedRow] | None = None
) -> Plan:
    """:func:`read_plan` on parsed YAML; ``source`` is named in messages."""
    rows = read_published() if published is None else published
    _known(node, {"title", "notes", "tolerance", "rows"}, source)
    plan = Plan(paper, table, node["title"], [], node.get("tolerance"), list(node.get("notes") or []))
    for line in node["rows"]:
        where = f"{source}: {line.get('label')}"
        _known(line, _ROW_KEYS, where)
        jobs = {key: _job(paper, table, key, line, item or {}, where) for key, item in line["jobs"].items()}
        variants = line.get("variants") or {}
        common = {"prediction_set": line.get("set", "main"), "row": line["label"]}
        if "published" in line:
            wanted = line["published"]
            _known(wanted, set(PublishedRow._fields), where)
            found = [row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())]
            if not found:
                raise UserError(f"{where}: published.csv has no row with {wanted}")
            for row in found:
                metric, variant = published_metric(row)
                plan.cells.append(
                    Cell(
                        job=jobs.get(row.dataset),
                        dataset=row.dataset,
                        split=row.split,
                        task=published_task(row),
                        metric=metric,
                        variant=variants.get(metric, variant),
                        published=row,
                        **common,
                    )
                )
        for dataset, asked in (line.get("cells") or {}).items():
            for split in asked["splits"]:
                for name in asked["metrics"]:
                    task, _, metric = name.partition("/")
                    variant = variants.get(metric, "default")
                    plan.cells.append(Cell(common["row"], jobs[dataset], dataset, split, task, metric, variant,
                                           common["prediction_set"]))  # fmt: skip
    return plan


def _known(node: Mapping[str, Any], keys: frozenset[str] | set[str], where: str) -> None:
    for key in node:
        if key not in keys:
            raise UserError(f"{where}: unknown key {key!r}; there are: {', '.join(sorted(keys))}")


def _job(paper: str, table: str, key: str, line: Mapping[str, Any], item: Mapping[str, Any], where: str) -> Job:
    _known(item, _JOB_KEYS, f"{where}: jobs.{key}")
    overrides = (*line.get("run", ()), *item.get("run", (f"dataset={key}",)))
    method = next(text.partition("=")[2] for text in overrides if text.startswith("method="))
    checkpoint = item.get("checkpoint")
    # a checkpoint tells runs of one method on one data set apart
    tag = (checkpoint or "").partition(".")[0].replace(":", "-")
    name = tag if tag.startswith(f"{method}-") else "-".join(part for part in (method, key, tag) if part)
    return Job(name, overrides, checkpoint, item.get("pretrained"), item.get("epoch_samples"))


# What is there -------------------------------------------------------------------------------------------------------


def _find_file(folder: Path, name: str) -> Path:
    """The file called ``name`` below ``folder``; without an ending, ``name.pth`` and the like, or the only checkpoint
    in a folder of that name.

    Raises:
        UserError: if there is none, or more than one.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if (folder / name).is_file():
        return folder / name
    if Path(name).suffix in (*ENDINGS, ".zip"):
        found = sorted(folder.rglob(name))
    else:
        found = [file for ending in ENDINGS for file in sorted(folder.rglob(name + ending))]
        found += [file for file in sorted(folder.glob(f"**/{name}/*")) if file.suffix in ENDINGS]
    if not found:
        raise UserError(f"no checkpoint {name!r} below {folder}")
    if len(found) > 1:
        raise UserError(f"{len(found)} files below {folder} answer to {name!r}: {found[0]}, {found[1]}; leave one")
    return found[0]


def _plain(node: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(node, resolve=True)
    return plain


def first_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any], leave_out: frozenset[str]) -> str | None:
    """The first key whose values differ, as "key: theirs instead of ours", or None."""
    for key in sorted({*ours, *theirs} - leave_out):
        if ours.get(key) != theirs.get(key):
            return f"{key}: {json.dumps(theirs.get(key))} instead of {json.dumps(ours.get(key))}"
    return None


def reason_against(record: Record, job: Job, config: Any, checkpoint: Path | None) -> str | None:
    """Why a record does not belong to a job; None if it does; "" if it is about something else altogether."""
    theirs = record.config
    method = theirs.get("method") or {}
    if record.provenance != "measured" or method.get("_target_") != config.method._target_:
        return ""
    limited = theirs.get("eval") or {}
    if limited.get("limit") or limited.get("shuffle_text"):
        return "only a part was evaluated, or shuffled text"
    origin = record.checkpoint.origin if record.checkpoint else None
    if job.shipped:
        if origin != "shipped":
            return ""
        assert record.checkpoint is not None
        same = checkpoint is not None and sha256_prefix(checkpoint) == record.checkpoint.sha256
        return None if same else "made with other shipped weights"
    differs = first_difference(_plain(config.method), method, METHOD_FILES)
    if differs:
        return f"method.{differs}"
    if origin == "official":
        assert record.checkpoint is not None
        if checkpoint is not None:
            same = sha256_prefix(checkpoint) == record.checkpoint.sha256
            return None if same else f"evaluates another file ({record.checkpoint.name})"
        named = job.checkpoint and fnmatch.fnmatch(Path(record.checkpoint.name).stem, Path(job.checkpoint).stem)
        return None if named or record.name == job.name else f"evaluates another file ({record.checkpoint.name})"
    if origin != "trained here" or job.pretrained is None:
        return ""
    differs = first_difference(_plain(config.recipe), theirs.get("recipe") or {}, frozenset({"seed"}))
    return f"recipe.{differs}" if differs else None


def find_result(record: Record, cell: Cell) -> tuple[Result, Metric] | None:
    """The result of a record that a cell asks for."""
    for result in record.results:
        author = None if result.embedded else result.split_by
        name = "referit" if cell.dataset == "refclef" else cell.dataset
        if name != published_dataset(result.dataset, author):
            continue
        if (result.split, result.task, result.prediction_set) != (cell.split, cell.task, cell.prediction_set):
            continue
        for name, metric in result.metrics.items():
            if name.lower() == cell.metric and metric.variant == cell.variant:
                return result, metric
    return None


# Planning ------------------------------------------------------------------------------------------------------------


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
    known = records.find([runs]) if runs.is_dir() and any(records.walk(runs)) else []
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
    from vgbench.cli import compose, quoted
    from vgbench.runner import build_data, choices
    from vgbench.weights import resolve

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
                file = _find_file(checkpoints, job.checkpoint)
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
            start = pretrained if job.pretrained == "." else _find_file(pretrained, job.pretrained)
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
    _estimate(step, data, known, plan.splits(job))
    return step


def _no_data(lacking: Sequence[str]) -> bool:
    return any("data_root" in text or "tokenizer" in text for text in lacking)


# Estimates -----------------------------------------------------------------------------------------------------------


def _estimate(step: Step, data: Any, known: Sequence[Record], splits: Sequence[str]) -> None:
    """GPU hours: samples over samples per second.

    The rate is the one that a run of the same method measured on a GPU, or follows from the FLOPs of the method and
    the sustained speed that ``configs/speed.yaml`` assumes. An optimiser step costs three forward passes.
    """
    if step.job.shipped:
        step.hours, step.basis = (0.0, None), ["evaluation of a small model on the CPU"]
        return
    sizes = [data.splits[split].expressions if split in data.splits else None for split in splits]
    evaluation = training = None
    if all(sizes):
        expressions = sum(size or 0 for size in sizes)
        rate, source = _rate(step, known, training=False)
        evaluation = expressions / rate / 3600
        step.basis.append(f"evaluation: {expressions:,} expressions / {rate:,.0f} per s ({source})")
    else:
        step.basis.append("evaluation: no estimate, the size of its splits is not published")
    if step.job.pretrained is not None:
        recipe, counts = step.config.recipe, data.splits.get(step.config.recipe.train_split)
        order = ("refs", "expressions") if recipe.sampling == "object" else ("expressions", "refs")
        published = [getattr(counts, name) for name in order] if counts else []
        one = step.job.epoch_samples or next((count for count in published if count), None)
        if one:
            rate, source = _rate(step, known, training=True)
            training = one * recipe.epochs / rate / 3600
            step.basis.append(f"training: {recipe.epochs} epochs x {one:,} samples / {rate:,.0f} per s ({source})")
    step.hours = evaluation, training


def _rate(step: Step, known: Sequence[Record], training: bool) -> tuple[float, str]:
    """Samples per second and where the number comes from."""
    for record in known:
        cost, gpu = record.cost, record.environment.hardware.gpu
        value = cost.train_samples_per_s if training else cost.inference_samples_per_s
        theirs = record.config.get("method") or {}
        if gpu and value and first_difference(_plain(step.config.method), theirs, METHOD_FILES) is None:
            return value, f"measured by {record.name} on {gpu}"
    speed = yaml.safe_load((files("vgbench.configs") / "speed.yaml").read_text("utf-8"))
    from vgbench.runner import choices

    gflops = speed["forward_gflops"][choices(step.config)["method"]]
    passes = 3 if training else 1
    rate = speed["sustained_tflops"] * 1e3 / (passes * gflops)
    return rate, f"assumed: {passes} x {gflops:g} GFLOPs at {speed['sustained_tflops']:g} TFLOP/s sustained"


# Running and reporting -----------------------------------------------------------------------------------------------


def execute(plan: Plan, step: Step, runs: Path) -> None:
    """Run a step that is due; afterwards it is "have", or "missing" with the reason."""
    from omegaconf import open_dict

    from vgbench import runner

    config = step.config
    with open_dict(config):
        config.run_dir = str(runs / "reproduce" / f"{plan.paper}-{plan.table}" / step.job.name)
        config.eval.splits = plan.splits(step.job)
    try:
        (runner.evaluate if step.action == "evaluate" else runner.run)(config)
    except UserError as error:
        step.action, step.why = "missing", " ".join(str(error).split())
        return
    step.record = records.read(Path(os.environ["VGBENCH_RUN_FOLDER"]))
    step.action, step.why = "have", str(step.record.folder)


@dataclass(frozen=True)
class Line:
    """A cell with its outcome. ``difference`` is ours minus ``reference``."""

    cell: Cell
    reference: float | None
    ours: Metric | None
    difference: float | None
    verdict: str
    run: str = ""

    @property
    def differs(self) -> bool:
        return self.verdict.startswith("differs")


def judge(plan: Plan, cell: Cell, step: Step | None, committed: Path | None = None) -> Line:
    """The verdict on a cell.

    "reproduced": the published value lies in our 95 % interval (give or take its own rounding); where the table states
    a ``tolerance``, our value is that close to the committed one of the same weights on the same data.

    Args:
        committed: folder of committed run folders, the reference of tables without published values.
    """
    published = cell.published.value if cell.published else None
    if step is None:
        return Line(cell, published, None, None, "not run: no run is known to make this cell")
    if step.record is None:
        return Line(cell, published, None, None, f"not run: {step.why}")
    found = find_result(step.record, cell)
    if found is None:
        return Line(cell, published, None, None, f"not run: {step.record.name} did not score it", step.record.name)
    result, metric = found
    run = step.record.name
    if cell.published is None:
        reference, why = _committed_value(step.record, result, cell, committed)
        if reference is None or metric.value is None:
            return Line(cell, None, metric, None, why, run)
        difference = metric.value - reference
        close = abs(difference) <= (plan.tolerance or 0.0)
        return Line(cell, reference, metric, difference, "reproduced" if close else "differs", run)
    if metric.value is None:
        return Line(cell, published, metric, None, "not defined on this split", run)
    pair = pair_of(step.record, result, result_column(result, cell.metric, cell.variant), metric, cell.published)
    against = [note for note in pair.breaking if not (note.startswith("metric variant") or "split author" in note)]
    if against:
        return Line(cell, published, metric, pair.difference, f"not comparable: {'; '.join(against)}", run)
    if metric.low is None or metric.high is None:
        return Line(cell, published, metric, pair.difference, "no interval (eval.bootstrap=0): not judged", run)
    half = 0.05 if round(cell.published.value * 10) == cell.published.value * 10 else 0.005
    inside = metric.low - half <= cell.published.value <= metric.high + half
    return Line(cell, published, metric, pair.difference, "reproduced" if inside else "differs", run)


def _committed_value(record: Record, result: Result, cell: Cell, committed: Path | None) -> tuple[float | None, str]:
    """The committed value of the same weights on the same data, or None and what to say instead."""
    assert cell.job is not None
    if committed is None or not (committed / cell.job.name / FILE_NAME).is_file():
        return None, "measured; nothing published or committed to compare with"
    known = records.read(committed / cell.job.name)
    found = find_result(known, cell)
    if known.checkpoint is None or record.checkpoint is None or known.checkpoint.sha256 != record.checkpoint.sha256:
        return None, "measured; the committed result is of other weights"
    if found is None or found[0].data_hash != result.data_hash:
        return None, "measured; the committed result is on other data"
    return found[1].value, ""


def commit(step: Step, folder: Path) -> Path:
    """Copy a record to ``folder`` (a folder per run), without what only this machine has: predictions and paths.

    Returns:
        The path of the copy.
    """
    assert step.record is not None
    assert step.record.folder is not None
    target = folder / step.job.name
    copy = records.read(step.record.folder)
    for key in ("run_dir", "runs"):
        copy.config[key] = None
    for result in copy.results:
        result.predictions = None
    copy.notes.append("predictions are not kept here; `vgbench reproduce` writes them again")
    if target.exists():
        shutil.rmtree(target)
    return records.write(copy, target)


def format_plan(plan: Plan, steps: Sequence[Step]) -> str:
    """The plan as Markdown."""
    header = ("Run", "What", "Cells", "Evaluate", "Train", "How")
    lines = []
    for step in steps:
        cells = sum(cell.job == step.job for cell in plan.cells)
        hours = ["" if value is None else f"{value:.2g} h" for value in step.hours]
        verb, start = ("run", "pretrained") if step.action == "train" else ("eval", "checkpoint")
        given = "" if step.config is None else f" {start}={step.config[start]}"
        command = f"vgbench {verb} {' '.join(step.job.overrides)}{given}"
        how = {"have": f"record in {step.why}", "missing": step.why}.get(step.action, command)
        what = "cannot be run" if step.action == "missing" else step.action
        lines.append([step.job.name, what, str(cells), *hours, how.replace("|", "/")])
    due = [step for step in steps if step.action != "have"]
    totals = [sum(step.hours[place] or 0.0 for step in due) for place in (0, 1)]
    basis = [f"- {step.job.name}: {text}" for step in due for text in step.basis]
    return (
        "\n\n".join(
            [
                f"# {plan.title}",
                markdown_table(header, lines, frozenset({0, 1, 5})),
                f"What is not there yet, on one GPU: {totals[0]:.2g} hours to evaluate released checkpoints, "
                f"{totals[1]:.2g} hours to train. These are estimates, not measurements, from:",
                "\n".join(basis) or "- nothing to do",
                *_notes(plan),
            ]
        )
        + "\n"
    )


def format_lines(plan: Plan, lines: Sequence[Line]) -> str:
    """The table as Markdown."""
    header = ("Row", "Where", "Published" if any(line.cell.published for line in lines) else "Committed", "Ours",
              "95 % interval", "Difference", "Verdict", "Run")  # fmt: skip
    grid = []
    for line in lines:
        ours = line.ours
        value = "" if ours is None else "n/d" if ours.value is None else f"{ours.value:.2f}"
        interval = "" if ours is None or ours.low is None or ours.high is None else f"{ours.low:.2f}-{ours.high:.2f}"
        reference = "" if line.reference is None else f"{line.reference:.2f}"
        difference = "" if line.difference is None else f"{line.difference:+.2f}"
        cells = [line.cell.row, line.cell.where, reference, value, interval, difference, line.verdict, line.run]
        grid.append([cell.replace("|", "/") for cell in cells])
    done = [line for line in lines if line.ours is not None]
    good = sum(line.verdict == "reproduced" for line in lines)
    summary = (
        f"{len(lines)} cells: {good} reproduced, {sum(line.differs for line in lines)} differ, "
        f"{len(done) - good - sum(line.differs for line in lines)} measured but not judged, {len(lines) - len(done)} "
        "not run."
    )
    table = markdown_table(header, grid, frozenset({0, 1, 6, 7}))
    return "\n\n".join([f"# {plan.title}", table, summary, *_notes(plan)]) + "\n"


def _notes(plan: Plan) -> list[str]:
    return ["\n".join(f"- {note}" for note in plan.notes)] if plan.notes else []


def as_json(plan: Plan, lines: Sequence[Line]) -> str:
    """The table as JSON: one object per cell."""
    content = [
        {
            **{"row": line.cell.row, "dataset": line.cell.dataset, "split": line.cell.split, "task": line.cell.task},
            **{"metric": line.cell.metric, "variant": line.cell.variant, "prediction_set": line.cell.prediction_set},
            "reference": line.reference,
            "source": line.cell.published.source_id if line.cell.published else None,
            **{name: getattr(line.ours, name) if line.ours else None for name in ("value", "low", "high", "n")},
            **{"difference": line.difference, "verdict": line.verdict, "run": line.run},
        }
        for line in lines
    ]
    return (
        json.dumps({"paper": plan.paper, "table": plan.table, "title": plan.title, "cells": content}, indent=1) + "\n"
    )


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
        listed = ", ".join(f"paper={name} table={'|'.join(tables)}" for name, tables in available().items())
        raise UserError(f"reproduce: say which: {listed}")
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
    for step in steps:
        if step.action in ("evaluate", "train"):
            execute(plan, step, runs)
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
    return 1 if strict and any(line.differs for line in lines) else 0
