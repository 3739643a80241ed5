"""All tasks and metrics: the suite's own and those of plug-ins."""

from __future__ import annotations

import functools
from collections.abc import Collection
from pkgutil import resolve_name

from vgbench.core import registry
from vgbench.core.errors import UserError
from vgbench.metrics.base import GroundingMetric
from vgbench.metrics.tasks import SUITE, Task, task_of


def tasks() -> dict[str, Task]:
    """By name: ours first, boxes before masks, then those of plug-ins (``vgbench.metrics`` entry points, ``--plugin``).

    Of several tasks that a run scores, the first one in this order selects checkpoints.
    """
    return {name: task_of(name) for name in (*SUITE, *(name for name in registry.metrics if name not in SUITE))}


def metric_class(task: str) -> type[GroundingMetric]:
    """The class that measures a task of :func:`tasks`."""
    return resolve_name(SUITE[task].metric) if task in SUITE else registry.metrics.load(task)


def make_metric(spec: str) -> GroundingMetric:
    """The metric of ``task`` or ``task/variant``, e.g. ``rec``, ``rec/giou``, ``rec/gt_clip+batch_mean@32``.

    Raises:
        UserError: for an unknown task or variant.
    """
    task, _, variant = spec.partition("/")
    if task not in tasks():
        raise UserError(f"{spec}: no task {task!r}; there are: {', '.join(tasks())}")
    return metric_class(task)(variant)


def primary_metric(names: Collection[str]) -> str:
    """Full name (``task/metric``) of the metric that selects checkpoints, e.g. ``rec/prec@0.5``.

    Raises:
        UserError: if none of ``names`` is a task.
    """
    for name, task in tasks().items():
        if name in names:
            return f"{name}/{task.primary}"
    raise UserError(f"no known task among {', '.join(names) or 'none'}; there are: {', '.join(tasks())}")


@functools.cache
def headline(task: str, variant: str = "default") -> tuple[str, ...]:
    """The numbers of a task, or of a variant of its metric, that are looked at first: those that tables show and slices
    are made of. A variant that is not known here (a plug-in's) has none."""
    if variant == "default":
        return task_of(task).headline
    try:
        return make_metric(f"{task}/{variant}").headline
    except UserError:
        return ()


def variants() -> dict[str, dict[str, str]]:
    """Task -> named variants -> what differs from the default, one line each."""
    return {task: {name: variant.note for name, variant in metric_class(task).variants.items()} for task in tasks()}
