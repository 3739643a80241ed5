"""Leaderboard tables and pairs with published numbers as grids: what stands in which cell, and the notes below."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from vgbench.core.grid import Grid, GridCell, Heading
from vgbench.leaderboard.columns import inference_rate, price_per_1000, tokens_per_answer
from vgbench.leaderboard.leading import LEGEND, leading_rows
from vgbench.leaderboard.pairs import Pair
from vgbench.leaderboard.tables import Row, Table, mean_value, spread
from vgbench.records.record import Metric, Record

_COSTS = ("Params (M)", "Train/s", "Infer/s", "Tokens/answer", "s/answer", "$/1000")


def table_grid(table: Table) -> Grid:
    """A leaderboard: the rows' values, what they cost, and where they come from."""
    headings = [Heading("Method", align="left")]
    for column in table.columns:
        headings.append(Heading(column.title, table.where(column)))
    headings += [*map(Heading, _COSTS), Heading("Provenance", align="left")]
    leaders = leading_rows(table)
    rows = []
    for place, row in enumerate(table.rows):
        cells = [GridCell(row.label)]
        cells += [
            _value(row.cells.get(column), strong=place in leaders.get(column, ()), part=column in row.parts)
            for column in table.columns
        ]
        cells += [GridCell(text) for text in _costs(row)]
        rows.append([*cells, GridCell(row.provenance)])
    notes = [*table.notes, *(_run_note(row.label, record) for row in table.rows for record in row.records)]
    legend = _legend(table) + ([LEGEND] if any(leaders.values()) else [])
    return Grid(table.title, headings, rows, legend, notes).without_empty_columns()


def pairs_grid(pairs: Sequence[Pair]) -> Grid:
    """Measured numbers beside published ones; what keeps them apart stands in footnotes."""
    headings = [
        Heading("Method", align="left"),
        Heading("Where", align="left"),
        Heading("Measured"),
        Heading("Published"),
        Heading("Published as", align="left"),
        Heading("Difference"),
        Heading("Notes"),
    ]
    marks: dict[str, str] = {}
    rows = []
    for pair in pairs:
        column, published = pair.column, pair.published
        difference = "" if pair.difference is None else f"{pair.difference:+.2f}"
        rows.append(
            [
                GridCell(pair.row),
                GridCell(f"{column.where} {column.title}"),
                _value([pair.measured], part=pair.result.part is not None),
                GridCell(f"{published.value:.2f}"),
                GridCell(", ".join(filter(None, (published.method, published.variant, published.backbone)))),
                GridCell(difference if pair.comparable else f"({difference})"),
                GridCell(" ".join(marks.setdefault(note, f"[{len(marks) + 1}]") for note in pair.notes)),
            ]
        )
    return Grid("Published and measured", headings, rows, footnotes={mark: note for note, mark in marks.items()})


def _value(metrics: Sequence[Metric] | None, strong: bool = False, part: bool = False) -> GridCell:
    """The mean of a cell's metrics.

    Args:
        metrics: one, or one per seed.
        strong: it leads its column.
        part: it was scored on part of the split, which the cell says.
    """
    if not metrics:
        return GridCell()
    value = mean_value(metrics)
    if value is None:
        return GridCell("n/d")
    half, seeds = spread(metrics)
    if part:
        return GridCell(f"{value:.2f} [part]", False, half, seeds)
    return GridCell(f"{value:.2f}", strong, half, seeds)


def _costs(row: Row) -> tuple[str, ...]:
    """Parameters in millions, samples per second in training and in inference; of a language model the tokens of a
    question and its answer, the seconds between them, and the price of 1,000 expressions."""
    return (
        millions(row.records[0].cost.parameters if row.records else None),
        rate(record.cost.train_samples_per_s for record in row.records),
        rate(inference_rate(record, row.prediction_set) for record in row.records),
        rate(tokens_per_answer(record) for record in row.records),
        rate(record.cost.answer_s for record in row.records),
        rate(price_per_1000(record) for record in row.records),
    )


def millions(count: int | None) -> str:
    """A number of parameters in millions, to the thousand where there are few."""
    if count is None:
        return ""
    return f"{count / 1e6:.1f}" if count >= 1e5 else f"{count / 1e6:.3f}"


def rate(rates: Iterable[float | None]) -> str:
    """The median of those that were measured, with three digits and no exponent."""
    measured = [rate for rate in rates if rate is not None]
    return f"{float(f'{statistics.median(measured):.3g}'):g}" if measured else ""  # 1010, never 1.01e+03


def _run_note(label: str, record: Record) -> str:
    """What tells a run from all others: configuration, seed, weights, code and machine."""
    code, hardware = record.environment.code, record.environment.hardware
    parts = [f"config {record.config_hash[:8]}"]
    if record.seed is not None:
        parts.append(f"seed {record.seed}")
    if record.checkpoint:
        parts.append(f"weights {record.checkpoint.sha256[:8]}")
    if code.commit:
        parts.append(f"commit {code.commit[:10]}{' with local changes' if code.dirty else ''}")
    parts.append(f"{hardware.gpus} x {hardware.gpu}" if hardware.gpu else f"{hardware.cpu}, {hardware.cores} cores")
    return f"{label}: {record.name} ({', '.join(parts)})"


def _legend(table: Table) -> list[str]:
    columns = set(table.columns)
    cells = [metrics for row in table.rows for column, metrics in row.cells.items() if column in columns]
    sentences = []
    if any(len(metrics) == 1 and metrics[0].low is not None for metrics in cells):
        sentences.append("±x: half of the 95 % interval (bootstrap clustered by image).")
    if any(len(metrics) > 1 for metrics in cells):
        sentences.append("± x (n seeds): standard deviation over seeds.")
    if any(column.control for column in table.columns):
        sentences.append("[...]: a control, the same checkpoint on spoilt input.")
    if any(price_per_1000(record) is not None for row in table.rows for record in row.records):
        sentences.append("$/1000: US dollars for 1,000 expressions, at the prices that were given for the runs.")
    return sentences
