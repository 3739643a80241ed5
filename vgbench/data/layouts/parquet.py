"""Reading the parquet files of the Hugging Face hub: columns, rows, and images inside the rows."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file
from vgbench.data.checks import BadSample, check_size
from vgbench.data.pixels import IMAGE_ERRORS, open_image

PARQUET_ERRORS = (OSError, pa.ArrowException, ValueError)


def embedded_size(content: Any) -> tuple[int, int]:
    """(width, height) of an image file given as bytes, from its header.

    Raises:
        BadSample: if it is none.
    """
    if not isinstance(content, bytes):
        raise BadSample("row without an image", type(content).__name__)
    try:
        with open_image(io.BytesIO(content)) as opened:
            return check_size(*opened.size)
    except IMAGE_ERRORS as error:
        raise BadSample("embedded image that is no image", " ".join(str(error).split())) from None


def parquet_columns(path: Path) -> list[str]:
    """Names of the columns of a file; raises UserError if it is damaged."""
    try:
        return pa.parquet.read_schema(ordinary_file(path)).names
    except PARQUET_ERRORS as error:
        raise _damaged(path, error) from None


def has_columns(path: Path, columns: Iterable[str]) -> bool:
    """Whether a file has all of ``columns``; raises UserError if it is damaged."""
    return set(columns) <= set(parquet_columns(path))


def read_rows(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    """The rows of a file with these columns; raises UserError if it is damaged or lacks one."""
    try:
        return pa.parquet.read_table(ordinary_file(path), columns=columns).to_pylist()
    except PARQUET_ERRORS as error:
        raise _damaged(path, error) from None


def iterate_rows(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """As :func:`read_rows`, a few rows in memory at a time: for columns of images."""
    try:
        with pa.parquet.ParquetFile(path) as file:
            absent = [name for name in columns if name not in file.schema_arrow.names]
            if absent:
                raise UserError(f"{path}: no column {absent[0]!r}; fetch the file again")
            for batch in file.iter_batches(batch_size=8, columns=columns):
                yield from batch.to_pylist()
    except PARQUET_ERRORS as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: not a readable parquet file ({' '.join(str(error).split())[:200]})")


def list_or_empty(value: Any) -> list[Any]:
    """A value that should be a list, for counting what is in it."""
    return value if isinstance(value, list) else []
