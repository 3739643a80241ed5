"""A paper's table as a plan: its cells, and the runs that fill them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from vgbench.core.errors import UserError
from vgbench.leaderboard.columns import metric_title
from vgbench.leaderboard.published import PublishedRow, published_metric, published_task, read_published
from vgbench.probes.names import split_and_probe
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
        return f"{self.dataset} {self.split} {metric_title(self.task, self.metric, self.variant)}"


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
        """Every run once."""
        return list(dict.fromkeys(cell.job for cell in self.cells if cell.job is not None))

    @property
    def folder(self) -> str:
        """What its committed records lie below: the paper, and the table where it is not the main one."""
        return self.paper if self.table == "main" else f"{self.paper}-{self.table}"

    def cells_of(self, job: Job) -> list[Cell]:
        """The cells that a job fills."""
        return [cell for cell in self.cells if cell.job == job]

    def splits(self, job: Job) -> list[str]:
        """The splits that a job has to score, those of probes' questions by their plain names."""
        return list(dict.fromkeys(split_and_probe(cell.split)[0] for cell in self.cells_of(job)))

    def probes(self, job: Job) -> list[str]:
        """The probes that a job has to ask: "mirror" of a cell on "val [mirror]"."""
        specs = dict.fromkeys(split_and_probe(cell.split)[1] for cell in self.cells_of(job))
        return [spec for spec in specs if spec]


@dataclass(frozen=True)
class Estimate:
    """GPU hours of an evaluation and of a training, None where nobody can say; ``basis``: what they rest on."""

    evaluation: float | None = None
    training: float | None = None
    basis: tuple[str, ...] = ()


class Need(Enum):
    """What a run cannot do without."""

    CHECKPOINT = "weights of the authors or of the suite"
    DATA = "annotation files"
    METHOD_FILE = "file of the method"
    PRETRAINED = "weights to start from"
    RECIPE = "a recipe"


@dataclass(frozen=True)
class Lack:
    """Something that a run needs and that is not there, and how a reader is told."""

    need: Need
    text: str


@dataclass(frozen=True)
class Step:
    """What is to be done for a job, in view of what is there.

    Attributes:
        action: "have" (a record fills its cells), "evaluate", "train", or "missing".
        why: for "missing", what is lacking; for "have", where the record is.
        config: the composed configuration; None if it could not be composed.
    """

    job: Job
    action: Literal["have", "evaluate", "train", "missing"]
    why: str = ""
    record: Record | None = None
    config: Any = None
    estimate: Estimate = Estimate()


def available() -> dict[str, list[str]]:
    """Paper -> its tables."""
    tables: dict[str, list[str]] = {}
    for file in sorted(Path(str(files("vgbench.configs") / "paper")).glob("*-*.yaml")):
        paper, _, table = file.stem.partition("-")
        tables.setdefault(paper, []).append(table)
    return tables


def listing() -> str:
    """The tables there are, as they are asked for."""
    return ", ".join(f"paper={paper} table={'|'.join(tables)}" for paper, tables in available().items())


def read_plan(paper: str, table: str = "main", published: Sequence[PublishedRow] | None = None) -> Plan:
    """The cells of ``configs/paper/PAPER-TABLE.yaml``.

    Args:
        published: rows of ``published.csv``; None: the ones in the package.

    Raises:
        UserError: if there is no such table, a key of it is not known, or it names published rows that do not exist.
    """
    if table not in available().get(paper, ()):
        raise UserError(f"paper={paper} table={table}: there is no such table; there are: {listing()}")
    file = Path(str(files("vgbench.configs") / "paper" / f"{paper}-{table}.yaml"))
    return parse_plan(paper, table, yaml.safe_load(file.read_text("utf-8")), str(file), published)


def parse_plan(
    paper: str, table: str, node: Mapping[str, Any], source: str, published: Sequence[PublishedRow] | None = None
) -> Plan:
    """:func:`read_plan` on parsed YAML; ``source`` is named in messages."""
    published_rows = read_published() if published is None else published
    _check_keys(node, {"title", "notes", "tolerance", "rows"}, source)
    cells = []
    for row in node["rows"]:
        where = f"{source}: {row.get('label')}"
        _check_keys(row, _ROW_KEYS, where)
        jobs = {key: _job(key, row, item or {}, where) for key, item in row["jobs"].items()}
        if "published" in row:
            cells += _published_cells(row, jobs, published_rows, where)
        cells += _stated_cells(row, jobs)
    return Plan(paper, table, node["title"], cells, node.get("tolerance"), list(node.get("notes") or []))


def _published_cells(
    row: Mapping[str, Any], jobs: Mapping[str, Job], published_rows: Sequence[PublishedRow], where: str
) -> list[Cell]:
    """A cell for every published number that a row of the YAML selects."""
    selection = row["published"]
    _check_keys(selection, set(PublishedRow._fields), where)
    selected = [published for published in published_rows if selection.items() <= published._asdict().items()]
    if not selected:
        raise UserError(f"{where}: published.csv has no row with {selection}")
    variants = row.get("variants") or {}
    cells = []
    for published in selected:
        metric, variant = published_metric(published)
        cells.append(
            Cell(
                row=row["label"],
                job=jobs.get(published.dataset),
                dataset=published.dataset,
                split=published.split,
                task=published_task(published),
                metric=metric,
                variant=variants.get(metric, variant),
                prediction_set=row.get("set", "main"),
                published=published,
            )
        )
    return cells


def _stated_cells(row: Mapping[str, Any], jobs: Mapping[str, Job]) -> list[Cell]:
    """The cells that a row of the YAML states itself, where nothing is published."""
    variants = row.get("variants") or {}
    cells = []
    for dataset, choice in (row.get("cells") or {}).items():
        for split in choice["splits"]:
            for name in choice["metrics"]:
                task, _, metric = name.partition("/")
                cells.append(
                    Cell(
                        row=row["label"],
                        job=jobs[dataset],
                        dataset=dataset,
                        split=split,
                        task=task,
                        metric=metric,
                        variant=variants.get(metric, "default"),
                        prediction_set=row.get("set", "main"),
                    )
                )
    return cells


def _check_keys(node: Mapping[str, Any], keys: frozenset[str] | set[str], where: str) -> None:
    for key in node:
        if key not in keys:
            raise UserError(f"{where}: unknown key {key!r}; there are: {', '.join(sorted(keys))}")


def _job(key: str, row: Mapping[str, Any], item: Mapping[str, Any], where: str) -> Job:
    _check_keys(item, _JOB_KEYS, f"{where}: jobs.{key}")
    overrides = (*row.get("run", ()), *item.get("run", (f"dataset={key}",)))
    method = next(text.partition("=")[2] for text in overrides if text.startswith("method="))
    checkpoint = item.get("checkpoint")
    # a checkpoint tells runs of one method on one data set apart
    tag = (checkpoint or "").partition(".")[0].replace(":", "-")
    name = tag if tag.startswith(f"{method}-") else "-".join(filter(None, (method, key, tag)))
    return Job(name, overrides, checkpoint, item.get("pretrained"), item.get("epoch_samples"))
