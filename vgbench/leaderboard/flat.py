"""Tables as CSV and JSON: one line per number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from vgbench.leaderboard.columns import Column, inference_rate, numbers, price_per_1000, row_label
from vgbench.leaderboard.pairs import Pair
from vgbench.records.record import Metric, Record, Result


def flat(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Every number of every record as one dictionary: the CSV and JSON formats."""
    return [
        _number(record, result, column, metric)
        for record in records
        for result in record.results
        for column, metric in numbers(result)
    ]


def _number(record: Record, result: Result, column: Column, metric: Metric) -> dict[str, Any]:
    cost, hardware = record.cost, record.environment.hardware
    return {
        "row": row_label(record, result),
        "method": record.method,
        "variant": record.variant,
        "prediction_set": result.prediction_set,
        "provenance": record.provenance,
        "checkpoint": record.checkpoint.origin if record.checkpoint else None,
        **_names(column),
        "value": metric.value,
        "low": metric.low,
        "high": metric.high,
        "n": metric.n,
        "part": result.part,
        "seed": record.seed,
        "parameters": cost.parameters,
        "flops": cost.flops,
        "train_samples_per_s": cost.train_samples_per_s,
        "inference_samples_per_s": inference_rate(record, result.prediction_set),
        "device": hardware.gpu or hardware.cpu,
        "config_hash": record.config_hash,
        "commit": record.environment.code.commit,
        "created": record.created,
        "run": record.name,
        "prompt_tokens": cost.prompt_tokens,
        "answer_tokens": cost.answer_tokens,
        "answer_s": cost.answer_s,
        "price_per_1000": price_per_1000(record),
    }


def _names(column: Column) -> dict[str, Any]:
    """The fields of a column; the variant of its metric under a name that no model's variant has."""
    return {
        "embedded": column.embedded,
        "task": column.task,
        "dataset": column.dataset,
        "split_by": column.split_by,
        "split": column.split,
        "data_hash": column.data_hash,
        "metric": column.metric,
        "metric_variant": column.variant,
        "control": column.control,
    }


def csv_text(lines: Sequence[dict[str, Any]]) -> str:
    """Dictionaries as CSV, with a column for every key that any of them has."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in line.items()} for line in lines)
    return out.getvalue()


def _cell(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula (https://owasp.org/www-community/attacks/CSV_Injection)."""
    if isinstance(value, str):
        value = value.replace("\0", "\ufffd")  # csv writes none before Python 3.11
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if formula else value


def flat_pair(pair: Pair) -> dict[str, Any]:
    """A published number with the measured one beside it as one dictionary."""
    published = pair.published
    return {
        "row": pair.row,
        "provenance": "published",
        **_names(pair.column),
        "value": published.value,
        "measured": pair.measured.value,
        "difference": pair.difference,
        "comparable": pair.comparable,
        "notes": "; ".join(pair.notes),
        "published_method": published.method,
        "published_variant": published.variant,
        "published_backbone": published.backbone,
        "published_metric": published.metric,
        "source_title": published.source_title,
        "source_id": published.source_id,
        "source_place": published.source_place,
        "quoted_by": published.quoted_by,
    }
