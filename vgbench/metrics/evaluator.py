"""Predictions and annotation table -> numbers with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgbench.core.grid import Grid, GridCell, Heading, text_row
from vgbench.core.markdown import markdown_table
from vgbench.data.table import AnnotationTable
from vgbench.metrics.base import GroundingMetric, Outcomes, Ratio
from vgbench.metrics.bootstrap import intervals
from vgbench.metrics.catalog import make_metric, primary_metric
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.tasks import task_for, task_of
from vgbench.predictions.checks import check
from vgbench.predictions.reader import align
from vgbench.predictions.table import Predictions
from vgbench.types import Prediction

CHUNK = 2048  # expressions scored at once


@dataclass(frozen=True)
class Score:
    """One number in percent, NaN if it is not defined on this split.

    Attributes:
        task, variant, metric: what it is; ``variant`` is "default" or a named variant.
        value, low, high: with its 95 % bootstrap interval over images (NaN if no resamples were asked for).
        n: expressions that count (for N-acc: those without a target).
        resolution: frame of the boxes and masks, "original" unless the variant says otherwise.
    """

    task: str
    variant: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    resolution: str = "original"

    @property
    def name(self) -> str:
        """``task/metric``, or ``task/variant/metric``."""
        return "/".join([self.task, *([] if self.variant == "default" else [self.variant]), self.metric])


@dataclass
class ScoreReport:
    """Everything that was computed on one split.

    Attributes:
        dataset, split, data_hash: of the table.
        expressions, images: in the table.
        scores: by full name (``rec/prec@0.5``, ``rec/giou/prec@0.5``).
        outcomes: per-expression results by metric (``rec``, ``rec/giou``), for paired tests and slices.
        primary: full name of the number to look at first.
    """

    dataset: str
    split: str
    data_hash: str
    expressions: int
    images: int
    scores: dict[str, Score]
    outcomes: dict[str, Outcomes]
    primary: str

    @property
    def values(self) -> dict[str, float]:
        """Full name -> percent."""
        return {name: score.value for name, score in self.scores.items()}

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the per-expression results; numbers that are not defined are None."""
        scores = {
            name: {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in vars(score).items()}
            for name, score in self.scores.items()
        }
        about = {name: value for name, value in vars(self).items() if name not in ("scores", "outcomes")}
        return {**about, "scores": scores}


class Evaluator:
    """Several metrics on one table, fed batch by batch, on one process or many.

    Args:
        table: the split; the same on every process.
        specs: ``task`` or ``task/variant`` each.
    """

    def __init__(self, table: AnnotationTable, specs: Sequence[str]) -> None:
        self.table = table
        self.metrics: dict[str, GroundingMetric] = {spec: make_metric(spec) for spec in dict.fromkeys(specs)}
        self._row = {key: row for row, key in enumerate(table.column("key"))}

    def update(self, keys: Sequence[str], predictions: Sequence[Prediction]) -> None:
        """Add the predictions of a batch, as the method returned them."""
        self.add(Predictions.from_list(keys, predictions), np.array([self._row[key] for key in keys], dtype=np.int64))

    def add(self, predictions: Predictions, rows: np.ndarray) -> None:
        """Add predictions of known rows of the table."""
        pairs = Pairs(predictions, self.table, rows)
        for metric in self.metrics.values():
            metric.update(pairs)

    def outcomes(self) -> dict[str, Outcomes]:
        """Per-expression results of all processes, by metric."""
        return {spec: metric.outcomes() for spec, metric in self.metrics.items()}

    def compute(self) -> dict[str, float]:
        """Full name -> percent, over all processes."""
        return {
            f"{spec}/{name}": ratio.value
            for spec, outcomes in self.outcomes().items()
            for name, ratio in outcomes.ratios.items()
        }

    def report(self, bootstrap: int = 1000, seed: int = 0) -> ScoreReport:
        """Numbers with 95 % intervals from ``bootstrap`` resamples of the images (0: no intervals)."""
        images = self.table.column("image_id")
        outcomes = self.outcomes()
        scores: dict[str, Score] = {}
        for spec, result in outcomes.items():
            bounds = intervals(result.ratios, images[result.rows], bootstrap, seed) if bootstrap else {}
            for name, ratio in result.ratios.items():
                score = _score(self.metrics[spec], name, ratio, bounds.get(name, (math.nan, math.nan)))
                scores[score.name] = score
        default = [spec for spec in self.metrics if "/" not in spec]
        return ScoreReport(
            dataset=str(self.table.info.get("dataset", "")),
            split=str(self.table.info.get("split", "")),
            data_hash=self.table.hash,
            expressions=len(self.table),
            images=len(np.unique(images)),
            scores=scores,
            outcomes=outcomes,
            primary=primary_metric(default) if default else next(iter(scores)),
        )


def _score(metric: GroundingMetric, name: str, ratio: Ratio, bounds: tuple[float, float]) -> Score:
    return Score(
        task=metric.task.name,
        variant=metric.variant or "default",
        metric=name,
        value=ratio.value,
        low=bounds[0],
        high=bounds[1],
        n=int((ratio.den > 0).sum()),
        resolution=metric.resolution,
    )


def default_tasks(table: AnnotationTable, predictions: Predictions) -> list[str]:
    """The tasks that both the annotations and the predictions allow, as they declare it (:class:`Task`).

    Each part of a prediction is scored by what the data are made for, or else by the suite's task for that part.
    """
    purpose = task_of(str(table.info.get("task") or ""))
    answers = {
        "boxes": len(predictions.boxes) > 0,
        "point": predictions.has("point") or predictions.has("heatmap"),
        "mask": table.has_masks and predictions.has("mask"),
    }

    def name(answer: str) -> str:
        return purpose.name if purpose.answer == answer else task_for(answer, purpose.generalised).name

    return [name(answer) for answer, predicted in answers.items() if predicted] or [name("boxes")]


def authors_metrics(own: Sequence[str], tasks: Sequence[str]) -> list[str]:
    """Those of a dataset's :attr:`~vgbench.data.dataset.GroundingData.own_metrics` that are computed from the same
    predictions as ``tasks``."""
    named = {spec: make_metric(spec).task for spec in own}
    return [
        spec for spec, task in named.items() if task.name in tasks or (task.on_request and task.is_predicted(tasks))
    ]


def evaluate_predictions(
    table: AnnotationTable,
    predictions: Predictions,
    tasks: Sequence[str] = (),
    variants: Sequence[str] = (),
    bootstrap: int = 1000,
    seed: int = 0,
) -> ScoreReport:
    """Score predictions of a whole split.

    Args:
        table: the annotations.
        predictions: of every expression, in any order.
        tasks: names of tasks; none: :func:`default_tasks`.
        variants: further metrics, ``task/variant``.
        bootstrap: resamples for the intervals; 0: none.
        seed: of the bootstrap.

    Raises:
        UserError: if keys do not fit the table, or a metric cannot be computed on this data.
    """
    check(predictions, "predictions", "row")
    aligned = align(predictions, table)
    evaluator = Evaluator(table, [*(tasks or default_tasks(table, aligned)), *variants])
    for metric in evaluator.metrics.values():
        metric.sync_on_compute = False  # every process that gets here has all predictions
    for start in range(0, len(table), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(table)))
        evaluator.add(aligned.take(rows), rows)
    return evaluator.report(bootstrap, seed)


def report_grid(report: ScoreReport) -> Grid:
    """Value, interval and count of every metric; the one to look at first is strong."""
    title = (
        f"{report.dataset} {report.split}: {report.expressions} expressions, {report.images} images "
        f"(data {report.data_hash[:12]})"
    )
    headings = [Heading("metric", align="left"), Heading("%"), Heading("95 % interval", align="centre"), Heading("n")]
    rows = []
    for name, score in report.scores.items():
        frame = "" if score.resolution == "original" else f" ({score.resolution})"
        value = "not defined" if math.isnan(score.value) else f"{score.value:.2f}"
        interval = "" if math.isnan(score.low) else f"{score.low:.2f} to {score.high:.2f}"
        rows.append([GridCell(name + frame, strong=name == report.primary), *text_row(value, interval, str(score.n))])
    return Grid(title, headings, rows)


def format_report(report: ScoreReport) -> str:
    """The grid of a report as Markdown, its title a line above."""
    grid = report_grid(report)
    return f"{grid.title}\n\n{markdown_table(grid, padded=False)}"


def flat_metrics(reports: Mapping[str, ScoreReport], outputs: Sequence[str]) -> dict[str, float]:
    """Metric values by full name; of several outputs by ``output:name`` too, the bare name being the best."""
    flat: dict[str, float] = {}
    for name, report in reports.items():
        for metric, value in report.values.items():
            if len(outputs) > 1:
                flat[f"{name}:{metric}"] = value
            flat[metric] = max(value, flat.get(metric, value))
    return flat
