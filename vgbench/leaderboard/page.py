"""The leaderboard as one static page: everything inside one HTML file, nothing loaded from anywhere.

Python only gathers what is in the run folders (records, curves, examples); sorting, filtering and drawing are done by
the plain JavaScript of ``assets``. The page works from ``file://``, on a phone, by keyboard and in the dark.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from vgbench.core.files import write_atomically
from vgbench.core.pages import with_policy
from vgbench.leaderboard.page_data import collect
from vgbench.leaderboard.published import PublishedRow, read_published
from vgbench.records.record import Record


def write_page(
    records: Sequence[Record], out: Path, published: Sequence[PublishedRow] | None = None, others: bool = False
) -> Path:
    """Write ``out/index.html`` for the records and what lies beside them in their run folders.

    Curves come from ``logs/metrics.csv``, examples from ``examples/<split>/examples.json`` of each run folder; a run
    without them is shown without.

    Args:
        published: rows of :func:`~vgbench.leaderboard.published.read_published` for published against measured; None:
            the ones in the package.
        others: published numbers of all methods are rows of the tables.

    Raises:
        UserError: if a log or an examples file is damaged.
    """
    assets = files("vgbench.leaderboard") / "assets"
    data = collect(records, read_published() if published is None else published, others)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    page = (assets / "page.html").read_text(encoding="utf-8")
    for mark, content in (
        ("/*STYLE*/", (assets / "page.css").read_text(encoding="utf-8")),
        ("/*SCRIPT*/", (assets / "page.js").read_text(encoding="utf-8")),
    ):
        head, _, tail = page.partition(mark)
        page = head + content + tail
    head, _, tail = with_policy(page).partition("/*DATA*/")
    # inside a script element only "<" could end or disturb it; in JSON it stands in texts alone
    page = head + text.replace("<", "\\u003c") + tail
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "index.html", page.encode("utf-8", "replace"))
    return out / "index.html"
