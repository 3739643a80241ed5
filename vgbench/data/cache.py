"""What is kept between runs: annotation tables, and what was found out about large files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError
from vgbench.core.files import atomic, file_sha256, folder_sha256, folder_state
from vgbench.data.table import AnnotationTable

log = logging.getLogger(__name__)


def sha256(path: Path, cache_dir: Path) -> str:
    """SHA-256 of a file, or of all files of a folder; read only once for each size and modification time.

    Raises:
        OSError: if it is not there.
    """
    stat = path.stat()
    listing = folder_state(path) if path.is_dir() else None
    state = [str(path), stat.st_size, stat.st_mtime_ns, listing]
    memo = memo_of(path, cache_dir / "hashes")
    return remembered(memo, state, lambda: file_sha256(path) if listing is None else folder_sha256(path))


def memo_of(path: Path, folder: Path) -> Path:
    """The file in ``folder`` for what is remembered about ``path``."""
    return folder / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:24]}.json"


def remembered(memo: Path, state: Any, make: Callable[[], Any]) -> Any:
    """What ``make`` gives (JSON), kept in ``memo`` for as long as ``state`` (JSON) is the same."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        entry = json.loads(memo.read_text()) if memo.is_file() else {}
        if entry["state"] == state and entry["digest"] == _digest(entry["value"]):
            return entry["value"]
    value = make()
    with contextlib.suppress(OSError), atomic(memo) as temporary:
        temporary.write_text(json.dumps({"state": state, "value": value, "digest": _digest(value)}))
    return value


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def table_path(cache_dir: Path, name: str, split: str, identity: Any) -> Path:
    """Where the table of a split is kept; ``identity`` (JSON) is everything that its content depends on."""
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return cache_dir / "tables" / f"{re.sub(r'[^a-z0-9]+', '-', name)}-{split}-{key[:24]}.arrow"


def cached_table(path: Path, read: Callable[[], AnnotationTable]) -> AnnotationTable:
    """The table in ``path``, memory-mapped; where there is none, or a damaged one, ``read`` makes it.

    A table that says of itself that it is volatile, and one that cannot be written, is not kept.
    """
    if path.exists():
        try:
            return AnnotationTable.open(path)
        except UserError as error:
            log.warning("%s", error)
    table = read()
    if table.info["volatile"]:
        return table
    try:
        table.save(path)
        return AnnotationTable.open(path)
    except OSError as error:
        log.warning("%s: annotation table not cached (%s)", path, error.strerror)
        return table
