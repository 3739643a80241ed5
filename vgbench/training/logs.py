"""What a run prints, and its logs joined over interruptions."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path

from vgbench.core.files import ordinary_file, write_atomically
from vgbench.core.processes import process_rank


def set_log_aside(folder: Path) -> None:
    """Lightning starts metrics.csv afresh when a run is resumed; keep what the stopped run wrote."""
    log_file = folder / "metrics.csv"
    if process_rank() == 0 and log_file.exists():
        number = len(list(folder.glob("metrics.before*.csv"))) + 1
        log_file.rename(folder / f"metrics.before{number}.csv")


def join_logs(folder: Path) -> None:
    """Put the logs of the stopped runs before the last one's; steps that were done again count once.

    What a killed process left half written costs lines of the log, which are said to be missing, and nothing else.
    """
    earlier = sorted(folder.glob("metrics.before*.csv"), key=lambda path: (len(path.name), path.name))
    if not earlier:
        return
    last = folder / "metrics.csv"  # there is none if all training steps were done before
    tables = [_read_log(path) for path in [*earlier, *([last] if last.exists() else [])]]
    parts = [table for table in tables if table]
    if parts:
        *before, table = parts
        for part in reversed(before):
            first = min(int(row["step"]) for row in table)
            table = [row for row in part if int(row["step"]) < first] + table
        out = io.StringIO()
        columns = dict.fromkeys(name for row in table for name in row)
        writer = csv.DictWriter(out, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        write_atomically(last, out.getvalue().encode())
    for path in earlier:
        path.unlink()


def _read_log(path: Path) -> list[dict[str, str]]:
    """The whole lines of a log that name a step, by column."""
    whole, end, torn = ordinary_file(path).read_bytes().rpartition(b"\n")
    header, *lines = (whole + end).decode("utf-8", errors="replace").splitlines() or [""]
    rows = [line for line in lines if line.count(",") == header.count(",")]
    if torn or len(rows) < len(lines) or not whole:
        say(f"note: {path.name} was cut off when the run was stopped; lines of its end are missing in the log")
    table = []
    for row in csv.DictReader([header, *rows]):
        with contextlib.suppress(KeyError, ValueError, OverflowError):  # no number there
            table.append(row | {"step": str(int(float(row["step"])))})
    return table


def say(text: str) -> None:
    if process_rank() == 0:
        print(text, flush=True)
