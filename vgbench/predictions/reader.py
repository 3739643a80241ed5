"""Predictions files: reading, checking, aligning with the annotation table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file
from vgbench.data.table import AnnotationTable
from vgbench.predictions.checks import DESCRIPTION, check
from vgbench.predictions.precision import decimals
from vgbench.predictions.table import SCHEMA, Predictions, short_text
from vgbench.types import Prediction

_OTHERS = "; for a file of another tool state style= or format= (vgbench score --help)"


def read_predictions(
    path: str | Path, table: AnnotationTable | None = None, missing: Literal["error", "empty"] = "error"
) -> Predictions:
    """Read and check a predictions file.

    Args:
        path: ``.parquet`` or ``.jsonl``.
        table: the expressions that were predicted; the result is in their order.
        missing: what an expression of ``table`` without prediction is: an error, or an empty answer (which is wrong
            unless nothing was meant).

    Raises:
        UserError: if the file cannot be read, a value is damaged (not finite, x2 < x1, more scores than boxes, scores
            that increase, an RLE of the wrong size), or keys are unknown, missing or doubled. The message names file,
            line or row, key and fix.
    """
    path = Path(path)
    try:
        if path.suffix == ".parquet":
            arrow = _read_parquet(path)
        elif path.suffix in (".jsonl", ".ndjson"):
            arrow = _read_jsonl(path)
        else:
            raise UserError(
                f"{path}: predictions are read from .parquet or .jsonl; convert or rename the file{_OTHERS}"
            )
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    predictions = Predictions(arrow)
    check(predictions, str(path), "row" if path.suffix == ".parquet" else "line")
    return predictions if table is None else align(predictions, table, missing, str(path))


def _read_parquet(path: Path) -> pa.Table:
    try:
        arrow = pq.read_table(ordinary_file(path))
        _check_columns(path, arrow.schema.names)
        columns = []
        for field in SCHEMA:
            if field.name not in arrow.schema.names:
                columns.append(pa.nulls(len(arrow), field.type))
                continue
            column = arrow.column(field.name)
            column = (decimals(column) if field.name == "scores" else column).combine_chunks()
            if not field.nullable and column.null_count:
                raise UserError(f"{path}: column {field.name!r} has missing values; fill them")
            if field.name == "boxes" and not column.type.equals(field.type):
                column = pa.array(column.to_pylist(), field.type)
            columns.append(column.cast(field.type))
    except (pa.ArrowException, KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise UserError(f"{path}: no predictions file ({' '.join(str(error).split())})") from None
    return pa.table(columns, schema=SCHEMA)


def _check_columns(where: object, names: Sequence[str]) -> None:
    unknown = sorted(set(names) - set(SCHEMA.names))
    if unknown:
        raise UserError(f"{where}: unknown field {unknown[0]!r}; remove it (known: {', '.join(SCHEMA.names)}){_OTHERS}")
    for name in ("key", "boxes"):
        if name not in names:
            raise UserError(f"{where}: field {name!r} is missing; add it")
    if str(where).endswith(".parquet") and "scores" not in names:
        raise UserError(f"{where}: column 'scores' is missing; add it (1.0 for every box if the model gives none)")


def _read_jsonl(path: Path) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    with ordinary_file(path).open("rb") as file:
        for number, text in enumerate(file, start=1):
            where = f"{path}: line {number}"
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"{where}: not JSON ({error}); write one object per line, without blank lines"
                ) from None
            if not isinstance(row, dict):
                raise UserError(f"{where}: a {type(row).__name__}, not an object with key and boxes")
            _check_columns(where, list(row))
            row.setdefault("scores", [1.0] * len(row["boxes"]) if isinstance(row["boxes"], list) else None)
            for name, values in columns.items():
                values.append(row.get(name))
    arrays = []
    for field in SCHEMA:
        values = columns[field.name]
        try:
            arrays.append(_array(values, field))
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError, OverflowError):
            line = 1 + next(index for index, value in enumerate(values) if not _fits(value, field))
            raise UserError(
                f"{path}: line {line} (key {columns['key'][line - 1]!r}): {field.name} is "
                f"{short_text(values[line - 1])}, expected {DESCRIPTION[field.name]}"
            ) from None
        if not field.nullable and arrays[-1].null_count:
            line = 1 + values.index(None)
            raise UserError(f"{path}: line {line}: {field.name} is null; expected {DESCRIPTION[field.name]}")
    return pa.table(arrays, schema=SCHEMA)


def _array(values: list[Any], field: pa.Field) -> pa.Array:
    array = pa.array(values, field.type)
    if field.name == "point" and array.to_pylist() != values:
        raise ValueError("Arrow cuts fractions off")
    return array


def _fits(value: Any, field: pa.Field) -> bool:
    try:
        _array([value], field)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError, OverflowError):
        return False
    return True


def align(
    predictions: Predictions,
    table: AnnotationTable,
    missing: Literal["error", "empty"] = "error",
    name: str = "predictions",
) -> Predictions:
    """Predictions in the order of ``table``.

    Raises:
        UserError: if a key is unknown, missing (unless ``missing="empty"``) or doubled, or a mask has another size
            than its image.
    """
    split = f"{table.info.get('dataset', 'the dataset')} {table.info.get('split', '')}".strip()
    table_keys = table.arrow.column("key").combine_chunks()
    _check_keys(predictions.keys, table_keys, split, name)
    order = pc.index_in(table_keys, predictions.keys)
    if order.null_count:
        absent = table_keys.filter(pc.is_null(order))
        if missing == "error":
            raise UserError(
                f"{name}: {len(absent)} of {len(table_keys)} expressions of {split} are missing, first "
                f"{absent[0].as_py()!r}; write a line with an empty list of boxes where there is no answer"
            )
        none = Predictions.from_list(
            absent.to_pylist(), [Prediction(np.zeros((0, 4)), np.zeros(0)) for _ in range(len(absent))]
        )
        predictions = Predictions(pa.concat_tables([predictions.arrow, none.arrow]))
        order = pc.index_in(table_keys, predictions.keys)
    aligned = predictions.take(order.to_numpy(zero_copy_only=False))
    _check_mask_sizes(aligned, table, name)
    return aligned


def _check_keys(keys: pa.Array, table_keys: pa.Array, split: str, name: str) -> None:
    counts = pc.value_counts(keys)
    doubled = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if len(doubled):
        raise UserError(f"{name}: key {doubled[0].as_py()!r} occurs more than once; keep one line for each expression")
    unknown = pc.index_in(keys, table_keys).null_count
    if unknown:
        position = pc.index(pc.is_null(pc.index_in(keys, table_keys)), pa.scalar(True)).as_py()
        example = f", a key looks like {table_keys[0].as_py()!r}" if len(table_keys) else ""
        raise UserError(
            f"{name}: {unknown} of {len(keys)} keys are not in {split}, first {keys[position].as_py()!r}{example}; "
            "name the dataset and split that was predicted"
        )


def _check_mask_sizes(aligned: Predictions, table: AnnotationTable, name: str) -> None:
    heights, widths = table.column("height"), table.column("width")
    cuts = aligned.arrow.column("masks_at").to_pylist()
    for index, (mask, row) in enumerate(zip(aligned.masks(), cuts, strict=True)):
        size = [int(heights[index]), int(widths[index])]
        for one in (mask, *(cut["mask"] for cut in row or ())):
            if one is not None and one["size"] != size:
                raise UserError(
                    f"{name}: key {aligned.keys[index].as_py()!r}: mask is {one['size']}, the image is {size} "
                    "(height, width); resize it to the image"
                )
