"""Files: atomic writing and SHA-256."""

from __future__ import annotations

import hashlib
import json
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


def write_atomically(path: Path, content: bytes) -> None:
    """Write bytes to ``path`` through :func:`vgbench.core.files.atomic`."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def sha256_prefix(path: Path) -> str:
    """First 16 hex digits of a file's SHA-256, for :class:`Checkpoint`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def folder_state(path: Path) -> str:
    """Digest of names, sizes and modification times of the files directly in a folder."""
    with os.scandir(path) as entries:
        found = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries)
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def folder_sha256(path: Path) -> str:
    """SHA-256 over names and contents of the files directly in a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        digest.update(f"{file.name}\0{file_sha256(file)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
