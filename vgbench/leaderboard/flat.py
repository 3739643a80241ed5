"""Tables as CSV and JSON: one line per number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from vgbench.leaderboard.columns import inference_rate, numbers, row_label
from vgbench.leaderboard.pairs import Pair
from vgbench.records.record import Record


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


def csv_text(lines: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def flat_pair(pair: Pair) -> dict[str, Any]:
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
