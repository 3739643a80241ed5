"""Tables as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vgbench.leaderboard.columns import inference_rate, metric_title
from vgbench.leaderboard.published import Pair
from vgbench.leaderboard.tables import Row, Table, best_values, mean_value, spread


@dataclass(frozen=True)
class Style:
    """How one text format writes a value, a best value, and a value with its spread."""

    bold: Callable[[str], str]
    spread: Callable[[float, int], str]
    text: Callable[[str], str]


def latex_text(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    return "".join(special.get(letter) or (f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


STYLES = {
    "markdown": Style(
        bold=lambda text: f"**{text}**",
        spread=lambda half, seeds: f" ±{half:.2f}" if seeds == 1 else f" ± {half:.2f} ({seeds} seeds)",
        text=lambda text: " ".join(text.replace("|", r"\|").split()),
    ),
    "latex": Style(
        bold=lambda text: rf"\textbf{{{text}}}",
        spread=lambda half, seeds: rf"{{\scriptsize$\pm${half:.2f}{'' if seeds == 1 else f' ({seeds})'}}}",
        text=latex_text,
    ),
}


def cell_texts(table: Table, style: Style) -> list[list[str]]:
    best = best_values(table)
    lines = []
    for row in table.rows:
        line = [style.text(row.label)]
        for column in table.columns:
            metrics = row.cells.get(column)
            value = mean_value(metrics)
            if not metrics or value is None:
                line.append("n/d" if metrics else "")
                continue
            half, seeds = spread(metrics)
            text = f"{value:.2f}"
            text = style.bold(text) if best.get(column) == round(value, 2) else text
            line.append(text + (style.spread(half, seeds) if half is not None else ""))
        line += [millions(row), rate(record.cost.train_samples_per_s for record in row.records)]
        line.append(rate(inference_rate(record, row.prediction_set) for record in row.records))
        lines.append([*line, style.text(row.provenance)])
    return lines


AFTER = ("Params (M)", "Train/s", "Infer/s", "Provenance")


def millions(row: Row) -> str:
    count = row.records[0].cost.parameters if row.records else None
    return "" if count is None else f"{count / 1e6:.1f}" if count >= 1e5 else f"{count / 1e6:.3f}"


def rate(rates: Iterable[float | None]) -> str:
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


def drop_empty(header: Sequence[str], lines: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Columns that no row fills are left out (a cost nobody measured)."""
    keep = [place for place in range(len(header)) if any(line[place] for line in lines)]
    return [header[place] for place in keep], [[line[place] for place in keep] for line in lines]


def run_notes(table: Table) -> list[str]:
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


def legend(table: Table) -> list[str]:
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


def markdown(made: Sequence[Table], pairs: Sequence[Pair]) -> str:
    parts = []
    for table in made:
        header = ["Method", *(" ".join(table.heading(column)) for column in table.columns), *AFTER]
        header, lines = drop_empty(header, cell_texts(table, STYLES["markdown"]))
        left = frozenset({0, len(header) - 1})
        parts += [f"## {table.title}", markdown_table(header, lines, left)]
        parts += [" ".join(legend(table))] if legend(table) else []
        notes = [*table.notes, *run_notes(table)]
        parts += ["\n".join(f"- {note}" for note in notes)] if notes else []
    if pairs:
        lines, reasons = pair_lines(pairs, STYLES["markdown"])
        parts += ["## Published and measured", markdown_table(PAIR_HEADER, lines, frozenset({0, 1, 4}))]
        parts += ["\n".join(f"{mark}: {note}  " for note, mark in reasons.items())] if reasons else []
    return "\n\n".join(parts) + "\n"


PAIR_HEADER = ("Method", "Where", "Measured", "Published", "Published as", "Difference", "Notes")


def pair_lines(pairs: Sequence[Pair], style: Style) -> tuple[list[list[str]], dict[str, str]]:
    notes: dict[str, str] = {}
    lines = []
    for pair in pairs:
        marks = [notes.setdefault(note, f"[{len(notes) + 1}]") for note in pair.notes]
        column, row = pair.column, pair.published
        half, _ = spread([pair.measured])
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
