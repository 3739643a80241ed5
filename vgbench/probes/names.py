"""What splits of questions are called. Nothing is imported here, so that tables of records can be printed at once."""

from __future__ import annotations


def probed(split: str, spec: str) -> str:
    """What the questions of a probe about a split are called: "val [mirror]"."""
    return f"{split} [{spec}]"


def split_and_probe(name: str) -> tuple[str, str]:
    """The parts of :func:`probed`; the second is empty for a plain split."""
    split, bracket, rest = name.partition(" [")
    return (split, rest.removesuffix("]")) if bracket else (name, "")
