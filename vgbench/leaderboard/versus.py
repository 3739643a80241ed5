"""Two runs against each other: paired tests, slices, and where they disagree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vgbench.core.errors import UserError
from vgbench.data.dataset import GroundingData
from vgbench.data.table import AnnotationTable
from vgbench.leaderboard.columns import metric_title, row_label, task_title
from vgbench.metrics.base import Outcomes
from vgbench.metrics.bootstrap import Comparison, compare_paired
from vgbench.metrics.evaluator import evaluate_predictions
from vgbench.metrics.slices import buckets
from vgbench.metrics.tasks import task_of
from vgbench.predictions.reader import read_predictions
from vgbench.predictions.table import Predictions
from vgbench.records.record import Record, Result


@dataclass(frozen=True)
class Slice:
    """One line of a comparison; ``rule`` is empty for the whole split. ``significant`` at 5 % after Holm."""

    rule: str
    bucket: str
    first: float
    second: float
    test: Comparison
    significant: bool = False


@dataclass(frozen=True)
class Disagreement:
    """An expression that the two runs answer differently; scores in percent. ``row`` counts in the table."""

    row: int
    key: str
    expression: str
    first: float
    second: float


@dataclass(frozen=True)
class Versus:
    """Two results on one split: the same expressions, the same metric. Differences are second minus first."""

    first: str
    second: str
    result: Result
    metric: str
    gradual: str
    slices: list[Slice]
    disagreements: list[Disagreement]
    table: AnnotationTable
    data: GroundingData
    predictions: tuple[Predictions, Predictions]


def load_table(record: Record, result: Result) -> tuple[GroundingData, AnnotationTable]:
    """The dataset of a run, and the split that a result was computed on.

    Raises:
        UserError: if the data are not where the run found them, or are not the same any more.
    """
    from hydra.utils import instantiate

    node = record.config.get("dataset")
    if not isinstance(node, dict) or "_target_" not in node:
        raise UserError(f"{record.name}: the record's configuration names no dataset; slices need the annotations")
    data = instantiate(node)
    table = data.load(result.split)
    limit = (record.config.get("eval") or {}).get("limit")
    if limit:
        table = table.take(range(min(limit, len(table))))
    if table.hash != result.data_hash:
        raise UserError(
            f"{record.name}: {result.dataset} {result.split} is not the data that was scored (hash {table.hash[:8]}, "
            f"record {result.data_hash[:8]}); evaluate the run again"
        )
    return data, table


def versus(first: Record, second: Record, *, resamples: int = 1000, worst: int = 12) -> list[Versus]:
    """Compare two runs on every split and task that both were scored on, with the default metrics.

    Args:
        resamples: of bootstrap and permutation tests.
        worst: expressions to list where they disagree most.

    Raises:
        UserError: if they have no result on the same data, or predictions or annotations are gone.
    """
    found = []
    for one in first.results:
        for other in second.results:
            if _same(one, other) and (one.prediction_set == other.prediction_set or not _shared(first, second)):
                found.append(_versus(first, one, second, other, resamples, worst))
    if not found:
        raise UserError(
            f"{first.name} and {second.name} have no result on the same data, task and split; "
            "vgbench compare prints what they have"
        )
    return found


def _same(one: Result, other: Result) -> bool:
    def identity(result: Result) -> tuple[object, ...]:
        default = all(metric.variant == "default" for metric in result.metrics.values())
        return (result.dataset, result.split_by, result.split, result.task, result.data_hash, default)

    return identity(one) == identity(other) and identity(one)[-1] is True


def _shared(first: Record, second: Record) -> bool:
    """Whether the two runs have a prediction set of the same name: then only equal names are compared."""
    return bool({r.prediction_set for r in first.results} & {r.prediction_set for r in second.results})


def _versus(first: Record, one: Result, second: Record, other: Result, resamples: int, worst: int) -> Versus:
    data, table = load_table(first, one)
    metric, gradual = task_of(one.task).headline[0], task_of(one.task).gradual
    answers = [_answers(record, result, table) for record, result in ((first, one), (second, other))]
    left, right = (
        evaluate_predictions(table, predictions, tasks=[one.task], bootstrap=0).outcomes[one.task]
        for predictions in answers
    )
    labels = row_label(first, one), row_label(second, other)
    if labels[0] == labels[1]:
        labels = f"{labels[0]} ({first.name})", f"{labels[1]} ({second.name})"
    return Versus(
        first=labels[0],
        second=labels[1],
        result=one,
        metric=metric,
        gradual=gradual,
        slices=_tests(left, right, metric, table, resamples),
        disagreements=_disagreements(left, right, gradual, table, worst),
        table=table,
        data=data,
        predictions=(answers[0], answers[1]),
    )


def _answers(record: Record, result: Result, table: AnnotationTable) -> Predictions:
    if result.predictions is None or record.folder is None:
        raise UserError(f"{record.name}: its record names no predictions file; evaluate the run again")
    return read_predictions(record.folder / result.predictions, table, missing="empty")


def _tests(first: Outcomes, second: Outcomes, metric: str, table: AnnotationTable, resamples: int) -> list[Slice]:
    images = table.column("image_id")
    parts = [("", "all", np.ones(len(table), dtype=bool))]
    for name, rule in buckets(table).items():
        parts += [(name, bucket, rule.index == number) for number, bucket in enumerate(rule.names)]
    lines = []
    for name, bucket, chosen in parts:
        left, right = first.take(chosen[first.rows]), second.take(chosen[second.rows])
        values = left.ratios[metric].value, right.ratios[metric].value
        if len(left.rows) and not any(map(math.isnan, values)):
            test = compare_paired(left, right, metric, images[left.rows], resamples)
            lines.append(Slice(name, bucket, *values, test))
    passed = holm([line.test.p_permutation for line in lines[1:]])
    whole = lines[0].test.p_permutation <= 0.05  # the one question that was asked first needs no correction
    return [
        Slice(line.rule, line.bucket, line.first, line.second, line.test, significant)
        for line, significant in zip(lines, [whole, *passed], strict=True)
    ]


def holm(p_values: Sequence[float], level: float = 0.05) -> list[bool]:
    """Which of several tests are significant when the chance of any false one is to stay below ``level`` (Holm)."""
    passed = [False] * len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] > level / (len(p_values) - rank):
            break
        passed[place] = True
    return passed


def _disagreements(
    first: Outcomes, second: Outcomes, metric: str, table: AnnotationTable, count: int
) -> list[Disagreement]:
    def percent(outcomes: Outcomes) -> np.ndarray:
        ratio = outcomes.ratios[metric]
        return np.divide(100.0 * ratio.num, ratio.den, out=np.zeros(len(ratio.num)), where=ratio.den != 0)

    left, right = percent(first), percent(second)
    order = np.argsort(-np.abs(right - left), kind="stable")[:count]
    found = []
    for place in order[left[order] != right[order]]:
        row = table.row(int(first.rows[place]))
        scores = float(left[place]), float(right[place])
        found.append(Disagreement(int(first.rows[place]), row.key, row.expression, *scores))
    return found


def draw_disagreements(comparison: Versus, folder: Path) -> int:
    """NN.png for every listed disagreement and sheet.png into ``folder``; returns how many could be drawn."""
    from PIL import Image

    from vgbench.pictures import draw
    from vgbench.pictures.draw import contact_sheet

    pictures = []
    for number, entry in enumerate(comparison.disagreements):
        row = comparison.table.row(entry.row)
        answers = (predictions.prediction(entry.row) for predictions in comparison.predictions)
        try:
            with comparison.data.image_path(row.image).open("rb") as file, Image.open(file) as image:
                shown = dict(zip((comparison.first, comparison.second), answers, strict=True))
                pictures.append(draw.draw(image, row.expression, row, shown, size=360))
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
        draw.save(pictures[-1], folder / f"{number:02d}.png")
    if pictures:
        draw.save(contact_sheet(pictures), folder / "sheet.png")
    return len(pictures)


def format_versus(comparisons: Sequence[Versus], pictures: Path | None = None) -> str:
    """Markdown of :func:`versus`; with ``pictures``, the disagreements are drawn into folders below it."""
    parts = []
    for comparison in comparisons:
        result = comparison.result
        author = None if result.embedded else result.split_by
        where = " ".join(part for part in (result.dataset, author, result.split) if part)
        first, second = comparison.first, comparison.second
        parts.append(
            f"## {second} against {first}: {where}, {metric_title(result.task, comparison.metric)} "
            f"({task_title(result.task, result.embedded)})"
        )
        lines = [
            f"| slice | {first} | {second} | difference | 95 % interval | p | expressions | images |",
            "|:--|--:|--:|--:|:-:|--:|--:|--:|",
        ]
        for line in comparison.slices:
            test = line.test
            name = f"{line.rule}: {line.bucket}" if line.rule else "**all**"
            lines.append(
                f"| {name} | {line.first:.2f} | {line.second:.2f} | {test.difference:+.2f}"
                f"{' *' if line.significant else ''} | {test.low:+.2f} to {test.high:+.2f} | "
                f"{test.p_permutation:.3f} | {test.n} | {test.images} |"
            )
        parts.append("\n".join(lines))
        parts.append(
            "p: paired permutation test, exchanging the two image by image; intervals: paired bootstrap over images. "
            "*: significant at 5 % (slices: after Holm's correction for all of them)."
        )
        if comparison.disagreements:
            title = metric_title(result.task, comparison.gradual)
            lines = [f"Largest disagreements ({title}):", "", f"| expression | {first} | {second} | key |"]
            lines.append("|:--|--:|--:|:--|")
            for entry in comparison.disagreements:
                text = " ".join(entry.expression.split()).replace("|", r"\|")
                lines.append(f"| {text} | {entry.first:.1f} | {entry.second:.1f} | {entry.key} |")
            parts.append("\n".join(lines))
        if pictures is not None:
            sets = "" if result.prediction_set == "main" else f"-{result.prediction_set}"
            folder = pictures / f"{where.replace(' ', '-')}-{result.task}{sets}"
            parts.append(f"Pictures: {draw_disagreements(comparison, folder)} in {folder}")
    return "\n\n".join(parts) + "\n"
