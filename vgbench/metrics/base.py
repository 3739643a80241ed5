"""What all metrics share: pairs of prediction and annotation, per-expression states, ratios of sums, named variants.

Every reported number is a ratio of two sums over expressions (``mIoU = sum IoU / sum 1``, ``oIoU = sum I / sum U``,
``N-acc = sum rejected / sum no-target``), so one mechanism serves values, slices and bootstrap.
"""

from __future__ import annotations

import dataclasses
import sys
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from vgbench.core.errors import UserError
from vgbench.metrics.frames import Array
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.tasks import Task
from vgbench.predictions.table import Predictions


class Ratio(NamedTuple):
    """Contribution of each expression, float64 [n], to numerator and denominator of a metric (as a fraction)."""

    num: Array
    den: Array

    @property
    def value(self) -> float:
        """In percent; NaN if the metric is not defined (no expression counts)."""
        total = self.den.sum()
        return float(100.0 * self.num.sum() / total) if total else float("nan")


@dataclass(frozen=True)
class Outcomes:
    """Per-expression results of a metric.

    Attributes:
        rows: rows of the annotation table that were scored, increasing.
        ratios: by metric name; ``miou.num`` is the list of IoUs, ``oiou`` has intersections and unions.
    """

    rows: Array
    ratios: dict[str, Ratio]

    def take(self, indices: Array) -> Outcomes:
        """Some of the expressions, by position in :attr:`rows` (or a boolean mask)."""
        ratios = {name: Ratio(ratio.num[indices], ratio.den[indices]) for name, ratio in self.ratios.items()}
        return Outcomes(self.rows[indices], ratios)


def batch_means(ratio: Ratio, size: int) -> Ratio:
    """The metric of every ``size`` consecutive expressions, averaged over these batches; undefined batches count 0."""
    batch = np.arange(len(ratio.num)) // size
    total = np.bincount(batch, weights=ratio.den)[batch] if len(batch) else ratio.den
    num = np.divide(ratio.num, total, out=np.zeros(len(ratio.num)), where=total != 0)
    return Ratio(num, 1.0 / np.bincount(batch)[batch] if len(batch) else ratio.den)


@dataclass(frozen=True)
class Variant:
    """A named change of a metric's rule.

    Attributes:
        change: fields of the rule and their values.
        note: whose evaluator it is and what differs, one line.
        number: field of the rule that ``name@number`` sets.
        headline: its numbers that are computed by kind of expression too; empty: none.
    """

    change: Mapping[str, Any]
    note: str
    number: str | None = None
    headline: tuple[str, ...] = ()


class GroundingMetric:
    """Base class. One row of numbers per expression is kept, keyed by its row in the table and gathered over
    processes; an expression that a padded sampler handed out twice counts once.

    All of it is NumPy, so that predictions are scored without PyTorch; for a training loop of one's own
    ``vgbench.GroundingMeter`` gives the same numbers as a :class:`torchmetrics.Metric`.

    Args:
        variant: "" for the default, or names of :attr:`variants` joined by "+", e.g. ``gt_clip+batch_mean@32``.

    Raises:
        UserError: for an unknown variant, or a number where none belongs or one is missing.
    """

    task: ClassVar[Task]
    variants: ClassVar[Mapping[str, Variant]]
    Rule: ClassVar[type]

    def __init__(self, variant: str = "") -> None:
        self.variant = variant
        self.rule: Any = resolve(self.task.name, self.Rule(), self.variants, variant)
        self.sync_on_compute = True  # whoever has all predictions by itself turns it off
        self.values: list[Array] = []  # [n, 1 + columns] each: the row in the table, then the columns

    @property
    def spec(self) -> str:
        """``task`` or ``task/variant``."""
        return f"{self.task.name}/{self.variant}" if self.variant else self.task.name

    @property
    def headline(self) -> tuple[str, ...]:
        """The numbers that are computed by kind of expression too."""
        if not self.variant:
            return self.task.headline
        named = (self.variants[part.partition("@")[0]].headline for part in self.variant.split("+"))
        return tuple(dict.fromkeys(name for names in named for name in names))

    @property
    def resolution(self) -> str:
        """The frame that boxes and masks are compared in, as reports name it: "original", "canvas", "480x480", ..."""
        return "original"

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers that are kept of each expression."""

    @abstractmethod
    def measure(self, pairs: Pairs) -> dict[str, Array]:
        """The :attr:`columns` of each expression, [n] each."""

    @abstractmethod
    def ratios(self, columns: dict[str, Array]) -> dict[str, Ratio]:
        """Metrics from the :attr:`columns` of all expressions, in the order of the table."""

    def note(self, predictions: Predictions) -> str | None:
        """What the predictions of a split make necessary to say beside the numbers, one line; usually nothing."""
        return None

    def update(self, pairs: Pairs) -> None:
        """Add the expressions of ``pairs``."""
        self.values.append(self.numbers(pairs))

    def numbers(self, pairs: Pairs) -> Array:
        """What is kept of the expressions of ``pairs``: float64 [n, 1 + columns], the row in the table first."""
        columns = self.measure(pairs)
        return np.column_stack([pairs.rows, *(columns[name] for name in self.columns)]).astype(np.float64)

    def reset(self) -> None:
        """Forget all expressions."""
        self.values = []

    def outcomes(self) -> Outcomes:
        """Per-expression results: of all processes of a ``torch.distributed`` group, if there is one; of this one only,
        if ``sync_on_compute`` is off."""
        values = np.concatenate([np.zeros((0, 1 + len(self.columns))), *self.values])
        return self.outcomes_of(np.concatenate(_gathered(values)) if self.sync_on_compute else values)

    def outcomes_of(self, values: Array) -> Outcomes:
        """Results from rows of :meth:`numbers`, in any order; of an expression that is there twice the first counts."""
        rows, first = np.unique(values[:, 0].astype(np.int64), return_index=True)
        return Outcomes(rows, self.ratios(dict(zip(self.columns, values[first, 1:].T, strict=True))))

    def compute(self) -> dict[str, np.float64]:
        """Metrics in percent, over all processes; NaN where a metric is not defined."""
        return {name: np.float64(ratio.value) for name, ratio in self.outcomes().ratios.items()}


def _gathered(values: Array) -> list[Array]:
    """The arrays of all processes, in their order. PyTorch is not imported for it: who has a group has imported it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return [values]
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, values)
    return parts


def resolve(task: str, rule: Any, variants: Mapping[str, Variant], text: str) -> Any:
    """Apply the named variants of ``text`` to a rule."""
    for part in filter(None, text.split("+")):
        name, _, number = part.partition("@")
        if name not in variants:
            raise UserError(f"{task}/{text}: no variant {name!r} of {task}; there are: {', '.join(variants)}")
        variant = variants[name]
        change = dict(variant.change)
        if number:
            if variant.number is None or not number.isdigit() or int(number) < 1:
                raise UserError(f"{task}/{text}: {name} takes no number {number!r}; write {task}/{name}")
            change[variant.number] = int(number)
        elif not change:
            raise UserError(f"{task}/{text}: {name} needs a number; write e.g. {task}/{name}@50")
        rule = dataclasses.replace(rule, **change)
    return rule
