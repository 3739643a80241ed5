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
``answer``       optional, a language model's words, from which the boxes were read; ``geometry`` is then how the image
                 lay in what the model saw
===============  ==============================================================================================

In memory it is the same table in Arrow, with NumPy views of its columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vgbench.types import Geometry, Prediction, as_array

if TYPE_CHECKING:
    from torch import Tensor

# Two numbers, as lists of any length: pyarrow before 26 cannot read lists of fixed length with missing entries.
_PIXELS, _NUMBERS = pa.list_(pa.int32()), pa.list_(pa.float64())
_RLE = pa.struct([pa.field("size", _PIXELS), pa.field("counts", pa.string())])


def _schema(heat: pa.DataType) -> pa.Schema:
    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("boxes", pa.list_(pa.list_(pa.float32(), 4)), nullable=False),
            pa.field("scores", pa.list_(pa.float64()), nullable=False),
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
            pa.field("answer", pa.string()),
        ]
    )


SCHEMA = _schema(pa.list_(pa.float32()))
FILE_SCHEMA = _schema(pa.list_(pa.float16()))  # half the space; a peak is stored exactly as ``point``


# Of several boxes those that score at least this are the answer (the evaluator of gRefCOCO's authors).
GREC_SCORE_THRESHOLD = 0.7


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
        boxes = [as_array(p.boxes, np.float32).reshape(-1, 4) for p in predictions]
        scores = [as_array(p.scores, np.float64).reshape(-1) for p in predictions]
        for key, box, score in zip(keys, boxes, scores, strict=True):
            if len(box) != len(score):
                raise ValueError(f"{key}: {len(box)} boxes, {len(score)} scores")
        offsets = pa.array(np.cumsum([0, *map(len, boxes)]), pa.int32())
        flat = np.concatenate([*boxes, np.zeros((0, 4), np.float32)]).reshape(-1)
        heat = [
            None if p.heatmap is None else {"size": list(p.heatmap.shape), "values": flat_values(p.heatmap)}
            for p in predictions
        ]
        columns = [
            pa.array(keys, pa.string()),
            pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), 4)),
            pa.ListArray.from_arrays(offsets, pa.array(np.concatenate([*scores, np.zeros(0)]))),
            pa.array([p.mask for p in predictions], _RLE),
            pa.array([None if p.no_target is None else bool(p.no_target) for p in predictions], pa.bool_()),
            pa.array([None if p.point is None else [int(v) for v in p.point] for p in predictions], _type("point")),
            pa.array(heat, _type("heatmap")),
            pa.array([p.canvas_mask for p in predictions], _RLE),
            pa.array([None if p.geometry is None else vars(p.geometry) for p in predictions], _type("geometry")),
            pa.array([cut_names(p.masks_at) for p in predictions], _type("masks_at")),
            pa.array([None if p.answer is None else storable(p.answer) for p in predictions], pa.string()),
        ]
        return cls(pa.table(columns, schema=SCHEMA))

    def __len__(self) -> int:
        return self.arrow.num_rows

    def __iter__(self) -> Iterator[Prediction]:
        return (self.prediction(index) for index in range(len(self)))

    def take(self, indices: Sequence[int] | np.ndarray) -> Predictions:
        return Predictions(self.arrow.take(pa.array(np.asarray(indices, dtype=np.int64))))

    def prediction(self, index: int) -> Prediction:
        """The prediction at ``index``, as a method would have returned it: in tensors."""
        import torch

        answer = self.answer(index)
        heat = answer.heatmap
        return replace(
            answer,
            boxes=torch.as_tensor(answer.boxes),
            scores=torch.as_tensor(answer.scores),
            heatmap=None if heat is None else torch.as_tensor(heat),
        )

    def answer(self, index: int) -> Prediction:
        """The prediction at ``index`` in NumPy arrays."""
        row = {name: self._columns[name][index].as_py() for name in SCHEMA.names}
        heat, frame = row["heatmap"], row["geometry"]
        return Prediction(
            boxes=np.array(row["boxes"], dtype=np.float32).reshape(-1, 4),
            scores=np.array(row["scores"], dtype=np.float64),
            mask=row["mask"],
            no_target=row["no_target"],
            point=None if row["point"] is None else (row["point"][0], row["point"][1]),
            heatmap=None if heat is None else np.array(heat["values"], dtype=np.float32).reshape(heat["size"]),
            canvas_mask=row["canvas_mask"],
            geometry=None if frame is None else Geometry(**{name: tuple(value) for name, value in frame.items()}),
            masks_at=None if row["masks_at"] is None else {cut["percent"]: cut["mask"] for cut in row["masks_at"]},
            answer=row["answer"],
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
        """All scores, float64 [N] (a score of a float32 file has its value), as :attr:`boxes`."""
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

    def heatmap(self, index: int) -> np.ndarray | None:
        """float32 [h, w] or None."""
        value = self._columns["heatmap"][index]
        if not value.is_valid:
            return None
        return value["values"].values.to_numpy(zero_copy_only=False).reshape(value["size"].as_py())

    def answers(self) -> list[str | None]:
        """A language model's words, None where there are none."""
        return self._columns["answer"].to_pylist()

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


def cut_names(masks: dict[int, dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    return None if masks is None else [{"percent": percent, "mask": mask} for percent, mask in masks.items()]


def storable(words: str) -> str:
    """A model's words as valid Unicode: halves of surrogate pairs, which a token limit can leave, become ``?``."""
    return words.encode("utf-8", "replace").decode("utf-8")


def flat_values(heatmap: Tensor | np.ndarray) -> np.ndarray:
    return as_array(heatmap, np.float32).reshape(-1)


def short_text(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
