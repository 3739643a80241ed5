"""Errors that are the user's to fix: one clear line, exit code 2, no traceback (``--debug`` shows it)."""

from __future__ import annotations

import importlib
from types import ModuleType


class UserError(Exception):
    """Something the user can mend. The message is one line that names the file, the key and the fix."""


def require_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it.

    Raises:
        UserError: if ``module`` cannot be imported; the message names ``pip install "vgbench[extra]"``.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f'{purpose} needs the package "{module}" ({error}); install it with: pip install "vgbench[{extra}]"'
        ) from error
