"""Which files of a dataset can be fetched from where its authors put them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from vgbench.core.errors import UserError
from vgbench.core.registry import datasets
from vgbench.data.archives import unpack
from vgbench.data.dataset import GroundingData
from vgbench.data.fetch import Progress, Source, fetch, guard_disk


@dataclass(frozen=True)
class Plan:
    """What to get for a dataset, what is on the Hub, and what the user has to get.

    Attributes:
        by_hand: "WHAT: where and how".
        hub: repository on the Hub that has all of it.
    """

    sources: list[Source]
    by_hand: list[str] = field(default_factory=list)
    hub: str | None = None

    def lines(self, root: Path) -> list[str]:
        """The plan as text: sizes, checksums, dead links, what is there already."""
        lines = []
        for source in self.sources:
            if (root / source.makes).exists():
                lines.append(f"there already: {source.makes}")
                continue
            size = f", {source.bytes / 1e6:,.0f} MB" if source.bytes else ""
            checksum = "checksum known" if source.sha256 or source.md5 else "no checksum known"
            lines.append(f"to fetch: {source.makes} from {source.url} ({checksum}{size})")
            if source.dead:
                lines.append(f"  instead of {source.dead}, which no longer answers")
        if self.hub:
            lines.append(f"on the Hub: data_root=hf://datasets/{self.hub} fetches it (extra: hub)")
        return lines + [f"by hand: {line}" for line in self.by_hand]


def plan_for(dataset: type[GroundingData], layout: str | None = None, part: str = "all") -> Plan:
    """The files of a dataset.

    Args:
        dataset: its class; :meth:`~vgbench.data.dataset.GroundingData.downloads` says where its files are listed.
        layout: form of the annotations; None: the first of the list.
        part: "annotations", "images" or "all".

    Raises:
        UserError: if nothing is known about the dataset, or the layout is not among those that can be fetched.
    """
    catalog = _catalog(dataset)
    name = dataset.name
    if name not in catalog["datasets"]:
        others = ", ".join(dict.fromkeys(key for data in datasets.classes() for key in _catalog(data)["datasets"]))
        raise UserError(f"data download: no official address of {name} is known; there are: {others}")
    if part not in ("all", "annotations", "images"):
        raise UserError(f"part={part}: not known; use annotations, images or all")
    entry = catalog["datasets"][name]
    layouts = entry["layouts"]
    if layout is not None and layout not in layouts:
        raise UserError(f"layout={layout}: cannot be fetched for {name}; there are: {', '.join(layouts) or 'none'}")
    keys = list(layouts[layout or next(iter(layouts))]) if layouts and part != "images" else []
    keys += entry.get("images", []) if part != "annotations" else []
    sources = [Source(key=key, **catalog["files"][key]) for key in keys]
    return Plan(sources, entry.get("by_hand", []), entry.get("hub"))


def _catalog(dataset: type[GroundingData]) -> dict[str, dict[str, Any]]:
    """{files: {key: fields of :class:`~vgbench.data.fetch.Source`}, datasets: {name: {layouts, images, by_hand}}}."""
    path = dataset.downloads()
    return {"files": {}, "datasets": {}} if path is None else _read_catalog(path)


@functools.cache
def _read_catalog(path: Path) -> dict[str, dict[str, Any]]:
    return yaml.safe_load(path.read_text("utf-8"))


def download(plan: Plan, root: Path, progress: Progress | None = None) -> list[Path]:
    """Get everything of ``plan`` that is not below ``root`` yet.

    Returns:
        what was fetched or unpacked.

    Raises:
        UserError: if a server does not answer, a checksum is wrong, an archive is unsafe, or the disk is full. Calling
            again goes on where this stopped.
    """
    paths = []
    for source in plan.sources:
        target = root / source.makes
        if target.exists():
            continue
        work = root / ".downloads"
        guard_disk(root, functools.partial(work.mkdir, parents=True, exist_ok=True))
        with _alone(work / f"{source.key}.lock"):
            if source.unpack is None:
                fetch(source, target, work, progress)
            else:
                archive = fetch(source, work / source.key, work, progress)
                unpack(archive, root / source.unpack, work)
                if not target.exists():
                    raise UserError(f"{source.url}: unpacked, but {target} is not there; the archive has changed")
                archive.unlink()
        paths.append(target)
        with contextlib.suppress(OSError):  # a file of another download that waits to be continued keeps it
            (work / f"{source.key}.lock").unlink(missing_ok=True)
            work.rmdir()
    return paths


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise UserError(f"{path}: another process is downloading this file; wait for it") from None
