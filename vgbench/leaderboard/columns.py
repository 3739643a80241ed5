"""What has to agree for two numbers to stand below each other, and what a column is called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from vgbench.metrics.tasks import task_of
from vgbench.records.record import Metric, Record, Result

SPLITS = ("val", "testA", "testB", "test")


@cache
def dataset_order() -> tuple[str, ...]:
    """Names of the data sets that tables show first: a file, since their classes would take a second to import."""
    return tuple((files("vgbench.leaderboards") / "order.txt").read_text("utf-8").split())


def place(value: str, order: Sequence[str]) -> tuple[int, str]:
    """Sort key: the place in an order, and by name behind it."""
    return (order.index(value) if value in order else len(order), value)


class Split(NamedTuple):
    """A split by its names, whichever version of its data was scored."""

    embedded: bool
    task: str
    dataset: str
    split_by: str | None
    split: str


class Column(NamedTuple):
    """What has to agree for two numbers to stand below each other; ``control`` is empty for the real thing."""

    embedded: bool
    task: str
    dataset: str
    split_by: str | None
    split: str
    data_hash: str
    metric: str
    variant: str
    control: str

    @property
    def where(self) -> str:
        """Data set, split author, split; embedded data has only one author."""
        author = None if self.embedded else self.split_by
        return " ".join(part for part in (self.dataset, author, self.split) if part)

    @property
    def named_split(self) -> Split:
        """The split that the column is about, without its metric."""
        return Split(self.embedded, self.task, self.dataset, self.split_by, self.split)

    @property
    def title(self) -> str:
        """The metric, e.g. "Prec@0.5 (giou)"."""
        return metric_title(self.task, self.metric, self.variant, self.control)

    def sort_key(self) -> tuple[Any, ...]:
        """The order of columns: task, data set, split, version of the data, headline metrics before others."""
        task = task_of(self.task)
        headline = task.headline
        return (
            self.embedded,
            task.order,
            task.name,
            place(self.dataset, dataset_order()),
            self.split_by or "",
            place(self.split, SPLITS),
            self.data_hash,
            headline.index(self.metric) if self.metric in headline else len(headline),
            self.metric,
            self.variant != "default",
            self.variant,
            self.control,
        )


def headlines(task: str, variant: str) -> tuple[str, ...]:
    """The metrics that are looked at first: those of the task, and of a variant those that it names itself."""
    own = task_of(task).headline
    if variant == "default":
        return own
    from vgbench.metrics.catalog import headline  # brings numpy along, which a table of records need not wait for

    return (*own, *headline(task, variant))


def metric_title(task: str, metric: str, variant: str = "default", control: str = "") -> str:
    """E.g. "Prec@0.5 (giou) [shuffled text]"."""
    title = task_of(task).metric_title(metric)
    return title + (f" ({variant})" if variant != "default" else "") + (f" [{control}]" if control else "")


def task_title(task: str, embedded: bool) -> str:
    """Heading of a task's table."""
    return f"{task_of(task).title} on {'embedded (rendered)' if embedded else 'real'} data"


def row_label(record: Record, result: Result) -> str:
    """E.g. "SimVG-TB base" or "AMC / heat_box": the prediction set where there are several, method, variant."""
    output_label = record.set_labels.get(result.prediction_set)
    label = " ".join(part for part in (output_label or record.label or record.method, record.variant) if part)
    return label if output_label or result.prediction_set == "main" else f"{label} / {result.prediction_set}"


def inference_rate(record: Record, prediction_set: str) -> float | None:
    """Samples per second of a prediction set: alone, if that was measured."""
    return record.cost.set_samples_per_s.get(prediction_set, record.cost.inference_samples_per_s)


def tokens_per_answer(record: Record) -> float | None:
    """Tokens of a question, its picture included, and of its answer, on average; None where nobody counted."""
    counts = (record.cost.prompt_tokens, record.cost.answer_tokens)
    return None if None in counts else sum(count or 0 for count in counts)


def price_per_1000(record: Record) -> float | None:
    """US dollars for 1,000 expressions; None where tokens were not counted or no price was given."""
    cost = record.cost
    parts = ((cost.prompt_tokens, cost.prompt_price), (cost.answer_tokens, cost.answer_price))
    if any(tokens is None or price is None for tokens, price in parts):
        return None
    return sum((tokens or 0.0) * (price or 0.0) for tokens, price in parts) / 1e6 * 1000


def provenance(record: Record) -> str:
    """E.g. "measured, official": who made the numbers, and the weights."""
    return f"{record.provenance}, {record.checkpoint.origin}" if record.checkpoint else record.provenance


def numbers(result: Result) -> Iterable[tuple[Column, Metric]]:
    """Every metric of a result, controls included, with the column it belongs to."""
    for control, metrics in {"": result.metrics, **result.controls}.items():
        for name, metric in metrics.items():
            yield result_column(result, name, metric.variant, control), metric


def result_column(result: Result, metric: str, variant: str, control: str = "") -> Column:
    """The column that a metric of a result stands in."""
    return Column(
        result.embedded,
        result.task,
        result.dataset,
        result.split_by,
        result.split,
        result.data_hash,
        metric.lower(),
        variant,
        control,
    )
