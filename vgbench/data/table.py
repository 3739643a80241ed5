"""The annotation table: one row per (image, expression), kept as Arrow, memory-mapped from disk.

A saved table holds every row twice: in columns, for whatever looks at all of them, and as one piece of JSON, because a
row's sixteen columns lie far apart: drawn at random they would cost some thirty distant reads instead of two.

It is the only thing that passes between the files on disk and everything else: the loader of training samples, the
metrics, the statistics. Boxes are as annotated (never clipped, never rounded), text is as written.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from vgbench.core.errors import UserError
from vgbench.core.files import atomic

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),  # unique in the table; predictions refer to it
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("image", pa.string(), nullable=False),  # path below the image root
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("expression", pa.string(), nullable=False),
        pa.field("boxes", pa.list_(pa.float64()), nullable=False),  # 4n numbers, xyxy pixels; n = 0: no target
        pa.field("masks", pa.list_(pa.string()), nullable=False),  # n COCO RLE counts of size [height, width], or none
        pa.field("polygons", pa.list_(pa.int32()), nullable=False),  # polygons per mask (0: was an RLE); as ``masks``
        pa.field("ann_ids", pa.list_(pa.int64()), nullable=False),  # n annotation ids, or none known
        pa.field("categories", pa.list_(pa.string()), nullable=False),  # n category names, or none known
        pa.field("ref_id", pa.int64()),
        pa.field("sent_id", pa.int64()),
        pa.field("group", pa.int64(), nullable=False),  # sampling unit of the official recipes (object; or image)
        pa.field("source", pa.string(), nullable=False),  # coco, vg, flickr, saiaprtc12, refshapes, ...
        pa.field("split", pa.string(), nullable=False),
    ]
)

INFO, DIGEST = b"vgbench", b"vgbench-digest"  # in the metadata of a saved table
PACKED = "row"  # the further column of a saved table: the row as a JSON list, in the order of SCHEMA
BATCH = 65_536  # rows per record batch of a saved table

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class Row:
    """One expression. ``boxes`` is float64 [n, 4] xyxy; ``masks`` holds n COCO RLEs, or nothing if there are none."""

    key: str
    image_id: int
    image: str
    width: int
    height: int
    expression: str
    boxes: np.ndarray
    masks: tuple[dict[str, Any], ...]
    polygons: tuple[int, ...]
    ann_ids: tuple[int, ...]
    categories: tuple[str, ...]
    ref_id: int | None
    sent_id: int | None
    group: int
    source: str
    split: str

    @property
    def no_target(self) -> bool:
        """Whether the expression refers to nothing in the image."""
        return len(self.boxes) == 0


class AnnotationTable:
    """A read-only table of expressions with :data:`SCHEMA`, plus a small dictionary about where it comes from.

    ``info`` always has ``dataset``, ``split``, ``task`` ("rec" or "grec"), ``sources`` (file name -> SHA-256) and
    ``image_root``; ``skipped`` counts what was left out, by reason.
    """

    def __init__(self, arrow: pa.Table, info: dict[str, Any]) -> None:
        if not arrow.schema.equals(SCHEMA):
            differing = [field.name for field in arrow.schema if field not in SCHEMA] or arrow.schema.names
            raise ValueError(f"its columns are not those of an annotation table: {', '.join(differing)}"[:300])
        self.arrow = arrow
        self.info = info
        self._packed: pa.ChunkedArray | None = None  # column PACKED of the file, if the table is one
        self._path: Path | None = None

    @classmethod
    def from_rows(cls, rows: Iterable[dict[str, Any]], info: dict[str, Any]) -> AnnotationTable:
        """Build from dictionaries with the columns of :data:`SCHEMA` (``boxes``: n x 4 or flat)."""
        columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        for row in rows:
            for name, values in columns.items():
                values.append(row[name])
        columns["boxes"] = [np.asarray(value, dtype=np.float64).reshape(-1).tolist() for value in columns["boxes"]]
        return cls(pa.table(columns, schema=SCHEMA), info)

    def __getstate__(self) -> dict[str, Any]:
        """For processes that are started afresh: views of the mapped file are made again there."""
        return {name: value for name, value in self.__dict__.items() if name != "_batches"}

    def __len__(self) -> int:
        return self.arrow.num_rows

    def __iter__(self) -> Iterator[Row]:
        return (self.row(index) for index in range(len(self)))

    @cached_property
    def _batches(self) -> tuple[list[int], list[Callable[[int], Iterable[Any]]]]:
        """First row of each record batch, and what gives the values of one of its rows. Nothing is copied."""
        if self._packed is not None:
            chunks = [chunk for chunk in self._packed.chunks if len(chunk)]
            readers: list[Callable[[int], Iterable[Any]]] = [_packed_reader(chunk, self._path) for chunk in chunks]
        else:
            chunks = [batch for batch in self.arrow.to_batches() if batch.num_rows]
            readers = [partial(_column_values, batch.columns) for batch in chunks]
        return np.cumsum([0, *map(len, chunks)]).tolist()[:-1], readers

    def row(self, index: int) -> Row:
        """The expression at ``index`` (0-based; negative counts from the end)."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of a table with {len(self)} rows")
        index %= len(self)
        starts, readers = self._batches
        batch = bisect.bisect_right(starts, index) - 1
        value = dict(zip(SCHEMA.names, readers[batch](index - starts[batch]), strict=True))
        size = [value["height"], value["width"]]
        value["boxes"] = np.asarray(value["boxes"], dtype=np.float64).reshape(-1, 4)
        value["masks"] = tuple({"size": size, "counts": counts} for counts in value["masks"])
        for name in ("polygons", "ann_ids", "categories"):
            value[name] = tuple(value[name])
        return Row(**value)

    def column(self, name: str) -> np.ndarray:
        """A scalar column as NumPy array."""
        return self.arrow.column(name).to_numpy()

    def take(self, indices: Sequence[int] | np.ndarray) -> AnnotationTable:
        """The rows at ``indices``, in that order, as a table."""
        return AnnotationTable(self.arrow.take(pa.array(indices)), self.info)

    @property
    def has_masks(self) -> bool:
        """True if any expression carries a mask."""
        return any(len(chunk.flatten()) for chunk in self.arrow.column("masks").chunks)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over all cells: the identity of the data that a result was computed on."""
        digest = hashlib.sha256()
        for name in SCHEMA.names:
            digest.update(f"{name}\0".encode())
            parts = [hashlib.sha256() for _ in range(4)]
            for chunk in self.arrow.column(name).chunks:
                if SCHEMA.field(name).nullable:
                    parts[0].update(chunk.is_null().to_numpy(zero_copy_only=False).tobytes())
                _digest_array(chunk, parts[1:])
            for part in parts:
                digest.update(part.digest())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write atomically (temporary file, fsync, rename)."""
        info = json.dumps({**self.info, "hash": self.hash})
        schema = SCHEMA.append(pa.field(PACKED, pa.string(), nullable=False))
        schema = schema.with_metadata({INFO: info, DIGEST: hashlib.sha256(info.encode()).hexdigest()})
        with atomic(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
            for number, batch in enumerate(self.arrow.to_batches(max_chunksize=BATCH)):
                rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
                packed = pa.array(map(_encode, rows), pa.string(), size=batch.num_rows)
                whole = pa.RecordBatch.from_arrays([*batch.columns, packed], schema=schema)
                writer.write_batch(whole, custom_metadata={DIGEST: _packed_digest(number, packed)})

    @classmethod
    def open(cls, path: Path) -> AnnotationTable:
        """Open memory-mapped. A file without the column :data:`PACKED` is read by its columns.

        All of it is read once and compared with the digests inside: a score must not rest on a bit that has changed.

        Raises:
            UserError: if the file is not an annotation table, or is not what was written.
        """
        try:
            table, info = _read_whole(path)
            packed = table.column(PACKED) if PACKED in table.schema.names else None
            opened = cls(table.select(table.schema.names[: len(SCHEMA)]), info)
            if "hash" in info and info.pop("hash") != opened.hash:
                raise ValueError("its values are not those that were written")
        except (OSError, pa.ArrowException, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{path}: not an annotation table ({reason}); delete it, it is built again") from error
        opened._packed, opened._path = packed, path
        return opened


def _read_whole(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Mapped columns, and the information about them; packed rows that have no digest are left out.

    Raises:
        OSError: if the file cannot be read, or is no ordinary one.
        ValueError, KeyError, pa.ArrowException: if it is not what was written.
    """
    if not path.is_file():
        raise OSError("it is not an ordinary file" if path.exists() else "no such file")
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    metadata = reader.schema.metadata or {}
    text = metadata[INFO]
    if hashlib.sha256(text).hexdigest().encode() != metadata.get(DIGEST, b""):
        if DIGEST in metadata:
            raise ValueError("what it says of itself is not what was written")
        table = reader.read_all()  # from before there were digests
        table.validate(full=True)
        return table.select(table.schema.names[: len(SCHEMA)]).replace_schema_metadata(None), json.loads(text)
    batches = []
    for number in range(reader.num_record_batches):
        batch, stored = reader.get_batch_with_custom_metadata(number)
        batch.validate(full=True)  # Arrow itself trusts the offsets in a file
        if stored is None or stored.get(DIGEST) != _packed_digest(number, batch.column(PACKED)):
            raise ValueError("its rows are not those that were written")
        batches.append(batch)
    return pa.Table.from_batches(batches, reader.schema).replace_schema_metadata(None), json.loads(text)


def _packed_digest(batch: int, rows: pa.StringArray) -> bytes:
    parts = [hashlib.sha256(str(batch).encode()) for _ in range(3)]
    _digest_array(rows, parts)
    return hashlib.sha256(b"".join(part.digest() for part in parts)).hexdigest().encode()


def _column_values(columns: list[pa.Array], offset: int) -> Iterator[Any]:
    return (column[offset].as_py() for column in columns)


def _packed_reader(rows: pa.StringArray, path: Path | None) -> Callable[[int], list[Any]]:
    """What reads one of some packed rows, straight from Arrow's buffers: an Arrow scalar would cost as much again."""
    _, offsets, content = rows.buffers()
    ends, text = memoryview(offsets).cast("B").cast("i")[rows.offset :], memoryview(content)

    def read(index: int) -> list[Any]:
        try:
            return json.loads(str(text[ends[index] : ends[index + 1]], "utf-8"))
        except ValueError as error:
            raise UserError(f"{path}: a damaged annotation table ({error}); delete it, it is built again") from None

    return read


def _digest_array(array: pa.Array, parts: list[Any]) -> None:
    """Feed the content of ``array`` to three digests: lengths of lists, lengths of strings, values.

    Lengths and values are kept apart, so that the result does not depend on how a column is cut into chunks.
    """
    lists, strings, values = parts
    if len(array) == 0:
        return
    if pa.types.is_list(array.type):
        lists.update(np.diff(array.offsets.to_numpy()).astype("<i8").tobytes())
        _digest_array(array.flatten(), parts)
    elif pa.types.is_string(array.type):
        _, offsets, content = array.buffers()
        ends = np.frombuffer(offsets, dtype="<i4")[array.offset : array.offset + len(array) + 1]
        strings.update(np.diff(ends).astype("<i8").tobytes())
        if content is not None:
            values.update(memoryview(content)[ends[0] : ends[-1]])
    else:
        full = array.fill_null(0) if array.null_count else array
        values.update(full.to_numpy(zero_copy_only=False).tobytes())
