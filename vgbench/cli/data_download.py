"""``vgbench data download``: fetch files from where the authors put them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vgbench.config.actions import Action, Arguments
from vgbench.core.errors import UserError

if TYPE_CHECKING:
    from vgbench.data.fetch import Progress, Source


def fetch(arguments: Arguments) -> int:
    """Show the plan and the licence, ask, fetch; 1 if the user says no.

    Raises:
        UserError: if there is no folder for it, nothing is known of the layout, a download fails, or nobody can be
            asked and ``--yes`` is not given.
    """
    from vgbench.data.download import download, plan_for

    own, dataset, root = arguments.own, arguments.dataset(), arguments.config().dataset.get("data_root")
    plan = plan_for(type(dataset), own.get("layout"), own.get("part", "all"))
    if root is None:
        raise UserError("data download: data_root= is missing, the folder to put the files into, e.g. data_root=data")
    root = Path(root).expanduser()
    if root.exists() and not root.is_dir():
        raise UserError(f"{root}: is a file; set data_root= to a folder")
    print(f"{dataset.title} -> {root}", *plan.lines(root), sep="\n")
    missing = [source for source in plan.sources if not (root / source.makes).exists()]
    if not missing:
        return 0
    print(f"licence: {dataset.licence} ({dataset.homepage}). Fetching means that you accept the authors' terms.")
    if "--yes" not in arguments.flags and not _ask():
        print("nothing fetched")
        return 1
    with _bar(missing) as progress:
        paths = download(plan, root, progress)
    print(*(f"{path}: there" for path in paths), sep="\n")
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


DOWNLOAD = Action(
    "download",
    fetch,
    "dataset=refcoco data_root=data",
    keys=("layout", "part"),
    usage="[layout=...] [part=annotations|images]",
    flags={"--yes": "accept the licence without being asked"},
)
