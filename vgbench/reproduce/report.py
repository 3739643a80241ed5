"""Plans and verdicts as tables, text and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vgbench.core.grid import Grid, Heading, text_row
from vgbench.core.markdown import bullets, markdown_table
from vgbench.core.terminal import output
from vgbench.reproduce.judge import Line, Outcome
from vgbench.reproduce.plan import Plan, Step


def plan_grid(plan: Plan, steps: Sequence[Step]) -> Grid:
    """What is there, what would be run and how long it may take, a row for each run."""
    headings = [
        Heading("Run", align="left"),
        Heading("What", align="left"),
        Heading("Cells"),
        Heading("Evaluate"),
        Heading("Train"),
        Heading("How", align="left"),
    ]
    rows = []
    for step in steps:
        cells = len(plan.cells_of(step.job))
        hours = [
            "" if value is None else f"{value:.2g} h" for value in (step.estimate.evaluation, step.estimate.training)
        ]
        what = "cannot be run" if step.action == "missing" else step.action
        rows.append(text_row(step.job.name, what, str(cells), *hours, _how(step)))
    due = [step for step in steps if step.action != "have"]
    evaluation = sum(step.estimate.evaluation or 0.0 for step in due)
    training = sum(step.estimate.training or 0.0 for step in due)
    basis = [f"{step.job.name}: {text}" for step in due for text in step.estimate.basis]
    estimates = (
        f"What is not there yet, on one GPU: {evaluation:.2g} hours to evaluate released checkpoints, "
        f"{training:.2g} hours to train. These are estimates, not measurements, from:"
    )
    return Grid(plan.title, headings, rows, [estimates], basis or ["nothing to do"])


def _how(step: Step) -> str:
    """The command of a step that is due; else where the record is, or what is lacking."""
    if step.action == "have":
        return f"record in {step.why}"
    if step.action == "missing":
        return step.why
    verb, start = ("run", "pretrained") if step.action == "train" else ("eval", "checkpoint")
    return f"vgbench {verb} {' '.join(step.job.overrides)} {start}={step.config[start]}"


def lines_grid(plan: Plan, lines: Sequence[Line]) -> Grid:
    """Published, measured and verdict, a row for each cell of the table."""
    headings = [
        Heading("Row", align="left"),
        Heading("Where", align="left"),
        Heading("Published" if any(line.cell.published for line in lines) else "Committed"),
        Heading("Ours"),
        Heading("95 % interval"),
        Heading("Difference"),
        Heading("Verdict", align="left"),
        Heading("Run", align="left"),
    ]
    rows = [
        text_row(
            line.cell.row,
            line.cell.where,
            "" if line.reference is None else f"{line.reference:.2f}",
            *_ours(line),
            "" if line.difference is None else f"{line.difference:+.2f}",
            line.verdict,
            line.run,
        )
        for line in lines
    ]
    measured = sum(line.ours is not None for line in lines)
    reproduced = sum(line.outcome is Outcome.REPRODUCED for line in lines)
    different = sum(line.outcome is Outcome.DIFFERS for line in lines)
    summary = (
        f"{len(lines)} cells: {reproduced} reproduced, {different} differ, {measured - reproduced - different} "
        f"measured but not judged, {len(lines) - measured} not run."
    )
    return Grid(plan.title, headings, rows, [summary])


def _ours(line: Line) -> tuple[str, str]:
    """The measured value and its interval."""
    ours = line.ours
    if ours is None:
        return "", ""
    value = "n/d" if ours.value is None else f"{ours.value:.2f}"
    interval = "" if ours.low is None or ours.high is None else f"{ours.low:.2f}-{ours.high:.2f}"
    return value, interval


def print_page(plan: Plan, grid: Grid) -> None:
    """A grid and the notes of the plan: as wide as the terminal, as Markdown into a pipe."""
    output([replace(grid, notes=[*grid.notes, *plan.notes])], page_text(plan, grid))


def page_text(plan: Plan, grid: Grid) -> str:
    """A grid and the notes of the plan as Markdown."""
    lists = [bullets(notes) for notes in (grid.notes, plan.notes) if notes]
    return "\n\n".join([f"# {grid.title}", markdown_table(grid), *grid.legend, *lists]) + "\n"


def as_json(plan: Plan, lines: Sequence[Line]) -> str:
    """The table as JSON: one object per cell."""
    content = {
        "paper": plan.paper,
        "table": plan.table,
        "title": plan.title,
        "cells": [_json_cell(line) for line in lines],
    }
    return json.dumps(content, indent=1) + "\n"


def _json_cell(line: Line) -> dict[str, Any]:
    cell, ours = line.cell, line.ours
    return {
        "row": cell.row,
        "dataset": cell.dataset,
        "split": cell.split,
        "task": cell.task,
        "metric": cell.metric,
        "variant": cell.variant,
        "prediction_set": cell.prediction_set,
        "reference": line.reference,
        "source": cell.published.source_id if cell.published else None,
        "value": ours.value if ours else None,
        "low": ours.low if ours else None,
        "high": ours.high if ours else None,
        "n": ours.n if ours else None,
        "difference": line.difference,
        "verdict": line.verdict,
        "run": line.run,
    }
