"""The command."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError
from vgbench.data.download import download, plan_for
from vgbench.data.fetch import Progress, Source


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
