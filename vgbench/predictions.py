"""The predictions file: what a model said about every expression of a split, and the only thing that metrics read.

Parquet (``.parquet``) and JSON lines (``.jsonl``), one row or line per expression, boxes and points in pixels of the
original image:

===============  ==============================================================================================
``key``          the expression's key in the annotation table
``boxes``        list of ``[x1, y1, x2, y2]``, best first; empty: no answer
``scores``       one number in [0, 1] per box, never increasing; left out in JSON lines: 1 for every box
``mask``         optional, union of all targets as COCO RLE ``{"size": [height, width], "counts": "..."}``
``no_target``    optional, the model's own decision that nothing is meant
``point``        optional, ``[x, y]`` integer pixel
``heatmap``      optional, ``{"size": [h, w], "values": [...]}``, row-major, any size, covers the whole image
``canvas_mask``  optional, COCO RLE in the network's frame, for metric variants that are defined there
``geometry``     optional, that frame: ``{"scale": [x, y], "offset": [x, y], "size": [h, w], "canvas": [h, w]}``
``masks_at``     optional, ``[{"percent": 50, "mask": {...}}, ...]``: the mask cut at other probabilities
===============  ==============================================================================================

In memory it is the same table in Arrow, with NumPy views of its columns.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.data.table import AnnotationTable
from vgbench.types import Geometry, Prediction

__all__ = ["SCHEMA", "PredictionWriter", "Predictions", "merge_parts", "read_predictions"]

# Two numbers, as lists of any length: pyarrow before 26 cannot read lists of fixed length with missing entries.
_PIXELS, _NUMBERS = pa.list_(pa.int32()), pa.list_(pa.float64())
_RLE = pa.struct([pa.field("size", _PIXELS), pa.field("counts", pa.string())])


def _schema(heat: pa.DataType) -> pa.Schema:
    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("boxes", pa.list_(pa.list_(pa.float32(), 4)), nullable=False),
            pa.field("scores", pa.list_(pa.float32()), nullable=False),
            pa.field("mask", _RLE),
            pa.field("no_target", pa.bool_()),
            pa.field("point", _PIXELS),
            pa.field("heatmap", pa.struct([pa.field("size", _PIXELS), pa.field("values", heat)])),
            pa.field("canvas_mask", _RLE),
            pa.field(
                "geometry",
                pa.struct(
                    [
                        pa.field("scale", _NUMBERS),
                        pa.field("offset", _NUMBERS),
                        pa.field("size", _PIXELS),
                        pa.field("canvas", _PIXELS),
                    ]
                ),
            ),
            pa.field("masks_at", pa.list_(pa.struct([pa.field("percent", pa.int32()), pa.field("mask", _RLE)]))),
        ]
    )


SCHEMA = _schema(pa.list_(pa.float32()))
FILE_SCHEMA = _schema(pa.list_(pa.float16()))  # half the space; a peak is stored exactly as ``point``


class Predictions:
    """Predictions of n expressions, in any order. Read-only.

    Attributes:
        arrow: table with :data:`SCHEMA`.
    """

    def __init__(self, arrow: pa.Table) -> None:
        if arrow.schema.names != SCHEMA.names:
            raise ValueError(f"predictions have columns {arrow.schema.names}, expected {SCHEMA.names}")
        self.arrow = arrow

    @classmethod
    def from_list(cls, keys: Sequence[str], predictions: Sequence[Prediction]) -> Predictions:
        """Put what :meth:`GroundingMethod.predict` returned for a batch into a table."""
        if len(keys) != len(predictions):
            raise ValueError(f"{len(keys)} keys, {len(predictions)} predictions")
        boxes = [np.asarray(p.boxes.detach().float().cpu()).reshape(-1, 4) for p in predictions]
        scores = [np.asarray(p.scores.detach().float().cpu()).reshape(-1) for p in predictions]
        for key, box, score in zip(keys, boxes, scores, strict=True):
            if len(box) != len(score):
                raise ValueError(f"{key}: {len(box)} boxes, {len(score)} scores")
        offsets = pa.array(np.cumsum([0, *map(len, boxes)]), pa.int32())
        flat = np.concatenate([*boxes, np.zeros((0, 4), np.float32)]).reshape(-1)
        heat = [
            None if p.heatmap is None else {"size": list(p.heatmap.shape), "values": _flat(p.heatmap)}
            for p in predictions
        ]
        columns = [
            pa.array(keys, pa.string()),
            pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), 4)),
            pa.ListArray.from_arrays(offsets, pa.array(np.concatenate([*scores, np.zeros(0, np.float32)]))),
            pa.array([p.mask for p in predictions], _RLE),
            pa.array([None if p.no_target is None else bool(p.no_target) for p in predictions], pa.bool_()),
            pa.array([None if p.point is None else [int(v) for v in p.point] for p in predictions], _type("point")),
            pa.array(heat, _type("heatmap")),
            pa.array([p.canvas_mask for p in predictions], _RLE),
            pa.array([None if p.geometry is None else vars(p.geometry) for p in predictions], _type("geometry")),
            pa.array([_cuts(p.masks_at) for p in predictions], _type("masks_at")),
        ]
        return cls(pa.table(columns, schema=SCHEMA))

    def __len__(self) -> int:
        return self.arrow.num_rows

    def __iter__(self) -> Iterator[Prediction]:
        return (self.prediction(index) for index in range(len(self)))

    def take(self, indices: Sequence[int] | np.ndarray) -> Predictions:
        return Predictions(self.arrow.take(pa.array(np.asarray(indices, dtype=np.int64))))

    def prediction(self, index: int) -> Prediction:
        """The prediction at ``index``, as a method would have returned it."""
        row = {name: self._columns[name][index].as_py() for name in SCHEMA.names}
        heat, frame = row["heatmap"], row["geometry"]
        return Prediction(
            boxes=torch.tensor(row["boxes"], dtype=torch.float32).reshape(-1, 4),
            scores=torch.tensor(row["scores"], dtype=torch.float32),
            mask=row["mask"],
            no_target=row["no_target"],
            point=None if row["point"] is None else (row["point"][0], row["point"][1]),
            heatmap=None if heat is None else torch.tensor(heat["values"]).reshape(heat["size"]),
            canvas_mask=row["canvas_mask"],
            geometry=None if frame is None else Geometry(**{name: tuple(value) for name, value in frame.items()}),
            masks_at=None if row["masks_at"] is None else {cut["percent"]: cut["mask"] for cut in row["masks_at"]},
        )

    @cached_property
    def _columns(self) -> dict[str, Any]:
        return {name: self.arrow.column(name).combine_chunks() for name in SCHEMA.names}

    @property
    def keys(self) -> pa.Array:
        return self._columns["key"]

    @cached_property
    def boxes(self) -> np.ndarray:
        """All boxes, float32 [N, 4], expression after expression (:attr:`box_counts` says how many each)."""
        return self._columns["boxes"].flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)

    @cached_property
    def scores(self) -> np.ndarray:
        """All scores, float32 [N], as :attr:`boxes`."""
        return self._columns["scores"].flatten().to_numpy(zero_copy_only=False)

    @cached_property
    def box_counts(self) -> np.ndarray:
        """Boxes per expression, int64 [n]."""
        return pc.list_value_length(self._columns["boxes"]).to_numpy(zero_copy_only=False).astype(np.int64)

    @cached_property
    def no_target(self) -> np.ndarray:
        """int8 [n]: 1 no target, 0 target, -1 the method does not say."""
        column = pc.fill_null(pc.cast(self._columns["no_target"], pa.int8()), -1)
        return column.to_numpy(zero_copy_only=False)

    @cached_property
    def points(self) -> np.ndarray:
        """int64 [n, 2] (x, y); (-1, -1) where there is none."""
        return np.array([value or (-1, -1) for value in self._columns["point"].to_pylist()], np.int64).reshape(-1, 2)

    def masks(self, column: Literal["mask", "canvas_mask"] = "mask") -> list[dict[str, Any] | None]:
        """COCO RLEs, None where there is none."""
        return self._columns[column].to_pylist()

    def masks_at(self, percent: int) -> list[dict[str, Any] | None]:
        """COCO RLEs of the masks cut at this probability, None where there is none."""
        cuts = self._columns["masks_at"].to_pylist()
        return [next((cut["mask"] for cut in row or () if cut["percent"] == percent), None) for row in cuts]

    def heatmap(self, index: int) -> torch.Tensor | None:
        """float32 [h, w] or None."""
        value = self._columns["heatmap"][index]
        if not value.is_valid:
            return None
        values = torch.from_numpy(value["values"].values.to_numpy(zero_copy_only=False).copy())
        return values.reshape(value["size"].as_py())

    def geometry(self) -> list[Geometry | None]:
        """The network frame of each expression, None where it was not stored."""
        return [
            None if value is None else Geometry(**{name: tuple(side) for name, side in value.items()})
            for value in self._columns["geometry"].to_pylist()
        ]

    def has(self, column: str) -> bool:
        """True if any expression has a value in an optional column."""
        return self._columns[column].null_count < len(self)


def _type(column: str) -> pa.DataType:
    return SCHEMA.field(column).type


def _cuts(masks: dict[int, dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    return None if masks is None else [{"percent": percent, "mask": mask} for percent, mask in masks.items()]


def _flat(heatmap: torch.Tensor) -> np.ndarray:
    return heatmap.detach().float().cpu().numpy().reshape(-1)


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
            if self._parquet is not None:
                self._parquet.close()
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
            raise UserError(f"{path}: predictions are read from .parquet or .jsonl; convert or rename the file")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    predictions = Predictions(arrow)
    check(predictions, str(path), "row" if path.suffix == ".parquet" else "line")
    return predictions if table is None else align(predictions, table, missing, str(path))


def _read_parquet(path: Path) -> pa.Table:
    try:
        arrow = pq.read_table(path)
        _check_columns(path, arrow.schema.names)
        columns = []
        for field in SCHEMA:
            if field.name not in arrow.schema.names:
                columns.append(pa.nulls(len(arrow), field.type))
                continue
            column = arrow.column(field.name).combine_chunks()
            if not field.nullable and column.null_count:
                raise UserError(f"{path}: column {field.name!r} has missing values; fill them")
            if field.name == "boxes" and not column.type.equals(field.type):
                column = pa.array(column.to_pylist(), field.type)
            columns.append(column.cast(field.type))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise UserError(f"{path}: no predictions file ({' '.join(str(error).split())})") from None
    return pa.table(columns, schema=SCHEMA)


def _check_columns(where: object, names: Sequence[str]) -> None:
    unknown = sorted(set(names) - set(SCHEMA.names))
    if unknown:
        raise UserError(f"{where}: unknown field {unknown[0]!r}; remove it (known: {', '.join(SCHEMA.names)})")
    for name in ("key", "boxes"):
        if name not in names:
            raise UserError(f"{where}: field {name!r} is missing; add it")
    if str(where).endswith(".parquet") and "scores" not in names:
        raise UserError(f"{where}: column 'scores' is missing; add it (1.0 for every box if the model gives none)")


def _read_jsonl(path: Path) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    with path.open("rb") as file:
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
                f"{path}: line {line} (key {columns['key'][line - 1]!r}): {field.name} is {_short(values[line - 1])}, "
                f"expected {_DESCRIPTION[field.name]}"
            ) from None
        if not field.nullable and arrays[-1].null_count:
            line = 1 + values.index(None)
            raise UserError(f"{path}: line {line}: {field.name} is null; expected {_DESCRIPTION[field.name]}")
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


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_NO_MASK: dict[str, Any] = {"size": None, "counts": None}
_DESCRIPTION = {
    "key": "text",
    "boxes": "a list of [x1, y1, x2, y2]",
    "scores": "a list of numbers, one per box",
    "mask": '{"size": [height, width], "counts": text}',
    "no_target": "true or false",
    "point": "[x, y] in whole pixels",
    "heatmap": '{"size": [h, w], "values": [h * w numbers]}',
    "canvas_mask": '{"size": [height, width], "counts": text}',
    "geometry": '{"scale": [x, y], "offset": [x, y], "size": [h, w], "canvas": [h, w]}',
    "masks_at": '[{"percent": number, "mask": {"size": [height, width], "counts": text}}, ...]',
}


def _complete(side: list[float | None] | None) -> bool:
    """Whether both numbers of a pair are there, and no more."""
    return side is not None and len(side) == 2 and None not in side


def check(predictions: Predictions, name: str, unit: str) -> None:
    """Check the values that need no annotations. ``name`` and ``unit`` ("row", "line") go into the message.

    Raises:
        UserError: for the first bad value.
    """

    def fail(bad: np.ndarray, problem: str) -> None:
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            key = predictions.keys[index].as_py()
            raise UserError(f"{name}: {unit} {index + 1} (key {key!r}): {problem}")

    counts = predictions.box_counts
    score_counts = pc.list_value_length(predictions.arrow.column("scores")).to_numpy()
    fail(counts != score_counts, "as many scores as boxes are needed; leave scores out in .jsonl if there are none")
    owner = np.repeat(np.arange(len(predictions)), counts)

    def any_box(bad: Any) -> np.ndarray:
        return np.bincount(owner[bad], minlength=len(predictions)) > 0

    boxes, scores = predictions.boxes, predictions.scores
    fail(any_box(~np.isfinite(boxes).all(1)), "a box is not finite; write no box instead")
    fail(any_box((boxes[:, 2:] < boxes[:, :2]).any(1)), "a box has x2 < x1 or y2 < y1; write it as [x1, y1, x2, y2]")
    fail(any_box(~((scores >= 0) & (scores <= 1))), "a score is outside [0, 1]; rescale the scores")
    rising = np.zeros(len(scores), dtype=bool)
    rising[1:] = (scores[1:] > scores[:-1]) & (owner[1:] == owner[:-1])
    fail(any_box(rising), "scores increase along the list; sort the boxes, best first")
    points = predictions.arrow.column("point").to_pylist()
    fail(
        np.array([point is not None and not _complete(point) for point in points], dtype=bool),
        f"point is incomplete; give {_DESCRIPTION['point']}",
    )
    cuts = list(enumerate(predictions.arrow.column("masks_at").to_pylist()))
    broken = [row is not None and not all(cut and 0 < (cut["percent"] or 0) < 100 for cut in row) for _, row in cuts]
    fail(np.array(broken, dtype=bool), "masks_at needs a percent of 1 to 99 with each mask; correct it")
    masks = {column: list(enumerate(predictions.masks(column))) for column in ("mask", "canvas_mask")}  # type: ignore[arg-type]
    masks["masks_at"] = [(index, cut["mask"] or _NO_MASK) for index, row in cuts for cut in row or ()]
    for column, indexed in masks.items():
        given = [(index, mask) for index, mask in indexed if mask is not None]
        sizes = [mask["size"] if _complete(mask["size"]) else None for _, mask in given]
        pixels = np.array([-1 if size is None else size[0] * size[1] for size in sizes], dtype=np.int64)
        damaged = np.zeros(len(predictions), dtype=bool)
        good = rle.valid([mask["counts"] or "" for _, mask in given], pixels)
        damaged[[index for (index, _), fine in zip(given, good, strict=True) if not fine]] = True
        fail(damaged, f"{column} is no COCO RLE of its size; encode it with pycocotools.mask.encode")
    frames = predictions.arrow.column("geometry").to_pylist()
    open_frames = [frame is not None and not all(map(_complete, frame.values())) for frame in frames]
    fail(np.array(open_frames, dtype=bool), f"geometry is incomplete; give {_DESCRIPTION['geometry']}")
    heat = predictions.arrow.column("heatmap").combine_chunks()
    if heat.null_count < len(heat):
        there = heat.is_valid().to_pylist()
        sizes = heat.field("size").to_pylist()  # without the values, which are many
        unsized = [given and not _complete(size) for given, size in zip(there, sizes, strict=True)]
        fail(np.array(unsized, dtype=bool), "heatmap has no size; give [height, width]")
        lengths = pc.list_value_length(heat.field("values")).to_pylist()
        wrong = [
            given and size[0] * size[1] != length for given, size, length in zip(there, sizes, lengths, strict=True)
        ]
        fail(np.array(wrong), "heatmap has not height * width values; give all of them, row by row")


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
    keys = predictions.keys
    counts = pc.value_counts(keys)
    doubled = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if len(doubled):
        raise UserError(f"{name}: key {doubled[0].as_py()!r} occurs more than once; keep one line for each expression")
    wanted = table.arrow.column("key").combine_chunks()
    unknown = pc.index_in(keys, wanted).null_count
    if unknown:
        position = pc.index(pc.is_null(pc.index_in(keys, wanted)), pa.scalar(True)).as_py()
        example = f", a key looks like {wanted[0].as_py()!r}" if len(wanted) else ""
        raise UserError(
            f"{name}: {unknown} of {len(keys)} keys are not in {split}, first {keys[position].as_py()!r}{example}; "
            "name the dataset and split that was predicted"
        )
    order = pc.index_in(wanted, keys)
    if order.null_count:
        absent = wanted.filter(pc.is_null(order))
        if missing == "error":
            raise UserError(
                f"{name}: {len(absent)} of {len(wanted)} expressions of {split} are missing, first "
                f"{absent[0].as_py()!r}; write a line with an empty list of boxes where there is no answer"
            )
        none = Predictions.from_list(
            absent.to_pylist(), [Prediction(torch.zeros(0, 4), torch.zeros(0)) for _ in range(len(absent))]
        )
        predictions = Predictions(pa.concat_tables([predictions.arrow, none.arrow]))
        order = pc.index_in(wanted, predictions.keys)
    aligned = predictions.take(order.to_numpy(zero_copy_only=False))
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
    return aligned
