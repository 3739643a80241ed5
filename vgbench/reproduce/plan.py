"""A paper's table as a plan: its cells, and the runs that fill them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from vgbench.core.errors import UserError
from vgbench.leaderboard.columns import metric_title
from vgbench.leaderboard.published import (
    PublishedRow,
    published_metric,
    published_task,
    read_published,
)
from vgbench.records.record import Record

OWN_KEYS = ("paper", "table", "runs", "checkpoints", "pretrained")
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
        from vgbench.training.weights import is_shipped

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
