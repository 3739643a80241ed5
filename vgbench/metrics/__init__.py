"""Metrics: they read predictions and the annotation table, never a model."""

from __future__ import annotations

from vgbench.core import registry
from vgbench.core.errors import UserError
from vgbench.metrics.base import GroundingMetric, Outcomes, Ratio
from vgbench.metrics.grec import GREC
from vgbench.metrics.gres import GRES
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.pointing import Pointing
from vgbench.metrics.rec import REC
from vgbench.metrics.recall import Recall
from vgbench.metrics.res import RES

__all__ = [
    "METRICS",
    "GroundingMetric",
    "Outcomes",
    "Pairs",
    "Ratio",
    "available",
    "catalog",
    "make_metric",
    "primary_metric",
]

METRICS: dict[str, type[GroundingMetric]] = {metric.task: metric for metric in (REC, GREC, Pointing, RES, GRES, Recall)}


def make_metric(spec: str) -> GroundingMetric:
    """The metric of ``task`` or ``task/variant``, e.g. ``rec``, ``rec/giou``, ``rec/gt_clip+batch_mean@32``.

    Raises:
        UserError: for an unknown task or variant.
    """
    task, _, variant = spec.partition("/")
    known = available()
    if task not in known:
        raise UserError(f"{spec}: no task {task!r}; there are: {', '.join(known)}")
    return known[task](variant)


def available() -> dict[str, type[GroundingMetric]]:
    """Task -> metric: ours first, then those of plugins (entry-point group ``vgbench.metrics``, ``--plugin``)."""
    return {**METRICS, **{name: registry.metrics.load(name) for name in registry.metrics if name not in METRICS}}


def primary_metric(tasks: tuple[str, ...] | list[str]) -> str:
    """Full name (``task/metric``) of the metric that selects checkpoints, e.g. ``rec/prec@0.5``.

    Of several tasks the first in the order of :func:`available` counts: boxes before masks.
    """
    known = available()
    for task, metric in known.items():
        if task in tasks:
            return f"{task}/{metric.primary}"
    raise UserError(f"no known task among {', '.join(tasks) or 'none'}; there are: {', '.join(known)}")


def catalog() -> dict[str, dict[str, str]]:
    """Task -> named variants -> what differs from the default, one line each."""
    return {task: {name: item.note for name, item in metric.variants.items()} for task, metric in available().items()}
