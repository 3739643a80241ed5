"""A look at a pickle's instructions before any of them is carried out.

A list of allowed names (:mod:`vgbench.core.unpickle`) keeps a pickle from running code; it does not keep it from
filling the memory (a memo index of two billion), hanging (the hash of a tuple that holds another one twice, sixty times
over) or crashing the interpreter (the hash of a tuple that is nested a million deep). What picklers write never comes
near these limits. The instructions are those of Python's ``pickletools``.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Protocol, TypeAlias, overload

MAX_DEPTH = 64  # of containers within containers; annotation files have about six
MAX_TUPLE = 1_000_000  # values that a tuple stands for, those of tuples within it counted each time
MAX_LONG = 1024  # bytes or digits of a whole number
MAX_WIDE = (
    1000  # whole numbers beyond 64 bits: such can be chosen to have one hash, and a dictionary of them takes days
)
MEMO_SLACK = 1000  # by which a memo index may exceed the number of values remembered before it


class Bytes(Protocol):
    """``bytes``, or a mapped file."""

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, key: int, /) -> int: ...

    @overload
    def __getitem__(self, key: slice, /) -> bytes: ...

    def find(self, sub: bytes, start: int = ..., /) -> int: ...


class SuspiciousPickle(ValueError):
    """Instructions that no pickler writes; the message says which."""


Value: TypeAlias = "int | tuple[int, int, int]"
"""What is known of a value: one of the next four, or of a tuple (values that it stands for, depth, first element)."""

LEAF, CONTAINER, NUMBER, BYTEARRAY = 0, 1, 2, 3

_CODES = {op.name: ord(op.code) for op in pickletools.opcodes}
_NAMES = {code: name for name, code in _CODES.items()}


def _codes(*names: str) -> frozenset[int]:
    return frozenset(_CODES[name] for name in names)


_COUNT_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
# by instruction: bytes of an argument of fixed length; bytes of the number that says its length; the others are lines
_FIXED = {ord(op.code): op.arg.n if op.arg else 0 for op in pickletools.opcodes if not op.arg or op.arg.n >= 0}
_COUNTED = {ord(op.code): _COUNT_BYTES[op.arg.n] for op in pickletools.opcodes if op.arg and op.arg.n in _COUNT_BYTES}
_TWO_LINES = _codes("GLOBAL", "INST")
_WIDEST = {_CODES["INT"]: 23, _CODES["LONG"]: 23, _CODES["LONG1"]: 9, _CODES["LONG4"]: 12}  # their argument at 64 bits
_LONGS = frozenset(_WIDEST)
_REFUSED = _codes("PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "DUP")
_LEAVES = {  # what pushes a value without contents
    **dict.fromkeys(_codes("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), NUMBER),
    **dict.fromkeys(_codes("FLOAT", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE", "STRING", "BINSTRING", "UNICODE"), LEAF),
    **dict.fromkeys(_codes("SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), LEAF),
    **dict.fromkeys(_codes("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), LEAF),
}
_CONTAINERS = _codes("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET")
_FIXED_TUPLES = {_CODES["EMPTY_TUPLE"]: 0, _CODES["TUPLE1"]: 1, _CODES["TUPLE2"]: 2, _CODES["TUPLE3"]: 3}
_TO_MARK = _codes("LIST", "TUPLE", "DICT", "FROZENSET", "INST", "OBJ")  # take all above the mark, and push one
_INTO = _codes("APPENDS", "SETITEMS", "ADDITEMS", "POP_MARK")  # take all above the mark, and push nothing
_PUTS, _GETS = _codes("PUT", "BINPUT", "LONG_BINPUT"), _codes("GET", "BINGET", "LONG_BINGET")
_MARK, _MEMOIZE, _STOP, _TUPLE = (_CODES[name] for name in ("MARK", "MEMOIZE", "STOP", "TUPLE"))
_PERSISTENT, _GLOBAL, _REDUCE = (_CODES[name] for name in ("BINPERSID", "GLOBAL", "REDUCE"))
_TAKEN = {  # (values taken, values pushed) of what is left
    **dict.fromkeys(_codes("PROTO", "FRAME", "READONLY_BUFFER"), (0, 0)),
    **dict.fromkeys(_codes("APPEND", "POP", "BUILD"), (1, 0)),
    **dict.fromkeys(_codes("SETITEM"), (2, 0)),
    **dict.fromkeys(_codes("STACK_GLOBAL", "REDUCE", "NEWOBJ"), (2, 1)),
    **dict.fromkeys(_codes("NEWOBJ_EX"), (3, 1)),
}


class _Machine:
    """The stack and the memo of an unpickler, with what is known of the values in their place.

    Attributes:
        shares: whether a container or tuple is fetched from the memo: only then can the result stand for more values
            than the pickle has.
    """

    def __init__(self) -> None:
        self.stack: list[Value] = []
        self.marks: list[int] = []
        self.memo: dict[int, Value] = {}  # without leaves
        self.puts = self.memoized = self.wide = 0
        self.shares = False

    def take(self, count: int) -> list[Value]:
        if count > len(self.stack) - (self.marks[-1] if self.marks else 0):
            raise SuspiciousPickle("it takes values that it has not put down")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def take_to_mark(self) -> list[Value]:
        if not self.marks:
            raise SuspiciousPickle("it goes back to a mark that it has not set")
        taken = self.stack[self.marks[-1] :]
        del self.stack[self.marks.pop() :]
        return taken

    def push_tuple(self, items: list[Value]) -> None:
        within = [item for item in items if isinstance(item, tuple)]
        weight = len(items) + 1 + sum(item[0] for item in within)
        depth = 1 + max((item[1] for item in within), default=0)
        if weight > MAX_TUPLE + len(items) or depth > MAX_DEPTH:
            raise SuspiciousPickle("it has tuples within tuples without end")
        first = items[0] if items and isinstance(items[0], int) else LEAF
        self.stack.append((weight, depth, first))

    def remember(self, index: int) -> None:
        if not self.stack:
            raise SuspiciousPickle("it remembers a value that it has not put down")
        if index > 2 * self.puts + MEMO_SLACK or index < 0:
            raise SuspiciousPickle(f"it remembers a value under the number {index}, but not so many before")
        self.puts += 1
        value = self.stack[-1]
        if value:
            self.memo[index] = value
        elif index in self.memo:
            del self.memo[index]

    def memoize(self) -> None:
        self.remember(self.memoized)
        self.memoized += 1

    def check_numbering(self) -> None:
        if self.memoized not in (0, self.puts):
            raise SuspiciousPickle("it numbers some values itself and others not")

    def fetch(self, index: int) -> None:
        value = self.memo.get(index, LEAF)
        self.stack.append(value)
        self.shares |= value == CONTAINER or isinstance(value, tuple)

    def count_wide(self) -> None:
        self.wide += 1
        if self.wide > MAX_WIDE:
            raise SuspiciousPickle("it has thousands of whole numbers beyond 64 bits")

    def perform(self, code: int) -> None:
        """An instruction that is about the stack alone."""
        if code in _FIXED_TUPLES:
            self.push_tuple(self.take(_FIXED_TUPLES[code]))
        elif code == _TUPLE:
            self.push_tuple(self.take_to_mark())
        elif code in _TO_MARK:
            self.take_to_mark()
            self.stack.append(CONTAINER)
        elif code in _INTO:
            self.take_to_mark()
        else:
            taken, pushed = _TAKEN[code]
            values = self.take(taken)
            if code == _REDUCE and values[0] == BYTEARRAY and isinstance(values[1], tuple) and values[1][2] == NUMBER:
                raise SuspiciousPickle("it asks for bytes by their number")
            self.stack += [CONTAINER] * pushed


@dataclass(frozen=True)
class Survey:
    """What a pickle is like: where it ends, and whether a list, tuple or dictionary occurs in it at several places."""

    end: int
    shares: bool


def survey(data: Bytes, start: int = 0, persistent: bool = False) -> Survey:
    """Look at the instructions of a pickle up to its STOP; nothing is carried out.

    Args:
        data: what the pickle lies in.
        start: where it begins.
        persistent: whether it may refer to what lies beside it (in files of ``torch.save``: the numbers of tensors).

    Raises:
        SuspiciousPickle: if it would take memory or time out of proportion to its length, or is cut off.
    """
    machine, position, size = _Machine(), start, len(data)
    push, fixed, leaves = machine.stack.append, _FIXED, _LEAVES
    while position < size:
        code = data[position]
        start = position + 1  # of the argument
        position = start + fixed[code] if code in fixed else _after_argument(data, code, start)
        value = leaves.get(code)
        if value is not None:
            push(value)
            if code in _LONGS and position - start > _WIDEST[code]:
                machine.count_wide()
        elif position > size:
            break
        elif code in _PUTS:
            machine.remember(_index(data, code, start, position))
        elif code == _MEMOIZE:
            machine.memoize()
        elif code == _MARK:
            machine.marks.append(len(machine.stack))
        elif code in _CONTAINERS:
            push(CONTAINER)
        elif code in _GETS:
            machine.fetch(_index(data, code, start, position))
        elif code == _GLOBAL:
            push(BYTEARRAY if b"bytearray" in data[start:position] else LEAF)
        elif code == _STOP:
            machine.check_numbering()
            return Survey(position, machine.shares)
        elif code == _PERSISTENT and persistent:
            machine.take(1)
            push(LEAF)
        elif code in _REFUSED:
            raise SuspiciousPickle(f"it has the instruction {_NAMES[code]}")
        else:
            machine.perform(code)
    raise SuspiciousPickle("it is cut off")


def _after_argument(data: Bytes, code: int, start: int) -> int:
    """Where an argument ends that is a line, or says its length itself.

    Raises:
        SuspiciousPickle: if there is no such instruction, or the argument is a number of thousands of digits.
    """
    if code in _COUNTED:
        end = start + _COUNTED[code]
        length = int.from_bytes(data[start:end], "little")
        if code in _LONGS and length > MAX_LONG:
            raise SuspiciousPickle(f"it has a whole number of {length} bytes")
        return end + length
    if code not in _NAMES:
        raise SuspiciousPickle(f"it has the byte 0x{code:02x} where an instruction is expected")
    end = data.find(b"\n", start)
    if end >= 0 and code in _TWO_LINES:
        end = data.find(b"\n", end + 1)
    if end < 0:
        raise SuspiciousPickle("it is cut off")
    if code in _LONGS and end - start > MAX_LONG:
        raise SuspiciousPickle(f"it has a whole number of {end - start} digits")
    return end + 1


def _index(data: Bytes, code: int, start: int, end: int) -> int:
    """The memo index in an argument."""
    if code in _FIXED:
        return data[start] if end == start + 1 else int.from_bytes(data[start:end], "little")
    try:
        return int(data[start : min(end, start + 20)])
    except ValueError:
        raise SuspiciousPickle("it has a remembered value without a number") from None
