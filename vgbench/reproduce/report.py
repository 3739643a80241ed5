"""Plans and verdicts as text and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from vgbench.leaderboard.markdown import markdown_table
from vgbench.reproduce.judge import Line
from vgbench.reproduce.plan import Plan, Step


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
