"""Runs and leaderboards as data frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vgbench.api.overrides import as_overrides
from vgbench.config.compose import compose
from vgbench.core.errors import UserError, require_extra
from vgbench.leaderboard.columns import metric_title
from vgbench.leaderboard.flat import flat, flat_pair
from vgbench.leaderboard.pairs import published_pairs
from vgbench.leaderboard.published import read_published
from vgbench.metrics.catalog import headline
from vgbench.records import store

if TYPE_CHECKING:
    import pandas as pd


def run(*overrides: str, **options: Any) -> pd.DataFrame:
    """Train, evaluate, write a run folder, as ``vgbench run`` does; with ``checkpoint`` only evaluate.

    Args:
        overrides: as on the command line, "recipe.epochs=3".
        options: the same as Python values; keys with dots by ``**{"recipe.epochs": 3}``.

    Returns:
        a row per number (see :func:`compare` with ``long=True``); ``frame.attrs["folder"]`` is the run folder.

    Raises:
        UserError: if nothing was chosen, or as ``vgbench run`` and ``vgbench eval``.
    """
    from vgbench.training.run import evaluate, run

    require_extra("pandas", "notebook", "vgbench.run()")
    words = [*overrides, *as_overrides(options)]
    if not words:
        raise UserError("run: say what to train: vgbench.run(method=NAME, dataset=NAME); `vgbench list` has the names")
    config = compose(words)
    only_evaluates = config.checkpoint not in (None, "best", "last")  # those two are models of the run itself
    result = (evaluate if only_evaluates else run)(config)
    frame = compare([result.folder], long=True)
    frame.attrs["folder"] = str(result.folder)
    return frame


def compare(
    runs: str | Path | Sequence[str | Path] = "runs",
    *,
    all_metrics: bool = False,
    published: Literal["own"] | None = None,
    long: bool = False,
) -> pd.DataFrame:
    """The leaderboard of run folders.

    Args:
        runs: run folders, or folders of them.
        all_metrics: every metric, not only the headlines of the tasks.
        published: "own": also rows of published numbers of the same methods, with provenance "published" (``long``).
        long: a row per number, with interval, count, seed, cost and where it comes from; False: a row per model, a
            column per data set, split and metric (of several runs of one model the mean).

    Raises:
        UserError: if there is no record, or pandas is not installed.
    """
    pandas = require_extra("pandas", "notebook", "vgbench.compare()")
    records = store.find([runs] if isinstance(runs, (str, Path)) else runs)
    rows = flat(records)
    if published:
        rows += [flat_pair(pair) for pair in published_pairs(records, read_published())]
    frame = pandas.DataFrame(rows)
    if not all_metrics:
        named = zip(frame.task, frame.metric_variant, frame.metric, strict=True)
        frame = frame[[metric in (*headline(task), *headline(task, variant)) for task, variant, metric in named]]
    if long:
        return frame.reset_index(drop=True)
    measured = frame[(frame.provenance != "published") & (frame.control == "")]
    where = measured.dataset + " " + measured.split
    titles = [
        metric_title(*names) for names in zip(measured.task, measured.metric, measured.metric_variant, strict=True)
    ]
    named = measured.assign(where=where, title=titles)
    return named.pivot_table(index="row", columns=["where", "title"], values="value", sort=False)
