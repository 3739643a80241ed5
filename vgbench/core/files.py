"""Files: atomic writing and SHA-256."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vgbench.core.errors import UserError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Write to the temporary path that this yields; afterwards it is synced to disk and gets the name ``path``.

    A reader sees the old content or the new, nothing between; on an exception nothing is left behind. The folder is
    made if it is missing. The file gets the permissions that any new file gets there, whoever writes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.touch()
        permissions = temporary.stat().st_mode & 0o777
        yield temporary
        temporary.chmod(permissions)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        if error.filename in (None, str(temporary), temporary):  # nobody asked for a file of that name
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


#: What the system says when there is no room for a file.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an error of the system that names no file (a write to an open one) name ``path``."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _sync(path: Path) -> None:
    """Have the disk hold what was written to a file, or the names in a folder (where the system can sync folders)."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed in :func:`atomic` left below a folder."""
    for path in folder.rglob(".*"):
        if re.fullmatch(r"\..+\.[0-9a-f]{32}", path.name) and path.is_file():
            path.unlink(missing_ok=True)


DIGEST = ".sha256"  # of the file beside a file that holds its SHA-256


@contextmanager
def atomic_with_digest(path: Path) -> Iterator[Path]:
    """As :func:`atomic`, with the SHA-256 of the file beside it in ``path.sha256``, as ``sha256sum`` writes it.

    Until the file has its name the digest of the one before stands there too: killed between the two, one is right.
    """
    note = path.with_name(path.name + DIGEST)
    with atomic(path) as temporary:
        yield temporary
        line = f"{file_sha256(temporary)}  {path.name}\n"
        before = note.read_text(encoding="utf-8", errors="replace") if note.is_file() and path.exists() else ""
        write_atomically(note, (line + before).encode())
    write_atomically(note, line.encode())


def matches_digest(path: Path) -> bool | None:
    """Whether a file is what its digest says; None: it has none."""
    note = path.with_name(path.name + DIGEST)
    if not note.is_file():
        return None
    lines = note.read_text(encoding="utf-8", errors="replace").splitlines()
    digests = {line.split()[0] for line in lines if line.strip()}
    return file_sha256(path) in digests


def write_atomically(path: Path, content: bytes) -> None:
    """Write bytes to ``path`` through :func:`vgbench.core.files.atomic`."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def ordinary_file(path: Path) -> Path:
    """``path``, if there is an ordinary file of that name.

    Raises:
        OSError: if there is none, or a folder, a device or a pipe, which never come to an end.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "a device or a pipe, not an ordinary file", str(path))
    return path


def file_inside(folder: Path, name: object) -> Path:
    """The file that another file names, below the folder that both lie in; it need not exist.

    Raises:
        UserError: if the name leaves the folder (absolute, ``..``, through a link), or is not an ordinary file's: a
            device or a pipe never comes to its end.
    """
    text = str(name)
    problem = None
    try:
        if not text or "\0" in text or Path(text).is_absolute() or ".." in Path(text).parts:
            problem = "the name leaves the folder"
        elif not (folder / text).resolve().is_relative_to(folder.resolve()):
            problem = "it is a link out of the folder"
        elif (folder / text).exists() and not (folder / text).is_file():
            problem = "it is no ordinary file"
    except (OSError, RuntimeError, ValueError) as error:  # too long, a circle of links, not writable as a name
        problem = f"no name of a file ({error})"
    if problem:
        raise UserError(f"{folder}: {text[:80]!a} is not read: {problem}")
    return folder / text


def sha256_prefix(path: Path) -> str:
    """First 16 hex digits of a file's SHA-256, for :class:`Checkpoint`."""
    digest = hashlib.sha256()
    with ordinary_file(path).open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with ordinary_file(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def folder_state(path: Path) -> str:
    """Digest of names, sizes and modification times of the files directly in a folder."""
    with os.scandir(path) as entries:
        states = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries)
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()


def folder_sha256(path: Path) -> str:
    """SHA-256 over names and contents of the files directly in a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        digest.update(f"{file.name}\0{file_sha256(file)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
