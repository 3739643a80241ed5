"""NumPy values in pickles from strangers, as plain numbers, texts and lists: nothing of NumPy is run to read them.

A user who makes annotations with pandas or NumPy has ``numpy.int64`` where others have ``int``. Their pickles name
NumPy's functions; here stand-ins take the place of these, which know the plain kinds of numbers and nothing else.
"""

from __future__ import annotations

import math
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vgbench.core.unpickle import CONTAINERS, MAX_GROWTH, load_pickle

# Kind and size of a NumPy type -> format of the struct module.
_FORMATS = {
    **{"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"},
    **{"f2": "e", "f4": "f", "f8": "d"},
}
_AXES = 32  # of a NumPy array, at most
_FACTORY = object()  # what ``list`` becomes in ``defaultdict(list)``: nothing that can be called


def load_plain(path: Path) -> Any:
    """The object in a pickle file of plain values, NumPy values and the dictionaries of ``collections``.

    Raises:
        OSError: if the file cannot be read.
        pickle.UnpicklingError: if it names anything else (nothing has been executed then), or would take memory out of
            proportion to its length.
        Exception: of almost any kind, if the file is damaged.
    """
    budget = _Budget(MAX_GROWTH * path.stat().st_size)
    numpy_names = {
        (module, name): value
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name, value in (("scalar", _scalar), ("_reconstruct", lambda *_: _Array(budget)))
    }
    allowed = {
        **CONTAINERS,
        **numpy_names,
        ("numpy", "dtype"): lambda *arguments: _Type(budget, *arguments),
        ("numpy", "ndarray"): _FACTORY,
        ("numpy._core.numeric", "_frombuffer"): lambda *arguments: _of_buffer(budget, *arguments),
        ("numpy.core.numeric", "_frombuffer"): lambda *arguments: _of_buffer(budget, *arguments),
        ("_codecs", "encode"): budget.encode,
        ("builtins", "bytes"): _no_bytes,
        ("collections", "OrderedDict"): _Dictionary,
        ("collections", "defaultdict"): _Dictionary,
        **{("builtins", name): _FACTORY for name in ("list", "dict", "int", "float", "str", "set")},
        ("builtins", "set"): set,
    }
    return load_pickle(path, allowed)


class _Budget:
    """How many values may be made out of raw bytes: a few opcodes can ask for the same megabyte again and again."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise pickle.UnpicklingError("it holds more NumPy values than its length can hold")

    def encode(self, text: str, encoding: str = "latin1") -> bytes:
        """What ``_codecs.encode`` becomes, by which pickles of old protocols hold bytes."""
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"it holds bytes as {encoding!r:.40}")
        self.spend(len(text))
        return text.encode("latin1")


def _no_bytes() -> bytes:
    """What ``bytes`` becomes, by which pickles of old protocols hold those of length 0."""
    return b""


class _Dictionary(dict[Any, Any]):
    """What ``OrderedDict`` and ``defaultdict`` become."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(next((part for part in parts if part is not _FACTORY and part is not None), ()))


class _Type:
    """What ``numpy.dtype`` becomes: a kind of number or text, with its byte order."""

    def __init__(self, budget: _Budget, code: str, *_: Any) -> None:
        if not isinstance(code, str):
            raise pickle.UnpicklingError(f"it holds a NumPy type {code!r:.40}; save plain numbers")
        self.budget, self.code, self.order = budget, code.lstrip("<>=|"), ">" if code.startswith(">") else "<"

    def __setstate__(self, state: Sequence[Any]) -> None:
        if len(state) > 1 and state[1] == ">":
            self.order = ">"

    def values(self, data: bytes | str, count: int) -> list[Any]:
        """``count`` plain values out of raw bytes (text in pickles of Python 2)."""
        raw = data.encode("latin1") if isinstance(data, str) else data
        self.budget.spend(len(raw) + abs(count))
        kind, size = self.code[:1], self.code[1:]
        if kind in ("U", "S") and size.isdecimal():
            width = int(size) * (4 if kind == "U" else 1)
            encoding = "latin1" if kind == "S" else "utf-32-be" if self.order == ">" else "utf-32-le"
            _check_length(raw, width * count)
            parts = [raw[place * width : (place + 1) * width] for place in range(count)]
            return [part.decode(encoding, "replace").rstrip("\0") for part in parts]
        if self.code not in _FORMATS:
            raise pickle.UnpicklingError(f"it holds a NumPy type {self.code!r:.40}; save plain numbers")
        form = f"{self.order}{count}{_FORMATS[self.code]}"
        _check_length(raw, struct.calcsize(form))
        return list(struct.unpack(form, raw))


def _check_length(raw: bytes, length: int) -> None:
    if not isinstance(raw, bytes) or len(raw) != length:
        raise pickle.UnpicklingError("it holds a NumPy array of another size than it says")


def _scalar(kind: _Type, data: bytes | str) -> Any:
    """What ``numpy.core.multiarray.scalar`` becomes: the plain number."""
    return kind.values(data, 1)[0]


class _Array(list[Any]):
    """What ``numpy.ndarray`` becomes: a list, of lists where it has several axes."""

    def __init__(self, budget: _Budget) -> None:
        super().__init__()
        self.budget = budget

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, kind, by_columns, data = state[:5]
        if len(shape) > _AXES or any(not isinstance(side, int) or side < 0 for side in shape):
            raise pickle.UnpicklingError("it holds a NumPy array without a shape")
        if by_columns and len(shape) > 1:
            raise pickle.UnpicklingError("it holds a NumPy array in Fortran order; save plain lists")
        values = list(data) if isinstance(data, list) else kind.values(data, math.prod(shape))
        self.budget.spend(len(values))  # a list: an array of objects
        if math.prod(shape) != len(values):
            raise pickle.UnpicklingError("it holds a NumPy array of another size than it says")
        for side in reversed(shape[1:]):
            values = [values[place : place + side] for place in range(0, len(values), side)] if side else []
        self[:] = values


def _of_buffer(budget: _Budget, data: bytes, kind: _Type, shape: Sequence[int], order: str = "C") -> _Array:
    """What ``_frombuffer`` becomes, by which pickles of protocol 5 hold arrays."""
    if not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError("it holds a NumPy array without its bytes")
    budget.spend(len(data))
    array = _Array(budget)
    array.__setstate__((1, shape, kind, order == "F", bytes(data)))
    return array
