"""The log of a training, ``logs/metrics.csv``: a run that goes on writes it on from where its checkpoint was."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from vgbench.core.files import naming, ordinary_file, write_atomically
from vgbench.training.logs import say

FILE = "metrics.csv"
STEP = "step"


class RunLog(Logger):
    """Lines of numbers with their step as CSV. A column that comes later rewrites the file, atomically.

    Args:
        save_dir: the run folder.
        name, version: of the folder of the file in it, as Lightning's loggers have them.
        flush_logs_every_n_steps: lines that are kept in memory between two checkpoints.
    """

    def __init__(
        self, save_dir: str | Path, name: str = "", version: str = "logs", flush_logs_every_n_steps: int = 50
    ) -> None:
        super().__init__()
        self._save_dir, self._name, self._version = Path(save_dir), name, version
        self.flush_every = flush_logs_every_n_steps
        self.columns: list[str] = []
        self._written, self._new = 0, list[dict[str, Any]]()
        self._last: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return self._version

    @property
    def save_dir(self) -> str:
        return str(self._save_dir)

    @property
    def path(self) -> Path:
        return self._save_dir / self._name / self._version / FILE

    @property
    def lines(self) -> int:
        """Lines so far, those in memory included."""
        return self._written + len(self._new)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """The configuration stands in the run folder."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a line, unless it is the last one again."""
        line = {**metrics, STEP: self.lines if step is None else step}
        if line == self._last:
            return
        self._last = line
        self._new.append(line)
        if len(self._new) >= self.flush_every:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write what is in memory to the disk."""
        if not self._new:
            return
        columns = sorted({*self.columns, *(name for line in self._new for name in line)})
        if columns != self.columns:
            before = _whole_lines(self.path)[1][: self._written] if self._written else []
            self._rewrite(columns, before)
        with naming(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns).writerows(self._new)
            file.flush()
            os.fsync(file.fileno())
        self._written, self._new = self.lines, []

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    @rank_zero_only
    def go_on(self, lines: int | None, step: int) -> None:
        """Keep what was logged before the checkpoint that the training goes on from.

        Args:
            lines: that many; None (a checkpoint of an older version): those before ``step``.
            step: the training's next.
        """
        if not self.path.exists():
            return
        columns, rows = _whole_lines(self.path)
        if lines is None:
            rows = [row for row in rows if row[STEP].isdigit() and int(row[STEP]) < step]
        elif len(rows) < lines:
            say(f"note: {FILE} was cut off when the run was stopped; {lines - len(rows)} lines are missing in the log")
        self._rewrite(columns, rows[:lines])

    def _rewrite(self, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        if columns:
            writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path, text.getvalue().encode())
        self.columns, self._written = list(columns), len(rows)


def _whole_lines(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and lines of a log up to the first that is torn."""
    text = ordinary_file(path).read_bytes().rpartition(b"\n")[0].decode("utf-8", errors="replace")
    try:
        table = list(csv.reader(io.StringIO(text)))
    except csv.Error:
        return [], []
    if not table or STEP not in table[0]:
        return [], []
    columns, rows = table[0], []
    for values in table[1:]:
        if len(values) != len(columns):
            break
        rows.append(dict(zip(columns, values, strict=True)))
    return columns, rows


class LogPosition(Callback):
    """Has the log on the disk whenever a checkpoint is written, and cut back to there when a training goes on."""

    def __init__(self) -> None:
        self.lines: int | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._logs = [logger for logger in trainer.loggers if isinstance(logger, RunLog)]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for log in self._logs:
            log.go_on(self.lines, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        for logger in self._logs:
            logger.save()
        return {"lines": self._logs[0].lines} if self._logs else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.lines = state_dict.get("lines")
