"""Python values as overrides of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError


def as_overrides(options: Mapping[str, Any]) -> list[str]:
    """``{"recipe.lr": 1e-4, "eval.splits": ["val"]}`` as Hydra takes it: ``recipe.lr=0.0001``, ``eval.splits=[val]``.

    Raises:
        UserError: for a value that no configuration can hold.
    """
    return [f"{key}={_text(value, key)}" for key, value in options.items()]


def _text(value: Any, key: str) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, Path)):
        text = str(value)
        return text if re.fullmatch(r"[\w/.+\-]+", text) else "'" + text.replace("\\", "\\\\").replace("'", r"\'") + "'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_text(one, key)}" for name, one in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(_text(one, key) for one in value) + "]"
    raise UserError(f"{key}={value!r}: give a number, a text, a list or a dictionary of them")
