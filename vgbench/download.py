"""``vgbench data download``: the files of a dataset from where their authors put them (datasets/downloads.yaml).

Transfers go on where they were stopped (HTTP ranges), checksums are compared where one is known, and archives are
unpacked beside their place and then moved: under its own name a file is complete or not there. What is half fetched
lies in ``<data_root>/.downloads``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import gzip
import hashlib
import http.client
import json
import lzma
import os
import re
import shutil
import stat
import sys
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files as resource_files
from pathlib import Path, PurePosixPath
from typing import IO, Any

import yaml
from filelock import FileLock, Timeout

from vgbench.errors import UserError
from vgbench.files import atomic

__all__ = ["Plan", "Source", "download", "fetch", "plan_for", "unpack"]

BLOCK = 1 << 20
TIMEOUT = 60.0  # seconds without a byte
ATTEMPTS = 5  # in a row without a single new byte
PAUSE = 1.0  # seconds before the first repetition; doubled each time
MAX_RATIO = 100  # of unpacked to packed size; annotations in JSON reach 20
Progress = Callable[[str, int, "int | None"], None]
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError),
    *(NotImplementedError, RuntimeError),  # zipfile: unknown compression, password
)


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


@dataclass(frozen=True)
class Plan:
    """What to get for a dataset, and what the user has to get."""

    sources: list[Source]
    by_hand: list[str] = field(default_factory=list)

    def lines(self, root: Path) -> list[str]:
        """The plan as text: sizes, checksums, dead links, what is there already."""
        lines = []
        for source in self.sources:
            if (root / source.makes).exists():
                lines.append(f"there already: {source.makes}")
                continue
            size = f", {source.bytes / 1e6:,.0f} MB" if source.bytes else ""
            known = "checksum known" if source.sha256 or source.md5 else "no checksum known"
            lines.append(f"to fetch: {source.makes} from {source.url} ({known}{size})")
            if source.dead:
                lines.append(f"  instead of {source.dead}, which no longer answers")
        return lines + [f"by hand: {line}" for line in self.by_hand]


def plan_for(name: str, layout: str | None = None, part: str = "all") -> Plan:
    """The files of dataset ``name``.

    Args:
        layout: form of the annotations; None: the first of downloads.yaml.
        part: "annotations", "images" or "all".

    Raises:
        UserError: if nothing is known about the dataset, or the layout is not among those that can be fetched.
    """
    known = yaml.safe_load(resource_files("vgbench.datasets").joinpath("downloads.yaml").read_text("utf-8"))
    if name not in known["datasets"]:
        raise UserError(
            f"data download: no official address of {name} is known; there are: {', '.join(known['datasets'])}"
        )
    if part not in ("all", "annotations", "images"):
        raise UserError(f"part={part}: not known; use annotations, images or all")
    entry = known["datasets"][name]
    layouts = entry["layouts"]
    if layout is not None and layout not in layouts:
        raise UserError(f"layout={layout}: cannot be fetched for {name}; there are: {', '.join(layouts) or 'none'}")
    wanted = list(layouts[layout or next(iter(layouts))]) if layouts and part != "images" else []
    wanted += entry.get("images", []) if part != "annotations" else []
    sources = [Source(key=key, **known["files"][key]) for key in wanted]
    return Plan(sources, entry.get("by_hand", []))


def download(plan: Plan, root: Path, progress: Progress | None = None) -> list[Path]:
    """Get everything of ``plan`` that is not below ``root`` yet.

    Returns:
        what was made.

    Raises:
        UserError: if a server does not answer, a checksum is wrong, an archive is unsafe, or the disk is full. Calling
            again goes on where this stopped.
    """
    made = []
    for source in plan.sources:
        target = root / source.makes
        if target.exists():
            continue
        work = root / ".downloads"
        _guard_disk(root, functools.partial(work.mkdir, parents=True, exist_ok=True))
        with _alone(work / f"{source.key}.lock"):
            if source.unpack is None:
                fetch(source, target, work, progress)
            else:
                archive = fetch(source, work / source.key, work, progress)
                unpack(archive, root / source.unpack, work)
                if not target.exists():
                    raise UserError(f"{source.url}: unpacked, but {target} is not there; the archive has changed")
                archive.unlink()
        made.append(target)
        with contextlib.suppress(OSError):  # a file of another download that waits to be continued keeps it
            (work / f"{source.key}.lock").unlink(missing_ok=True)
            work.rmdir()
    return made


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise UserError(f"{path}: another process is downloading this file; wait for it") from None


# --------------------------------------------------------------------------------------------------------- one transfer


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
                raise _full(part.parent) from None
            complete, reason = False, str(getattr(error, "reason", None) or error) or type(error).__name__
        else:
            reason = "the connection ended early"
        if complete:
            break
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures >= ATTEMPTS:
            kept = f"; {after / 1e6:,.1f} MB are kept, call again to go on" if after else ""
            raise UserError(_gone(source, f"{reason} ({ATTEMPTS} times){kept}"))
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


def _full(folder: Path) -> UserError:
    return UserError(f"{folder}: the disk is full; free some space and call again, what is fetched is kept")


def _guard_disk(folder: Path, action: Callable[[], object]) -> None:
    """Run ``action``; a full disk or a folder that cannot be written becomes one line."""
    try:
        action()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(folder) from None
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
        _check_space(part.parent, None if total is None else total - start)
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
    found = re.match(r"bytes (\d+)-", content_range or "")
    return int(found[1]) if found else None


def _total(content_range: str | None) -> int | None:
    found = re.search(r"/(\d+)$", content_range or "")
    return int(found[1]) if found else None


def _check_space(folder: Path, needed: int | None) -> None:
    free = shutil.disk_usage(folder).free
    if needed is not None and needed > free:
        raise UserError(
            f"{folder}: {needed / 1e9:,.2f} GB are needed and {free / 1e9:,.2f} GB are free; free some space and call "
            "again, or set data_root= to another disk"
        )


def _check_sum(source: Source, part: Path) -> None:
    for kind in ("sha256", "md5"):
        wanted = getattr(source, kind)
        if wanted is None:
            continue
        digest = hashlib.new(kind, usedforsecurity=False)
        with part.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        if digest.hexdigest() != wanted:
            part.unlink()
            _note(part).unlink(missing_ok=True)
            raise UserError(
                f"{source.url}: wrong {kind} {digest.hexdigest()}, expected {wanted}; the file was damaged on its way "
                "or changed at its source, and is removed: call again, or compare with the authors' page"
            )


# ------------------------------------------------------------------------------------------------------------- archives

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
            raise _full(folder) from None
        raise UserError(f"{archive}: cannot be unpacked ({error})") from None
    except UserError:
        shutil.rmtree(place, ignore_errors=True)
        raise
    _guard_disk(folder, functools.partial(_move, place, folder))


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
        _check_space(place.parent, size)
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


# -------------------------------------------------------------------------------------------------------------- command


def main(own: Mapping[str, str], data: Any, root: Path | None, yes: bool) -> int:
    """``vgbench data download dataset=... data_root=...``: show the plan and the licence, ask, fetch.

    Args:
        own: ``layout`` and ``part``.
        data: the dataset (title, licence, home page).
        root: data_root.
        yes: do not ask.

    Returns:
        0, or 1 if the user says no.

    Raises:
        UserError: see :func:`download`; also if nobody can be asked and ``yes`` is not given.
    """
    plan = plan_for(type(data).name, own.get("layout"), own.get("part", "all"))
    if root is None:
        raise UserError("data download: data_root= is missing, the folder to put the files into, e.g. data_root=data")
    if root.exists() and not root.is_dir():
        raise UserError(f"{root}: is a file; set data_root= to a folder")
    print(f"{data.title} -> {root}", *plan.lines(root), sep="\n")
    missing = [source for source in plan.sources if not (root / source.makes).exists()]
    if not missing:
        return 0
    print(f"licence: {data.licence} ({data.homepage}). Fetching means that you accept the authors' terms.")
    if not yes and not _ask():
        print("nothing fetched")
        return 1
    with _bar(missing) as progress:
        made = download(plan, root, progress)
    print(*(f"{path}: there" for path in made), sep="\n")
    return 0


def _ask() -> bool:
    if not sys.stdin.isatty():
        raise UserError("data download: nobody is there to accept the licence; add --yes if you do")
    return input("fetch? [y/N] ").strip().lower() in ("y", "yes")


@contextlib.contextmanager
def _bar(sources: Sequence[Source]) -> Iterator[Progress | None]:
    """A progress bar per file where somebody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        tasks = {source.key: bar.add_task(source.key, total=source.bytes) for source in sources}
        yield lambda key, done, total: bar.update(tasks[key], completed=done, total=total)
