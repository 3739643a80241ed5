"""A score threshold chosen on one split and applied to others, beside the usual one."""

from __future__ import annotations

from collections.abc import Sequence

from vgbench.core.errors import UserError
from vgbench.core.grid import Grid, Heading, text_row
from vgbench.leaderboard.columns import row_label
from vgbench.leaderboard.versus import Side, load_table, side_predictions
from vgbench.metrics.bootstrap import compare_paired
from vgbench.metrics.evaluator import evaluate_predictions
from vgbench.metrics.tasks import task_of
from vgbench.metrics.threshold import USUAL, best_threshold
from vgbench.records.record import Record, Result

TASK = "grec"


def threshold_grids(records: Sequence[Record], select: str) -> list[Grid]:
    """For every output of every run that was scored on ``select`` and other splits: the threshold that is best there,
    and what it does on the others.

    Raises:
        UserError: if there is no such run.
    """
    grids = []
    for record in records:
        outputs: dict[tuple[str, str], dict[str, Result]] = {}
        for result in record.results:
            default = all(metric.variant == "default" for metric in result.metrics.values())
            if result.task == TASK and default and result.predictions is not None:
                outputs.setdefault((result.dataset, result.prediction_set), {})[result.split] = result
        for by_split in outputs.values():
            if select in by_split and len(by_split) > 1:
                grids.append(_grid(record, by_split, select))
    if not grids:
        raise UserError(
            f"no run with predictions of {TASK} on {select} and on another split; evaluate one on both, e.g. "
            f"vgbench eval ... eval.splits=[{select},testA]"
        )
    return grids


def _grid(record: Record, by_split: dict[str, Result], select: str) -> Grid:
    selection = by_split[select]
    _, table = load_table(record, selection)
    percent = best_threshold(table, side_predictions(Side(record, selection), table))
    names = task_of(TASK).headline
    headings = [Heading("split", align="left"), Heading("metric", align="left")]
    headings += [Heading(text) for text in (f"at {USUAL / 100:g}", f"at {percent / 100:g}", "difference", "p", "n")]
    rows = []
    for split, result in by_split.items():
        _, table = load_table(record, result)
        predictions = side_predictions(Side(record, result), table)
        spec = f"{TASK}/score@{percent}"
        report = evaluate_predictions(table, predictions, [TASK, spec], bootstrap=0)
        for name in names:
            usual, best = report.outcomes[TASK], report.outcomes[spec]
            if not usual.ratios[name].den.any():
                continue
            test = compare_paired(usual, best, name, table.column("image_id")[usual.rows])
            title = f"{split} (chosen on it)" if split == select else split
            values = usual.ratios[name].value, best.ratios[name].value
            rows.append(
                text_row(
                    title,
                    task_of(TASK).metric_title(name),
                    *(f"{value:.2f}" for value in values),
                    f"{test.difference:+.2f}",
                    f"{test.p_permutation:.3f}",
                    str(test.n),
                )
            )
    note = f"{percent / 100:g} has the highest Pr@F1 of 0.01, 0.02, ..., 0.99 on {select}; p: paired permutation test"
    return Grid(f"Threshold of {row_label(record, selection)} on {selection.dataset}", headings, rows, notes=[note])
