"""Writing files that are either complete or not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Write to the temporary path that this yields; afterwards it is synced to disk and gets the name ``path``.

    A reader sees the old content or the new, nothing between; on an exception nothing is left behind. The folder is
    made if it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename == str(temporary):  # nobody asked for a file of that name
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
