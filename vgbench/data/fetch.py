"""Fetching one file: resumed, checked, and never half there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vgbench.core.errors import UserError
from vgbench.core.files import atomic

BLOCK = 1 << 20


TIMEOUT = 60.0  # seconds without a byte


ATTEMPTS = 5  # in a row without a single new byte


PAUSE = 1.0  # seconds before the first repetition; doubled each time


Progress = Callable[[str, int, "int | None"], None]


@dataclass(frozen=True)
class Source:
    """One file of downloads.yaml; ``key`` is its name there.

    Attributes:
        makes: what is below data_root when it is done.
        unpack: folder below data_root that the archive is unpacked into; None: the file itself is wanted.
        dead: address that no longer answers and that other code still names.
    """

    key: str
    url: str
    makes: str
    unpack: str | None = None
    sha256: str | None = None
    md5: str | None = None
    bytes: int | None = None
    dead: str | None = None


def fetch(source: Source, target: Path, work: Path, progress: Progress | None = None) -> Path:
    """Get ``source.url`` as ``target``, going on with what an earlier call left in ``work``.

    Raises:
        UserError: see :func:`download`.
    """
    if target.exists():
        return target
    if urllib.parse.urlsplit(source.url).scheme not in ("http", "https"):
        raise UserError(f"{source.url}: not a web address")
    part = work / f"{source.key}.part"
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            complete = _transfer(source, part, progress)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise UserError(_gone(source, f"the server says {error.code} {error.reason}")) from None
            complete, reason = False, f"the server says {error.code}"
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full(part.parent) from None
            complete, reason = False, str(getattr(error, "reason", None) or error) or type(error).__name__
        else:
            reason = "the connection ended early"
        if complete:
            break
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures >= ATTEMPTS:
            partial = f"; {after / 1e6:,.1f} MB are kept, call again to go on" if after else ""
            raise UserError(_gone(source, f"{reason} ({ATTEMPTS} times){partial}"))
        time.sleep(PAUSE * 2 ** max(failures - 1, 0))
    _check_sum(source, part)
    target.parent.mkdir(parents=True, exist_ok=True)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    _note(part).unlink(missing_ok=True)
    return target


def _gone(source: Source, reason: str) -> str:
    return f"{source.url}: {reason}; it can be put by hand as {source.makes} below data_root"


def disk_full(folder: Path) -> UserError:
    return UserError(f"{folder}: the disk is full; free some space and call again, what is fetched is kept")


def guard_disk(folder: Path, action: Callable[[], object]) -> None:
    """Run ``action``; a full disk or a folder that cannot be written becomes one line."""
    try:
        action()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(folder) from None
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None


def _note(part: Path) -> Path:
    """Beside a part: which version of which address it is a part of."""
    return part.with_suffix(".json")


def _transfer(source: Source, part: Path, progress: Progress | None) -> bool:
    """One request; True if the file is complete afterwards. What was there is kept only if the server goes on with the
    same version of the file (If-Range)."""
    start = part.stat().st_size if part.exists() else 0
    version: str | None = None
    if start:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(_note(part).read_text())
            version = note["version"] if note["url"] == source.url else None
        if version is None and not (source.sha256 or source.md5):
            start = 0  # nothing would show that two halves do not belong together
    headers = {"User-Agent": "vgbench", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if version is not None:
            headers["If-Range"] = version
    request = urllib.request.Request(urllib.parse.quote(source.url, safe=":/?&=%~+#"), headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        total = _total(error.headers.get("Content-Range"))
        if total == start:
            return True
        part.unlink()  # longer than the file: of another version
        return False
    with response:
        if response.status == 206:
            first, total = _first(response.headers.get("Content-Range")), _total(response.headers.get("Content-Range"))
            if first != start:
                raise OSError(f"asked for bytes from {start} on, the server sent them from {first}")
        else:
            start, length = 0, response.headers.get("Content-Length")
            total = int(length) if length and length.isdecimal() else None
        check_space(part.parent, None if total is None else total - start)
        strong = response.headers.get("ETag", "")
        version = strong if strong.startswith('"') else response.headers.get("Last-Modified")
        with atomic(_note(part)) as temporary:
            temporary.write_text(json.dumps({"url": source.url, "version": version}))
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            while block := response.read(BLOCK):
                file.write(block)
                if progress is not None:
                    progress(source.key, file.tell(), total)
            return total is None or file.tell() == total


def _first(content_range: str | None) -> int | None:
    match = re.match(r"bytes (\d+)-", content_range or "")
    return int(match[1]) if match else None


def _total(content_range: str | None) -> int | None:
    match = re.search(r"/(\d+)$", content_range or "")
    return int(match[1]) if match else None


def check_space(folder: Path, needed: int | None) -> None:
    free = shutil.disk_usage(folder).free
    if needed is not None and needed > free:
        raise UserError(
            f"{folder}: {needed / 1e9:,.2f} GB are needed and {free / 1e9:,.2f} GB are free; free some space and call "
            "again, or set data_root= to another disk"
        )


def _check_sum(source: Source, part: Path) -> None:
    for kind in ("sha256", "md5"):
        expected = getattr(source, kind)
        if expected is None:
            continue
        digest = hashlib.new(kind, usedforsecurity=False)
        with part.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        if digest.hexdigest() != expected:
            part.unlink()
            _note(part).unlink(missing_ok=True)
            raise UserError(
                f"{source.url}: wrong {kind} {digest.hexdigest()}, expected {expected}; the file was damaged on its "
                "way or changed at its source, and is removed: call again, or compare with the authors' page"
            )
