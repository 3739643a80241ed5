"""Sizes that no network can have are refused when it is built, by the name of the option that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vgbench.core.errors import UserError

__all__ = ["check_at_most", "check_counts", "check_depths", "check_multiple"]


def check_counts(**sizes: Any) -> None:
    """
    Args:
        sizes: options of a method (``method.NAME``) and their values.

    Raises:
        UserError: for a value that is no whole number, or smaller than 1.
    """
    _check_least(1, sizes)


def check_depths(**sizes: Any) -> None:
    """As :func:`check_counts` for numbers that may be 0, such as those of layers that can be left out."""
    _check_least(0, sizes)


def _check_least(least: int, sizes: Mapping[str, Any]) -> None:
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"method.{name}={value}: give a whole number of at least {least}")


def check_multiple(**sizes: int) -> None:
    """Raises UserError unless the first of two options is a multiple of the second."""
    (name, value), (part_name, part) = sizes.items()
    if value % part:
        raise UserError(f"method.{name}={value} is no multiple of method.{part_name}={part}; change one")


def check_at_most(spare: int = 0, **sizes: int) -> None:
    """Raises UserError if the first of two options, and ``spare`` besides, exceeds the second."""
    (name, value), (limit_name, limit) = sizes.items()
    if value + spare > limit:
        needed = f" (it needs {value + spare})" if spare else ""
        raise UserError(f"method.{name}={value} exceeds method.{limit_name}={limit}{needed}; change one")
