"""Two runs under the same probes: paired tests."""

from __future__ import annotations

from collections.abc import Sequence

from vgbench.core.grid import Grid, Heading, text_row
from vgbench.leaderboard.columns import row_label
from vgbench.leaderboard.stress import percent, stressed
from vgbench.leaderboard.versus import holm
from vgbench.metrics.bootstrap import compare_paired
from vgbench.probes.files import outcomes_file
from vgbench.probes.scoring import read_outcomes
from vgbench.records.record import Record, Result

TESTS = (
    "p: paired permutation test, exchanging the two image by image. *: significant at 5 % after Holm's correction "
    "for all probes."
)


def versus_grids(first: Record, second: Record, resamples: int = 1000) -> list[Grid]:
    """Paired tests between two runs, probe by probe, where both asked the same questions and kept their outcomes."""
    grids = []
    rights = {(result.split, result.data_hash, result.prediction_set): result for result in stressed(second)}
    tests: dict[str, list[tuple[str, Result, Result]]] = {}
    for left in stressed(first):
        others = [result for key, result in rights.items() if key[:2] == (left.split, left.data_hash)]
        same = [result for result in others if result.prediction_set == left.prediction_set]
        for right in same or others:
            pair = f"{_label(second, right)} against {_label(first, left)}"
            tests.setdefault(pair, []).append((left.split, left, right))
    for pair, lines in tests.items():
        grid = _test_grid(pair, lines, (first, second), resamples)
        if grid is not None:
            grids.append(grid)
    return grids


def _label(record: Record, result: Result) -> str:
    return f"{row_label(record, result)} ({record.name})"


def _test_grid(
    pair: str, lines: Sequence[tuple[str, Result, Result]], records: tuple[Record, Record], resamples: int
) -> Grid | None:
    """The tests of one pair of outputs; None where the run folders have no outcomes any more."""
    comparisons = []
    for split, left, right in lines:
        files = [
            outcomes_file(record.folder, split, result.prediction_set)
            for record, result in zip(records, (left, right), strict=True)
            if record.folder is not None
        ]
        if len(files) < 2 or not all(file.is_file() for file in files):
            continue
        one, two = (read_outcomes(file) for file in files)
        if one.data_hash == two.data_hash == left.data_hash:
            test = compare_paired(one.outcomes, two.outcomes, "right", one.images, resamples)
            comparisons.append((split, left, right, test))
    if not comparisons:
        return None
    significant = holm([test.p_permutation for *_, test in comparisons])
    headings = [Heading("probe", align="left"), *map(Heading, ("first", "second", "difference"))]
    headings += [Heading("95 % interval", align="centre"), Heading("p"), Heading("n")]
    rows = [
        text_row(
            split,
            percent(left.metrics["right"]),
            percent(right.metrics["right"]),
            f"{test.difference:+.2f}{' *' if mark else ''}",
            f"{test.low:+.2f} to {test.high:+.2f}",
            f"{test.p_permutation:.3f}",
            str(test.n),
        )
        for (split, left, right, test), mark in zip(comparisons, significant, strict=True)
    ]
    return Grid(f"Stress tests: {pair}", headings, rows, [TESTS])
