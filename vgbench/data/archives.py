"""Unpacking archives that may come from anybody."""

from __future__ import annotations

import contextlib
import errno
import functools
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from vgbench.core.errors import UserError
from vgbench.data.fetch import BLOCK, check_space, disk_full, guard_disk

MAX_RATIO = 100  # of unpacked to packed size; annotations in JSON reach 20


DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError),
    *(NotImplementedError, RuntimeError),  # zipfile: unknown compression, password
)


Member = tuple[str, int, Callable[[], "IO[bytes] | None"]]  # name, size, opens it


def unpack(archive: Path, folder: Path, work: Path) -> None:
    """Unpack a zip or tar archive into ``folder``; nothing is seen there before all of it is unpacked.

    Raises:
        UserError: if the archive is damaged, names a file outside of itself, holds links, or would unpack to more than
            a hundred times its size.
    """
    place = work / f"{archive.name}.unpacked"
    shutil.rmtree(place, ignore_errors=True)
    try:
        with _members(archive) as members:
            _extract(archive, members, place)
    except DAMAGED as error:
        shutil.rmtree(place, ignore_errors=True)
        archive.unlink()
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{archive}: not a whole archive ({reason}); it is removed, download it again") from None
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(folder) from None
        raise UserError(f"{archive}: cannot be unpacked ({error})") from None
    except UserError:
        shutil.rmtree(place, ignore_errors=True)
        raise
    guard_disk(folder, functools.partial(_move, place, folder))


@contextlib.contextmanager
def _members(archive: Path) -> Iterator[Iterable[Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield _zip_members(archive, opened)
    else:
        with tarfile.open(archive) as opened_tar:
            yield _tar_members(archive, opened_tar)


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> Iterator[Member]:
    for info in opened.infolist():
        if stat.S_ISLNK(info.external_attr >> 16):
            raise UserError(f"{archive}: holds a link ({info.filename!r}), which is not unpacked")
        if not info.is_dir():
            yield info.filename, info.file_size, lambda info=info: opened.open(info)  # type: ignore[misc]


def _tar_members(archive: Path, opened: tarfile.TarFile) -> Iterator[Member]:
    for info in opened:
        if not (info.isfile() or info.isdir()):
            raise UserError(f"{archive}: holds a link or device ({info.name!r}), which is not unpacked")
        if info.isfile():
            yield info.name, info.size, lambda info=info: opened.extractfile(info)  # type: ignore[misc]


def _extract(archive: Path, members: Iterable[Member], place: Path) -> None:
    packed, total = archive.stat().st_size, 0
    for name, size, opener in members:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or ":" in parts[0]:
            raise UserError(f"{archive}: names a file outside of itself ({name!r}); nothing is unpacked")
        total += size
        if total > MAX_RATIO * packed + BLOCK:
            raise UserError(f"{archive}: {packed:,} bytes that unpack to more than {total:,}: refused, not a dataset")
        check_space(place.parent, size)
        path = place.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = opener()
        if content is None:
            raise UserError(f"{archive}: {name!r} cannot be read")
        with content, path.open("wb") as file:
            shutil.copyfileobj(content, file, BLOCK)


def _move(place: Path, folder: Path) -> None:
    """Move what is in ``place`` into ``folder``: whole folders where they are new, else file by file."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in sorted(place.iterdir()) if place.exists() else []:
        target = folder / entry.name
        if entry.is_dir() and target.is_dir():
            _move(entry, target)
        else:
            entry.replace(target)
    if place.exists():
        place.rmdir()
