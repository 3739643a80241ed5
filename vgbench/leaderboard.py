"""Leaderboards: records in, a table out. Nothing is computed here but differences, means over seeds and roundings.

Three rules cannot be switched off. Embedded and real data never share a table. Two numbers share a column only if data
set, split, metric, metric variant and data hash agree. A published number that is not comparable says why, from what
the records know.
"""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vgbench.core.errors import UserError
from vgbench.core.files import write_atomically
from vgbench.record import Metric, Record, Result, find

Format = Literal["markdown", "csv", "json", "latex"]

#: Metrics of a task that a leaderboard shows unless all are asked for.
HEADLINE = {
    "rec": ("prec@0.5",),
    "res": ("miou", "oiou"),
    "grec": ("pr@f1", "n_acc"),
    "gres": ("giou", "ciou", "n_acc"),
    "pointing": ("pointing_acc",),
    "phrase": ("recall@1",),
}
_TITLES = {"rec": "REC", "res": "RES", "grec": "GREC", "gres": "GRES", "pointing": "Pointing game"}
_METRIC_TITLES = {
    **{"miou": "mIoU", "oiou": "oIoU", "giou": "gIoU", "ciou": "cIoU", "pr@f1": "Pr@F1", "f1": "F1"},
    **{"n_acc": "N-acc", "t_acc": "T-acc", "pointing_acc": "Pointing"},
}
SPLITS = ("val", "testA", "testB", "test")
_ORDER = {
    "task": ("rec", "res", "grec", "gres", "pointing", "phrase"),
    "dataset": ("refcoco", "refcoco+", "refcocog", "grefcoco", "refshapes", "refshapes+", "refshapesg", "grefshapes"),
    "split": SPLITS,
}


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

    def sort_key(self) -> tuple[Any, ...]:
        def place(kind: str, value: str) -> tuple[int, str]:
            order = _ORDER[kind]
            return (order.index(value) if value in order else len(order), value)

        metrics = HEADLINE.get(self.task, ())
        return (
            self.embedded,
            place("task", self.task),
            place("dataset", self.dataset),
            self.split_by or "",
            place("split", self.split),
            self.data_hash,
            metrics.index(self.metric) if self.metric in metrics else len(metrics),
            self.metric,
            self.variant != "default",
            self.variant,
            self.control,
        )


@dataclass
class Row:
    """One line of a leaderboard. A cell holds one metric, or one per seed; ``runs``: config hash and seed of each."""

    label: str
    embedded: bool
    provenance: str
    cells: dict[Column, list[Metric]] = field(default_factory=dict)
    runs: dict[Column, list[tuple[str, int | None]]] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    prediction_set: str = "main"


@dataclass
class Table:
    """Rows by columns of one task on one kind of data."""

    title: str
    columns: list[Column]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    marks: dict[Column, str] = field(default_factory=dict)  # printed behind a column's title

    def heading(self, column: Column) -> tuple[str, str]:
        """Data set and split, then the metric."""
        return column.where + self.marks.get(column, ""), metric_title(column.metric, column.variant, column.control)


class PublishedRow(NamedTuple):
    """One line of published.csv."""

    method: str
    variant: str
    backbone: str
    training_data: str
    task: str
    dataset: str
    split: str
    metric: str
    value: float
    source_title: str
    source_id: str
    source_place: str
    source_kind: str
    quoted_by: str


class Pair(NamedTuple):
    """A measured number beside a published one. ``notes`` say why they are not the same experiment, if they are not."""

    record: Record
    result: Result
    column: Column
    measured: Metric
    published: PublishedRow
    difference: float | None
    comparable: bool
    notes: tuple[str, ...]
    breaking: tuple[str, ...] = ()  # those of the notes that make the numbers incomparable

    @property
    def row(self) -> str:
        return row_label(self.record, self.result)


def metric_title(metric: str, variant: str = "default", control: str = "") -> str:
    title = _METRIC_TITLES.get(metric) or re.sub(r"^(prec|recall|f1)\b", lambda match: match[0].capitalize(), metric)
    return title + (f" ({variant})" if variant != "default" else "") + (f" [{control}]" if control else "")


def task_title(task: str, embedded: bool) -> str:
    return f"{_TITLES.get(task, task)} on {'embedded (rendered)' if embedded else 'real'} data"


def row_label(record: Record, result: Result) -> str:
    """E.g. "SimVG-TB base" or "AMC / heat_box": the prediction set where there are several, method, variant."""
    own = record.set_labels.get(result.prediction_set)
    label = " ".join(part for part in (own or record.label or record.method, record.variant) if part)
    return label if own or result.prediction_set == "main" else f"{label} / {result.prediction_set}"


def inference_rate(record: Record, prediction_set: str) -> float | None:
    """Samples per second of a prediction set: alone, if that was measured."""
    return record.cost.set_samples_per_s.get(prediction_set, record.cost.inference_samples_per_s)


def provenance(record: Record) -> str:
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


# Tables --------------------------------------------------------------------------------------------------------------


def tables(records: Iterable[Record], *, all_metrics: bool = False, seeds: bool = False) -> list[Table]:
    """One table per task and kind of data (real, embedded).

    Runs of one label, variant, prediction set, checkpoint origin, size and device fill one row, as in a paper's table,
    until a cell is taken twice: then there is a second row, named by its seed or run folder. With ``seeds``, runs that
    differ in nothing but the seed share the cell, as mean and standard deviation.
    """
    by_key: dict[tuple[Any, ...], list[Row]] = {}
    for record in records:
        for result in record.results:
            cells = dict(numbers(result))
            hardware = record.environment.hardware
            key = (
                *(record.method, row_label(record, result), result.prediction_set, result.embedded, provenance(record)),
                *(record.cost.parameters, hardware.gpu or hardware.cpu, None if seeds else record.seed),
            )
            identity = (record.config_hash, record.seed)
            alike = by_key.setdefault(key, [])
            row = next((row for row in alike if _fits(row, cells, identity, seeds)), None)
            if row is None:
                row = Row(row_label(record, result), result.embedded, provenance(record))
                row.prediction_set = result.prediction_set
                alike.append(row)
            for column, metric in cells.items():
                row.cells.setdefault(column, []).append(metric)
                row.runs.setdefault(column, []).append(identity)
            if not any(known is record for known in row.records):
                row.records.append(record)
    rows = [row for alike in by_key.values() for row in alike]
    _tell_apart(rows)

    columns = sorted({column for row in rows for column in row.cells}, key=Column.sort_key)
    left_out: set[Column] = set()
    if not all_metrics:
        columns = [column for column in columns if _headline(column, columns)]
        left_out = second_definitions(columns, [row.cells for row in rows])
        columns = [column for column in columns if column not in left_out]
    made = []
    for embedded, task in dict.fromkeys((column.embedded, column.task) for column in columns):
        own = [column for column in columns if (column.embedded, column.task) == (embedded, task)]
        table = Table(task_title(task, embedded), own, [row for row in rows if not row.cells.keys().isdisjoint(own)])
        table.rows.sort(key=_by_first(own))
        _mark_data(table)
        hidden = [column for column in left_out if (column.embedded, column.task) == (embedded, task)]
        titles = sorted({metric_title(column.metric, column.variant) for column in hidden})
        table.notes += [f"{', '.join(titles)}: left out, --all-metrics shows them"] if titles else []
        made.append(table)
    return made


def _fits(row: Row, cells: dict[Column, Metric], identity: tuple[str, int | None], seeds: bool) -> bool:
    """Whether a run's cells are free in the row, or (``seeds``) hold other seeds of the same configuration."""
    if row.runs.keys().isdisjoint(cells):  # stops at the first one taken: with 1,000 runs this is asked a million times
        return True
    taken = [row.runs[column] for column in cells if column in row.runs] if seeds else []
    return (
        seeds
        and all({identity[0]} == {hash for hash, _ in runs} for runs in taken)
        and not any(identity in runs for runs in taken)
    )


def _by_first(columns: Sequence[Column]) -> Callable[[Row], float]:
    """Sort key: the value in the first column, best first, empty cells last."""

    def key(row: Row) -> float:
        value = _value(row.cells.get(columns[0]))
        return float("inf") if value is None else -value

    return key


def _headline(column: Column, columns: Sequence[Column]) -> bool:
    shown = HEADLINE.get(column.task, ())
    return column.metric in shown or not any(
        other.metric in shown for other in columns if (other.task, other.embedded) == (column.task, column.embedded)
    )


def second_definitions(columns: Iterable[Column], cells: Sequence[Container[Column]]) -> set[Column]:
    """Columns of a metric variant whose every row (its ``cells``) has the default definition of that metric, too."""
    return {
        column
        for column in columns
        if column.variant != "default"
        and all(column._replace(variant="default") in row for row in cells if column in row)
    }


def _tell_apart(rows: list[Row]) -> None:
    """Rows that would look the same in a table get the seed, or else the folder of their run, behind the label."""
    alike: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        for where in dict.fromkeys((column.embedded, column.task) for column in row.cells):
            alike.setdefault((row.label, row.provenance, *where), []).append(row)
    suffixes: dict[int, str] = {}
    for twins in alike.values():
        seeds = {record.seed for row in twins for record in row.records}
        single = len(seeds) == len(twins) and all(len({record.seed for record in row.records}) == 1 for row in twins)
        places = folder_names([row.records[0] for row in twins])
        for row, place in zip(twins, places, strict=True) if len(twins) > 1 else ():
            named = suffixes.get(id(row), "seed").startswith("seed") and single
            suffixes[id(row)] = f"seed {row.records[0].seed}" if named else place
    for row in rows:
        row.label += f" ({suffixes[id(row)]})" if id(row) in suffixes else ""


def folder_names(records: Sequence[Record]) -> list[str]:
    """Names of run folders, with the folder above where two are called the same."""
    names = Counter(record.name for record in records)
    return [
        f"{record.folder.resolve().parent.name}/{record.name}"
        if names[record.name] > 1 and record.folder
        else record.name
        for record in records
    ]


def _mark_data(table: Table) -> None:
    """A split of which there are several versions has its columns marked, and a note about each version."""
    versions: dict[tuple[Any, ...], list[str]] = {}
    for column in table.columns:
        hashes = versions.setdefault(column[:5], [])
        if column.data_hash not in hashes:
            hashes.append(column.data_hash)
    for column in table.columns:
        hashes = versions[column[:5]]
        if len(hashes) > 1:
            mark = f" #{hashes.index(column.data_hash) + 1}"
            table.marks[column] = mark
            sizes = {metric.n for row in table.rows for metric in row.cells.get(column, ())}
            note = (
                f"{table.heading(column)[0]}: data {column.data_hash[:8]}, {max(sizes)} expressions; "
                "not the same data as the other columns of this split"
            )
            if not any(known.split(",")[0] == note.split(",")[0] for known in table.notes):
                table.notes.append(note)


def _value(metrics: Sequence[Metric] | None) -> float | None:
    values = [metric.value for metric in metrics or () if metric.value is not None]
    return statistics.fmean(values) if values else None


def _spread(metrics: Sequence[Metric]) -> tuple[float | None, int]:
    """Half the width of the interval, or the standard deviation over several seeds; and the number of seeds."""
    values = [metric.value for metric in metrics if metric.value is not None]
    if len(values) > 1:
        return statistics.stdev(values), len(values)
    only = metrics[0]
    return ((only.high - only.low) / 2 if only.low is not None and only.high is not None else None), 1


def _best(table: Table) -> dict[Column, float]:
    """The highest value of each column as it is printed; controls have none."""
    values = {
        column: [value for row in table.rows if (value := _value(row.cells.get(column))) is not None]
        for column in table.columns
        if not column.control
    }
    return {column: round(max(found), 2) for column, found in values.items() if len(found) > 1}


# Formats -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Style:
    """How one text format writes a value, a best value, and a value with its spread."""

    bold: Callable[[str], str]
    spread: Callable[[float, int], str]
    text: Callable[[str], str]


def _latex_text(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    return "".join(special.get(letter) or (f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


_STYLES = {
    "markdown": _Style(
        bold=lambda text: f"**{text}**",
        spread=lambda half, seeds: f" ±{half:.2f}" if seeds == 1 else f" ± {half:.2f} ({seeds} seeds)",
        text=lambda text: " ".join(text.replace("|", r"\|").split()),
    ),
    "latex": _Style(
        bold=lambda text: rf"\textbf{{{text}}}",
        spread=lambda half, seeds: rf"{{\scriptsize$\pm${half:.2f}{'' if seeds == 1 else f' ({seeds})'}}}",
        text=_latex_text,
    ),
}


def _cells(table: Table, style: _Style) -> list[list[str]]:
    best = _best(table)
    lines = []
    for row in table.rows:
        line = [style.text(row.label)]
        for column in table.columns:
            metrics = row.cells.get(column)
            value = _value(metrics)
            if not metrics or value is None:
                line.append("n/d" if metrics else "")
                continue
            half, seeds = _spread(metrics)
            text = f"{value:.2f}"
            text = style.bold(text) if best.get(column) == round(value, 2) else text
            line.append(text + (style.spread(half, seeds) if half is not None else ""))
        line += [_millions(row), _rate(record.cost.train_samples_per_s for record in row.records)]
        line.append(_rate(inference_rate(record, row.prediction_set) for record in row.records))
        lines.append([*line, style.text(row.provenance)])
    return lines


_AFTER = ("Params (M)", "Train/s", "Infer/s", "Provenance")


def _millions(row: Row) -> str:
    count = row.records[0].cost.parameters if row.records else None
    return "" if count is None else f"{count / 1e6:.1f}" if count >= 1e5 else f"{count / 1e6:.3f}"


def _rate(rates: Iterable[float | None]) -> str:
    known = [rate for rate in rates if rate is not None]
    return f"{float(f'{statistics.median(known):.3g}'):g}" if known else ""  # 1010, never 1.01e+03


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]], left: frozenset[int]) -> str:
    widths = [max(len(line[place]) for line in (header, *lines)) for place in range(len(header))]

    def write(line: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return f"| {' | '.join(cells)} |"

    rule = "|".join(
        f":{'-' * (width + 1)}" if place in left else f"{'-' * (width + 1)}:" for place, width in enumerate(widths)
    )
    return "\n".join([write(header), f"|{rule}|", *map(write, lines)])


def _drop_empty(header: Sequence[str], lines: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Columns that no row fills are left out (a cost nobody measured)."""
    keep = [place for place in range(len(header)) if any(line[place] for line in lines)]
    return [header[place] for place in keep], [[line[place] for place in keep] for line in lines]


def _run_notes(table: Table) -> list[str]:
    notes = []
    for row in table.rows:
        for record in row.records:
            code = record.environment.code
            commit = f"commit {code.commit[:10]}{' with local changes' if code.dirty else ''}" if code.commit else ""
            weights = f"weights {record.checkpoint.sha256[:8]}" if record.checkpoint else ""
            seed = f"seed {record.seed}" if record.seed is not None else ""
            hardware = record.environment.hardware
            device = f"{hardware.gpus} x {hardware.gpu}" if hardware.gpu else f"{hardware.cpu}, {hardware.cores} cores"
            what = [f"config {record.config_hash[:8]}", seed, weights, commit, device]
            notes.append(f"{row.label}: {record.name} ({', '.join(part for part in what if part)})")
    return notes


def _legend(table: Table) -> list[str]:
    shown = set(table.columns)
    metrics = [cell for row in table.rows for column, cell in row.cells.items() if column in shown]
    legend = []
    if any(len(cell) == 1 and cell[0].low is not None for cell in metrics):
        legend.append("±x: half of the 95 % interval (bootstrap clustered by image).")
    if any(len(cell) > 1 for cell in metrics):
        legend.append("± x (n seeds): standard deviation over seeds.")
    if any(column.control for column in table.columns):
        legend.append("[...]: a control, the same checkpoint on spoilt input.")
    return legend


def _markdown(made: Sequence[Table], pairs: Sequence[Pair]) -> str:
    parts = []
    for table in made:
        header = ["Method", *(" ".join(table.heading(column)) for column in table.columns), *_AFTER]
        header, lines = _drop_empty(header, _cells(table, _STYLES["markdown"]))
        left = frozenset({0, len(header) - 1})
        parts += [f"## {table.title}", markdown_table(header, lines, left)]
        parts += [" ".join(_legend(table))] if _legend(table) else []
        notes = [*table.notes, *_run_notes(table)]
        parts += ["\n".join(f"- {note}" for note in notes)] if notes else []
    if pairs:
        lines, reasons = _pair_lines(pairs, _STYLES["markdown"])
        parts += ["## Published and measured", markdown_table(_PAIR_HEADER, lines, frozenset({0, 1, 4}))]
        parts += ["\n".join(f"{mark}: {note}  " for note, mark in reasons.items())] if reasons else []
    return "\n\n".join(parts) + "\n"


_PAIR_HEADER = ("Method", "Where", "Measured", "Published", "Published as", "Difference", "Notes")


def _pair_lines(pairs: Sequence[Pair], style: _Style) -> tuple[list[list[str]], dict[str, str]]:
    notes: dict[str, str] = {}
    lines = []
    for pair in pairs:
        marks = [notes.setdefault(note, f"[{len(notes) + 1}]") for note in pair.notes]
        column, row = pair.column, pair.published
        half, _ = _spread([pair.measured])
        value = "n/d" if pair.measured.value is None else f"{pair.measured.value:.2f}"
        difference = "" if pair.difference is None else f"{pair.difference:+.2f}"
        lines.append(
            [
                style.text(pair.row),
                style.text(f"{column.where} {metric_title(column.metric, column.variant)}"),
                value + (style.spread(half, 1) if half is not None else ""),
                f"{row.value:.2f}",
                style.text(", ".join(part for part in (row.method, row.variant, row.backbone) if part)),
                difference if pair.comparable else f"({difference})",
                " ".join(marks),
            ]
        )
    return lines, notes


def _latex(made: Sequence[Table], pairs: Sequence[Pair]) -> str:
    style = _STYLES["latex"]
    parts = ["% needs \\usepackage{booktabs}"]
    for table in made:
        header = [
            ("", "Method"),
            *(table.heading(column) for column in table.columns),
            *(("", name) for name in _AFTER),
        ]
        lines = _cells(table, style)
        keep = [place for place in range(len(header)) if any(line[place] for line in lines)]
        header, lines = [header[place] for place in keep], [[line[place] for place in keep] for line in lines]
        groups: list[list[Any]] = []
        for upper, _ in header:
            if groups and groups[-1][0] == upper:
                groups[-1][1] += 1
            else:
                groups.append([upper, 1])
        top = " & ".join(
            rf"\multicolumn{{{count}}}{{c}}{{{style.text(upper)}}}" if upper else " & ".join([""] * count)
            for upper, count in groups
        )
        parts.append(
            "\n".join(
                [
                    f"% {table.title}",
                    rf"\begin{{tabular}}{{l{'r' * (len(header) - 2)}l}}",
                    r"\toprule",
                    rf"{top} \\",
                    " & ".join(style.text(lower) for _, lower in header) + r" \\",
                    r"\midrule",
                    *(" & ".join(line) + r" \\" for line in lines),
                    r"\bottomrule",
                    r"\end{tabular}",
                    *(f"% {note}" for note in (*_legend(table), *table.notes, *_run_notes(table))),
                ]
            )
        )
    if pairs:
        lines, notes = _pair_lines(pairs, style)
        parts.append(
            "\n".join(
                [
                    "% Published and measured",
                    r"\begin{tabular}{llrrlrl}",
                    r"\toprule",
                    " & ".join(_PAIR_HEADER) + r" \\",
                    r"\midrule",
                    *(" & ".join(line) + r" \\" for line in lines),
                    r"\bottomrule",
                    r"\end{tabular}",
                    *(rf"\par\noindent {{\footnotesize {mark} {style.text(note)}}}" for note, mark in notes.items()),
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def flat(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Every number of every record as one dictionary: the CSV and JSON formats, and what the page shows."""
    lines = []
    for record in records:
        cost, hardware, code = record.cost, record.environment.hardware, record.environment.code
        for result in record.results:
            for column, metric in numbers(result):
                lines.append(
                    {
                        "row": row_label(record, result),
                        "method": record.method,
                        "variant": record.variant,
                        "prediction_set": result.prediction_set,
                        "provenance": record.provenance,
                        "checkpoint": record.checkpoint.origin if record.checkpoint else None,
                        **{"metric_variant" if name == "variant" else name: v for name, v in column._asdict().items()},
                        "value": metric.value,
                        "low": metric.low,
                        "high": metric.high,
                        "n": metric.n,
                        "seed": record.seed,
                        "parameters": cost.parameters,
                        "flops": cost.flops,
                        "train_samples_per_s": cost.train_samples_per_s,
                        "inference_samples_per_s": inference_rate(record, result.prediction_set),
                        "device": hardware.gpu or hardware.cpu,
                        "config_hash": record.config_hash,
                        "commit": code.commit,
                        "created": record.created,
                        "run": record.name,
                    }
                )
    return lines


def _csv(lines: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def compare(
    records: Sequence[Record],
    format: Format = "markdown",
    *,
    all_metrics: bool = False,
    seeds: bool = False,
    published: Sequence[PublishedRow] | None = None,
    others: bool = False,
) -> str:
    """The leaderboard of records.

    Args:
        format: "markdown" and "latex" are tables for readers; "csv" and "json" hold every number of every record.
        all_metrics: every metric, not only :data:`HEADLINE`.
        seeds: runs that differ in the seed alone become mean and standard deviation.
        published: rows of :func:`read_published`; a list of measured against published is added.
        others: published numbers of all methods join the tables of real data as rows of their own.
    """
    pairs = published_pairs(records, published) if published is not None else []
    if format in ("csv", "json"):
        lines = flat(records)
        if format == "csv":
            return _csv([*lines, *map(_flat_pair, pairs)])
        return json.dumps({"rows": lines, "published": [_flat_pair(pair) for pair in pairs]}, indent=1) + "\n"
    made = tables(records, all_metrics=all_metrics, seeds=seeds)
    if others and published is not None:
        for table in made:
            _add_published(table, published)
    return (_markdown if format == "markdown" else _latex)(made, pairs)


def _flat_pair(pair: Pair) -> dict[str, Any]:
    column, row = pair.column, pair.published
    return {
        "row": pair.row,
        "provenance": "published",
        **{"metric_variant" if name == "variant" else name: value for name, value in column._asdict().items()},
        "value": row.value,
        "measured": pair.measured.value,
        "difference": pair.difference,
        "comparable": pair.comparable,
        "notes": "; ".join(pair.notes),
        **{f"published_{name}": getattr(row, name) for name in ("method", "variant", "backbone", "metric")},
        **{name: getattr(row, name) for name in ("source_title", "source_id", "source_place", "quoted_by")},
    }


# Published numbers ---------------------------------------------------------------------------------------------------

#: Metric names of published.csv that say how they were computed -> metric and variant of the records.
_PUBLISHED_METRICS = {
    "prec@0.5_giou": ("prec@0.5", "giou"),
    "prec@0.5_top1": ("prec@0.5", "topk"),
    "miou_as_listed": ("miou", "as listed"),
    "pr@f1_mmdet": ("pr@f1", "first_box"),
    "n_acc_mmdet": ("n_acc", "first_box"),
    **{f"recall@{k}_any": (f"recall@{k}", "default") for k in (1, 5, 10)},
    **{f"recall@{k}_merged": (f"recall@{k}", "merged") for k in (1, 5, 10)},
}


_SIZES = {"tiny": "T", "small": "S", "base": "B", "large": "L", "huge": "H"}


def read_published(path: Path | None = None) -> list[PublishedRow]:
    """The rows of a published.csv (None: the one in the package).

    Raises:
        UserError: naming file, line and column, if one is missing, is no number, or has no source.
    """
    place = path or files("vgbench.leaderboards") / "published.csv"
    try:
        text = place.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{place}: {error.strerror or error}") from error
    rows = []
    for number, line in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        for name in PublishedRow._fields:
            if line.get(name) is None:
                raise UserError(f"{place}:{number}: no column {name!r}")
        if not line["source_id"] and not line["source_title"]:
            raise UserError(f"{place}:{number}: a published number needs a source_title and a source_id")
        try:
            value = float(line["value"])
        except ValueError:
            raise UserError(f"{place}:{number}: value {line['value']!r} is no number") from None
        cells: dict[str, Any] = {name: line[name] for name in PublishedRow._fields}
        rows.append(PublishedRow(**{**cells, "value": value}))
    return rows


def _plain(name: str) -> str:
    """A method's name for looking up: VG-LAW, vglaw and VGLAW are one."""
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def published_dataset(dataset: str, split_by: str | None) -> str:
    """The name in published.csv; RefCOCO and RefCOCO+ are split by unc there, ReferIt by berkeley; RefCOCOg says by
    whom."""
    usual = "berkeley" if dataset == "referit" else "unc"
    return dataset if split_by in (None, usual) else f"{dataset}_{split_by}"


def dataset_of(row: PublishedRow) -> str:
    """The data set of a published row under one name: VG-LAW calls ReferIt refclef."""
    return "referit" if row.dataset == "refclef" else row.dataset


def published_metric(row: PublishedRow) -> tuple[str, str]:
    return _PUBLISHED_METRICS.get(row.metric, (row.metric, "default"))


def published_task(row: PublishedRow) -> str:
    return "phrase" if row.task == "phrase grounding" else row.task.lower()


def published_pairs(records: Iterable[Record], published: Sequence[PublishedRow]) -> list[Pair]:
    """Every measured number on real data beside the published numbers of the same method, task, split and metric.

    Where no number of the same split author exists, those of another author are listed (and marked). A run that states
    its ``published_variant`` meets only that one; a prediction set does not meet rows that name another one.
    """
    by_cell: dict[tuple[str, ...], list[PublishedRow]] = {}
    for row in published:
        key = (_plain(row.method), published_task(row), row.split, published_metric(row)[0])
        by_cell.setdefault(key, []).append(row)
    pairs = []
    for record in records:
        sets = {result.prediction_set for result in record.results}
        names = dict.fromkeys(map(_plain, (record.method, record.label or record.method)))
        for result in record.results:
            if result.embedded:
                continue
            rivals = sets - {result.prediction_set}
            for name, metric in result.metrics.items():
                column = result_column(result, name, metric.variant)
                candidates = [
                    row
                    for ours in names
                    for row in by_cell.get((ours, result.task, result.split, column.metric), ())
                    if (record.published_variant is None or row.variant == record.published_variant)
                    and not any(rival in row.variant.lower() for rival in rivals)
                ]
                name_there = published_dataset(result.dataset, result.split_by)
                exact = [row for row in candidates if dataset_of(row) == name_there]
                near = [row for row in candidates if dataset_of(row).split("_")[0] == result.dataset]
                pairs += [pair_of(record, result, column, metric, row) for row in exact or near]
    return pairs


def pair_of(record: Record, result: Result, column: Column, metric: Metric, row: PublishedRow) -> Pair:
    """A measured number beside a published one.

    The notes: first what makes the two numbers incomparable, then what one should know."""
    breaking, other = [], []
    published_variant = published_metric(row)[1]
    if metric.variant != published_variant:
        breaking.append(f"metric variant: measured {metric.variant}, published {published_variant}")
    if dataset_of(row) != published_dataset(result.dataset, result.split_by):
        breaking.append(f"split author: measured {result.split_by}, published {row.dataset}")
    size = _SIZES.get(record.variant.lower())
    sizes = set(re.findall(r"(?:ViT|BEiT-?3)-(?:Det-)?([TSBLH])\b", f"{row.variant} {row.backbone}"))
    if size and sizes and size not in sizes:
        breaking.append(f"model size: measured {record.variant}, published {'/'.join(sorted(sizes))}")
    if result.leaked_images:
        breaking.append(f"leaked data: {result.leaked_images} images of the split were trained on")
    if result.resolution != "original":
        breaking.append(f"resolution: scored at {result.resolution}")
    if result.expected_expressions not in (None, result.expressions):
        breaking.append(f"incomplete: {result.expressions} of {result.expected_expressions} expressions scored")
    if result.leaked_images is None:
        other.append("not known whether images of the split were trained on")
    if record.training is not None:
        trained = sorted({data.dataset for data in (*record.training.earlier, *record.training.data)})
        if len(trained) != 1 or not row.training_data.startswith("single dataset"):
            other.append(f"training data: measured {' + '.join(trained) or 'unknown'}, published {row.training_data!r}")
    if row.quoted_by:
        other.append(f"published number quoted by {row.quoted_by}")
    difference = None if metric.value is None else metric.value - row.value
    notes = (*breaking, *other)
    return Pair(record, result, column, metric, row, difference, not breaking, notes, tuple(breaking))


def _add_published(table: Table, published: Sequence[PublishedRow]) -> None:
    """Published rows of any method for the columns of a table; other metric variants have no column to go to."""
    cells: dict[tuple[str, ...], Row] = {}
    for column in table.columns:
        if column.embedded or column.control:
            continue
        name = published_dataset(column.dataset, column.split_by)
        for row in published:
            if (dataset_of(row), row.split, published_task(row)) != (name, column.split, column.task):
                continue
            if published_metric(row) != (column.metric, column.variant):
                continue
            key = (row.method, row.variant, row.backbone, row.training_data, row.source_id, row.quoted_by)
            label = ", ".join(part for part in (row.method, row.variant, row.backbone) if part)
            source = f"published, {row.source_id}" + (f", quoted by {row.quoted_by}" if row.quoted_by else "")
            made = cells.setdefault(key, Row(label, False, source))
            made.cells[column] = [Metric(row.value, 0)]
    if cells:
        table.notes.append("published rows: training data differ from row to row, and no interval is known")
    table.rows += sorted(cells.values(), key=_by_first(table.columns))


def main(
    paths: Sequence[Path],
    format: Format = "markdown",
    output: Path | None = None,
    *,
    all_metrics: bool = False,
    seeds: bool = False,
    published: Literal["own", "all"] | None = None,
    slices: bool = False,
    pictures: Path | None = None,
    html: Path | None = None,
    committed: bool = False,
) -> int:
    """``vgbench compare``: find the records below ``paths``, print the leaderboard or write it to ``output``.

    Args:
        published: "own": measured against published numbers of the same methods; "all": of every method, too.
        slices: two runs only: their difference by kind of expression, tested, and where they disagree most.
        pictures: with ``slices``, folder for pictures of the disagreements.
        html: write the page into this folder instead of printing tables.
        committed: also the committed results of the suite (``leaderboards/results``).

    Raises:
        UserError: if there is no record, a record is bad, ``slices`` finds other than two runs, or options do not go
            together.
    """
    if pictures is not None and not slices:
        raise UserError("--pictures draws the disagreements of two runs: add --slices")
    if html is not None and (slices or seeds or output is not None or format != "markdown"):
        raise UserError("--html writes the page of all runs: leave out --slices, --seeds, --output and --format")
    if seeds and format in ("csv", "json"):
        raise UserError(f"--seeds: --format {format} holds every run by itself; leave out one of the two")
    if published == "all" and format in ("csv", "json"):
        raise UserError(f"--published all puts rows into tables; --format {format} holds pairs: --published own")
    if slices and format != "markdown":
        raise UserError(f"--slices is written as Markdown; leave out --format {format}")
    places = [*paths]
    if committed:
        results = Path(str(files("vgbench.leaderboards") / "results"))
        if not results.is_dir():
            raise UserError("--committed: this version of the suite has no committed results")
        places.append(results)
    records = find(places)
    if html is not None:
        from vgbench.page import write_page

        print(write_page(records, html))
        return 0
    text = compare(
        records,
        format,
        all_metrics=all_metrics,
        seeds=seeds,
        published=read_published() if published else None,
        others=published == "all",
    )
    if slices:
        if len(records) != 2:
            raise UserError(f"--slices compares two runs, found {len(records)}; name two run folders")
        from vgbench.slices import format_versus, versus

        text += "\n" + format_versus(versus(*records), pictures)
    if output is None:
        print(text, end="")
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, text.encode())
        print(output)
    return 0
