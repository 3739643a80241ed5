"""What a run prints, and its logs joined over interruptions."""

from __future__ import annotations

from pathlib import Path

from vgbench.core.files import write_atomically
from vgbench.training.folder import process_rank


def join_logs(folder: Path) -> None:
    """Put the logs of the stopped runs before the last one's; steps that were done again count once."""
    earlier = sorted(folder.glob("metrics.before*.csv"), key=lambda path: (len(path.name), path.name))
    if not earlier:
        return
    import pandas as pd

    last = folder / "metrics.csv"  # there is none if all training steps were done before
    *before, table = [
        pd.read_csv(path, float_precision="round_trip") for path in [*earlier, *([last] if last.exists() else [])]
    ]
    for part in reversed(before):
        table = pd.concat([part[part["step"] < table["step"].min()], table], ignore_index=True)
    write_atomically(folder / "metrics.csv", table.to_csv(index=False).encode())
    for path in earlier:
        path.unlink()


def say(text: str) -> None:
    if process_rank() == 0:
        print(text, flush=True)
