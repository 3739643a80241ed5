"""Predictions to disk, batch by batch and process by process."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from vgbench.core.errors import UserError
from vgbench.core.files import naming
from vgbench.predictions.reader import read_predictions
from vgbench.predictions.table import FILE_SCHEMA, Predictions
from vgbench.types import Prediction


class PredictionWriter:
    """Write a predictions file batch by batch; it appears under its name only when it is complete.

    Use as a context manager, or call :meth:`close`; on an exception inside the ``with`` block nothing is left behind.

    Args:
        path: ``.parquet`` or ``.jsonl``.
        group: rows per Parquet row group.

    Raises:
        UserError: if the name ends in neither.
    """

    def __init__(self, path: str | Path, group: int = 1024) -> None:
        self.path = Path(path)
        if self.path.suffix not in (".parquet", ".jsonl"):
            raise UserError(f"{self.path}: predictions are written as .parquet or .jsonl; rename the file")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        self._file: IO[bytes] | None = self._temporary.open("wb")
        self._parquet = pq.ParquetWriter(self._file, FILE_SCHEMA) if self.path.suffix == ".parquet" else None
        self._group, self._waiting, self._rows = group, [], 0  # type: int, list[pa.Table], int

    def write(self, keys: Sequence[str], predictions: Sequence[Prediction]) -> None:
        """Append the predictions of a batch."""
        self.write_table(Predictions.from_list(keys, predictions))

    def write_table(self, predictions: Predictions) -> None:
        """Append predictions that are a table already."""
        self._waiting.append(predictions.arrow)
        self._rows += len(predictions)
        if self._rows >= self._group:
            with naming(self.path):
                self._flush()

    def _flush(self) -> None:
        assert self._file is not None
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting, self._rows = [], 0
        if self._parquet is not None:
            self._parquet.write_table(table.cast(FILE_SCHEMA), row_group_size=self._group)
            return
        for row in table.to_pylist():
            kept = {name: value for name, value in row.items() if value is not None}
            self._file.write(json.dumps(kept).encode() + b"\n")

    def close(self) -> None:
        """Finish the file and give it its name. Further calls do nothing."""
        if self._file is None:
            return
        try:
            with naming(self.path):
                self._flush()
                if self._parquet is not None:
                    self._parquet.close()
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self._temporary.replace(self.path)
        finally:
            self.abort()

    def abort(self) -> None:
        """Throw away what was written."""
        if self._file is not None and not self._file.closed:
            with suppress(OSError):  # on a full disk they write once more
                if self._parquet is not None:
                    self._parquet.close()
            with suppress(OSError):
                self._file.close()
        self._file = None
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def merge_parts(parts: Sequence[Path], path: Path) -> None:
    """Join the files that several processes wrote and delete them.

    A sampler that makes all processes equally long hands out some expressions twice; the first one of each key stays.
    """
    seen: set[str] = set()
    with PredictionWriter(path) as writer:
        for part in parts:
            predictions = read_predictions(part)
            fresh = []
            for index, key in enumerate(predictions.keys.to_pylist()):
                if key not in seen:
                    seen.add(key)
                    fresh.append(index)
            writer.write_table(predictions.take(fresh))
    for part in parts:
        if Path(part) != Path(path):
            Path(part).unlink()
