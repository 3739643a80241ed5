"""What is wrong with the answers of runs: kinds of errors, and what everybody gets wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from vgbench.core.errors import UserError
from vgbench.core.grid import Grid, Heading, text_row
from vgbench.data.boxes import iou
from vgbench.data.dataset import GroundingData
from vgbench.data.table import AnnotationTable
from vgbench.leaderboard.columns import row_label
from vgbench.leaderboard.versus import Side, load_table, side_predictions
from vgbench.metrics.errors import KINDS, TITLES, ErrorKinds, error_kinds
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.tasks import STRESS
from vgbench.metrics.verdict import first_boxes
from vgbench.pictures import draw
from vgbench.predictions.table import Predictions
from vgbench.records.external import unreadable_file
from vgbench.records.record import Record


@dataclass(frozen=True)
class Answered:
    """The answers of one output of a run."""

    label: str
    predictions: Predictions
    kinds: ErrorKinds

    @property
    def right(self) -> np.ndarray:
        """bool [n]."""
        return self.kinds.index == KINDS.index("correct")


@dataclass(frozen=True)
class SplitErrors:
    """All answers to the expressions of one split."""

    data: GroundingData
    split: str
    table: AnnotationTable
    rows: list[Answered] = field(default_factory=list)

    @property
    def where(self) -> str:
        """Data set and split."""
        return f"{self.data.name} {self.split}"

    def all_wrong(self) -> list[int]:
        """Expressions that every run gets wrong, first those whose wrong answers agree most: there the label may be
        wrong."""
        if len(self.rows) < 2:
            return []
        wrong = np.flatnonzero(~np.any([row.right for row in self.rows], axis=0))
        agreement = {index: self.agreement(index) for index in wrong.tolist()}
        return sorted(agreement, key=lambda index: (-agreement[index], index))

    def agreement(self, index: int) -> float:
        """Mean IoU of the first boxes of all pairs of runs on an expression; 0 where a run has none."""
        boxes = [first_boxes(row.predictions.take([index])) for row in self.rows]
        pairs = [(one, two) for place, one in enumerate(boxes) for two in boxes[:place]]
        return float(np.mean([float(iou(a[0][0], b[0][0])) * (a[1][0] and b[1][0]) for a, b in pairs]))


def split_errors(records: Sequence[Record]) -> list[SplitErrors]:
    """The answers of all runs, by the expressions that they are about.

    Raises:
        UserError: if no run has predictions, or its data are gone.
    """
    splits: dict[str, SplitErrors] = {}
    for record in records:
        seen: set[tuple[str, str]] = set()
        for result in record.results:
            output = (result.data_hash, result.prediction_set)
            if result.task == STRESS or result.predictions is None or output in seen:
                continue
            seen.add(output)
            if result.data_hash not in splits:
                data, table = load_table(record, result)
                splits[result.data_hash] = SplitErrors(data, result.split, table)
            part = splits[result.data_hash]
            predictions = side_predictions(Side(record, result), part.table)
            pairs = Pairs(predictions, part.table, np.arange(len(part.table)))
            kinds = error_kinds(pairs, part.data.scenes(part.split), _unreadable(record, result.predictions))
            label = row_label(record, result)
            if label in {row.label for row in part.rows}:
                label += f" ({record.name})"
            part.rows.append(Answered(label, predictions, kinds))
    if not splits:
        raise UserError("none of these runs has predictions; evaluate a run again, or name others")
    return list(splits.values())


def _unreadable(record: Record, predictions: str) -> set[str]:
    """Keys of answers that could not be read, if the run has any."""
    assert record.folder is not None
    file = record.folder / unreadable_file(Path(predictions))
    if not file.is_file():
        return set()
    try:
        return set(map(str, json.loads(file.read_bytes())))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file}: no list of keys ({error}); remove it, or register the predictions again") from None


def errors_grid(part: SplitErrors) -> Grid:
    """How many answers of each run are of each kind, in percent of all expressions."""
    used = [name for place, name in enumerate(KINDS) if any((row.kinds.index == place).any() for row in part.rows)]
    headings = [Heading("Row", align="left"), *(Heading(TITLES[name]) for name in used)]
    rows = [
        text_row(row.label, *(f"{100 * (row.kinds.index == KINDS.index(name)).mean():.2f}" for name in used))
        for row in part.rows
    ]
    return Grid(f"Answers by kind, % of {len(part.table)} expressions: {part.where}", headings, rows)


def agreement_grid(part: SplitErrors, count: int = 20) -> Grid:
    """The expressions that all runs get wrong: their number is a hint at labels that are wrong."""
    wrong = part.all_wrong()
    headings = [Heading("expression", align="left"), Heading("agreement"), Heading("key", align="left")]
    rows = [
        text_row(part.table.row(index).expression, f"{part.agreement(index):.2f}", part.table.row(index).key)
        for index in wrong[:count]
    ]
    share = 100 * len(wrong) / max(len(part.table), 1)
    expected = 100 * float(np.prod([1 - row.right.mean() for row in part.rows]))
    note = (
        f"{len(wrong)} expressions ({share:.2f} %) are wrong for all {len(part.rows)} rows; were their errors "
        f"independent, it would be {expected:.2f} %. agreement: mean IoU of the wrong answers with each other"
    )
    return Grid(f"Wrong for everybody: {part.where}", headings, rows, notes=[note])


def draw_wrong(part: SplitErrors, folder: Path, count: int = 20) -> int:
    """NN.png of what everybody gets wrong into ``folder``, and sheet.png; how many could be drawn."""
    pictures = []
    for number, index in enumerate(part.all_wrong()[:count]):
        row = part.table.row(index)
        answers = {answered.label: answered.predictions.prediction(index) for answered in part.rows}
        try:
            with part.data.image_path(row.image).open("rb") as file, Image.open(file) as image:
                pictures.append(draw.draw(image, row.expression, row, answers, size=360))
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
        draw.save(pictures[-1], folder / f"{number:02d}.png")
    if pictures:
        draw.save(draw.contact_sheet(pictures), folder / "sheet.png")
    return len(pictures)
