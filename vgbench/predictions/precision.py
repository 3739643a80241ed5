"""Numbers of single precision as the decimals that they are: 0.7 of a float32 column is 0.7, not 0.699999988."""

from __future__ import annotations

import pyarrow as pa


def decimals(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column, in which float32 numbers (also in lists and structs) are float64, by their shortest decimals.

    Thresholds are decimals; without this a score of exactly 0.7 would stay below 0.7 for the file's own precision.
    """
    texts, doubles = (_with_float32_as(column.type, kind) for kind in (pa.string(), pa.float64()))
    if texts.equals(column.type):
        return column
    try:
        return column.cast(texts).cast(doubles)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # a kind of list that this pyarrow cannot cast
        return column


def _with_float32_as(kind: pa.DataType, number: pa.DataType) -> pa.DataType:
    if pa.types.is_float32(kind):
        return number
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_with_float32_as(kind.value_type, number), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(_with_float32_as(kind.value_type, number))
    if pa.types.is_list(kind):
        return pa.list_(_with_float32_as(kind.value_type, number))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _with_float32_as(field.type, number)) for field in kind])
    return kind
