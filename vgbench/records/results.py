"""Reports of the metrics -> results of a record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgbench.data.content import content_hashes
from vgbench.data.dataset import GroundingData
from vgbench.data.table import AnnotationTable
from vgbench.metrics import slices
from vgbench.metrics.evaluator import ScoreReport
from vgbench.records.record import Metric, Result


@dataclass(frozen=True)
class ScoredOutput:
    """One output of a model on one split, scored.

    Attributes:
        dataset, split: what it was scored on.
        table: the expressions that were scored.
        report: their scores.
        controls: scores of control experiments, by name.
        output: name of the output.
        predictions: its predictions file, below the run folder.
        leaked_images: images of the split that the model was trained on; None: not known.
        slices: by metric, rule and bucket, where they are not the usual ones.
    """

    dataset: GroundingData
    split: str
    table: AnnotationTable
    report: ScoreReport
    controls: Mapping[str, ScoreReport]
    output: str
    predictions: Path | None
    leaked_images: int | None = None
    slices: Mapping[str, Mapping[str, Mapping[str, slices.SliceScore]]] | None = None


def results_of(scored: ScoredOutput) -> list[Result]:
    """The results for the record: one per metric and variant."""
    dataset, split, report = scored.dataset, scored.split, scored.report
    published = dataset.splits[split].expressions if split in dataset.splits else None
    content = content_hashes(scored.table)
    results = []
    for spec in report.outcomes:
        task, _, variant = spec.partition("/")
        key = (task, variant or "default")
        results.append(
            Result(
                dataset=dataset.name,
                split=split,
                split_by=dataset.split_by,
                embedded=dataset.embedded,
                task=task,
                data_hash=report.data_hash,
                expressions=report.expressions,
                images=report.images,
                expected_expressions=published,
                leaked_images=scored.leaked_images,
                metrics=_metrics(report, key),
                controls={name: _metrics(control, key) for name, control in scored.controls.items()},
                slices=_slices(scored.slices) if scored.slices is not None else _usual_slices(scored, spec),
                prediction_set=scored.output,
                resolution=next(s.resolution for s in report.scores.values() if (s.task, s.variant) == key),
                predictions=None if scored.predictions is None else str(scored.predictions),
                content=content,
            )
        )
    return results


def _usual_slices(scored: ScoredOutput, spec: str) -> dict[str, Any]:
    """The headline metrics of a task or variant by kind of expression."""
    variant = spec.partition("/")[2] or "default"
    return _slices(slices.headline(scored.report.outcomes[spec], spec, scored.table), variant)


def _slices(
    scores: Mapping[str, Mapping[str, Mapping[str, slices.SliceScore]]], variant: str = "default"
) -> dict[str, Any]:
    """Scores by metric, rule and bucket as the record stores them."""
    return {
        metric: {
            rule: {
                bucket: Metric(score.value, score.n, _defined(score.low), _defined(score.high), variant)
                for bucket, score in buckets.items()
            }
            for rule, buckets in rules.items()
        }
        for metric, rules in scores.items()
    }


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _metrics(report: ScoreReport, key: tuple[str, str]) -> dict[str, Metric]:
    return {
        score.metric: Metric(_defined(score.value), score.n, _defined(score.low), _defined(score.high), score.variant)
        for score in report.scores.values()
        if (score.task, score.variant) == key
    }
