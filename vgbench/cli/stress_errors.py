"""``vgbench stress errors|threshold``: what is wrong with the answers of runs, and the threshold of their scores."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgbench.config.compose import split_overrides

if TYPE_CHECKING:
    from vgbench.core.grid import Grid


def errors(arguments: Namespace) -> int:
    """Print the errors of runs by kind, what all get wrong, and the noise ceiling.

    Raises:
        UserError: if a run has no predictions, its data are gone, or there is no such review.
    """
    from vgbench.core.terminal import output
    from vgbench.leaderboard.ceiling import ceiling_grid
    from vgbench.leaderboard.errors import agreement_grid, draw_wrong, errors_grid, split_errors
    from vgbench.records.store import find

    grids: list[Grid] = []
    for part in split_errors(find(map(Path, arguments.overrides or ["runs"]))):
        grids.append(errors_grid(part))
        if len(part.rows) > 1:
            grids.append(agreement_grid(part))
        if arguments.ceiling:
            grids.append(ceiling_grid(part, arguments.ceiling))
        if arguments.pictures and len(part.rows) > 1:
            folder = arguments.pictures / part.where.replace(" ", "-")
            print(f"{draw_wrong(part, folder)} pictures in {folder}")
    output(grids)
    _write(arguments, [_as_json(grid) for grid in grids])
    return 0


def threshold(arguments: Namespace) -> int:
    """Choose the score threshold of GREC on one split and apply it to the others, beside the fixed 0.7.

    Raises:
        UserError: if the run was not scored on several splits with any number of targets.
    """
    from vgbench.core.terminal import output
    from vgbench.leaderboard.thresholds import threshold_grids
    from vgbench.records.store import find

    own, places = split_overrides(arguments.overrides, "select")
    grids = threshold_grids(find(map(Path, places or ["runs"])), own.get("select", "val"))
    output(grids)
    _write(arguments, [_as_json(grid) for grid in grids])
    return 0


def _as_json(grid: Grid) -> dict[str, Any]:
    """A table for other programs."""
    heads = [heading.text for heading in grid.headings]
    rows = [dict(zip(heads, (cell.text for cell in row), strict=True)) for row in grid.rows]
    return {"title": grid.title, "rows": rows, "notes": grid.notes}


def _write(arguments: Namespace, content: Any) -> None:
    from vgbench.core.files import write_atomically

    if arguments.json:
        write_atomically(arguments.json, json.dumps(content, indent=1, ensure_ascii=False).encode())
