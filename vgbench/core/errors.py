"""Errors that are the user's to fix: one clear line, exit code 2, no traceback (``--debug`` shows it)."""

from __future__ import annotations

import importlib
from types import ModuleType


class UserError(Exception):
    """Something the user can mend. The message is one line that names the file, the key and the fix."""


class Stopped(BaseException):
    """The run was told to stop by a signal. The message says what was saved; the exit code is 128 + ``signal``."""

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal


class MissingData(UserError):
    """Files of a dataset are not there.

    Args:
        dataset: its name.
        problem: what is not there, e.g. "no data_root given".
        expected: the files of its usual layout.
        others: how many other layouts are read.
    """

    def __init__(self, dataset: str, problem: str, expected: str, others: int = 0) -> None:
        name = dataset.partition("@")[0]  # without a filter
        more = f", or another of {others + 1} layouts (vgbench data list dataset={name})" if others else ""
        super().__init__(f"{dataset}: {problem}; set data_root=FOLDER with {expected}{more}")
        self.dataset = dataset
        self.problem = problem


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
