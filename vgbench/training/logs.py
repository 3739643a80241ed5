"""What a run prints, and its logs joined over interruptions."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from vgbench.core.files import write_atomically
from vgbench.core.processes import process_rank

if TYPE_CHECKING:
    import pandas as pd


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
    import pandas as pd

    last = folder / "metrics.csv"  # there is none if all training steps were done before
    tables = [_read_log(path) for path in [*earlier, *([last] if last.exists() else [])]]
    parts = [table for table in tables if table is not None and len(table)]
    if parts:
        *before, table = parts
        for part in reversed(before):
            table = pd.concat([part[part["step"] < table["step"].min()], table], ignore_index=True)
        write_atomically(last, table.to_csv(index=False).encode())
    for path in earlier:
        path.unlink()


def _read_log(path: Path) -> pd.DataFrame | None:
    """The whole lines of a log, or None if there is nothing to read in it."""
    import pandas as pd

    whole, end, torn = path.read_bytes().rpartition(b"\n")
    header, *lines = (whole + end).decode("utf-8", errors="replace").splitlines() or [""]
    rows = [line for line in lines if line.count(",") == header.count(",")]
    if torn or len(rows) < len(lines) or not whole:
        say(f"note: {path.name} was cut off when the run was stopped; lines of its end are missing in the log")
    if "step" not in header.split(","):
        return None
    try:
        table = pd.read_csv(io.StringIO("\n".join([header, *rows])), float_precision="round_trip")
    except ValueError:  # pandas' errors of unreadable files are such
        return None
    steps = pd.to_numeric(table["step"], errors="coerce")
    return table[steps.notna()].assign(step=steps[steps.notna()].astype(int))


def say(text: str) -> None:
    if process_rank() == 0:
        print(text, flush=True)
