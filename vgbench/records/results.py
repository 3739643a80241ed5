"""Reports of the metrics -> results of a record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from vgbench.metrics import slices
from vgbench.metrics.evaluator import ScoreReport
from vgbench.records.record import Metric, Result
from vgbench.training.evaluation import Evaluation


def split_results(
    evaluation: Evaluation,
    name: str,
    report: ScoreReport,
    controls: Mapping[str, ScoreReport],
    folder: Path,
    leaked: int | None,
) -> list[Result]:
    """The results of one prediction set for the record: one per metric and variant."""
    data = evaluation.data
    published = data.splits[evaluation.split].expressions if evaluation.split in data.splits else None
    results = []
    for spec in report.outcomes:
        task, _, variant = spec.partition("/")
        wanted = (task, variant or "default")
        results.append(
            Result(
                dataset=data.name,
                split=evaluation.split,
                split_by=data.split_by,
                embedded=data.embedded,
                task=task,
                data_hash=report.data_hash,
                expressions=report.expressions,
                images=report.images,
                expected_expressions=published,
                leaked_images=leaked,
                metrics=_metrics(report, wanted),
                controls={control: _metrics(held, wanted) for control, held in controls.items()},
                slices={} if variant else slices.headline(report.outcomes[spec], task, evaluation.table),
                prediction_set=name,
                resolution=next(s.resolution for s in report.scores.values() if (s.task, s.variant) == wanted),
                predictions=str(evaluation.file(name).relative_to(folder)),
            )
        )
    return results


def _metrics(report: ScoreReport, wanted: tuple[str, str]) -> dict[str, Metric]:
    def defined(value: float) -> float | None:
        return None if math.isnan(value) else value

    return {
        score.metric: Metric(defined(score.value), score.n, defined(score.low), defined(score.high), score.variant)
        for score in report.scores.values()
        if (score.task, score.variant) == wanted
    }
