"""Predictions in other people's formats -> :class:`Predictions`.

What cannot be seen in a file is stated by its user and never guessed, least of all from the ground truth: the scale of
the coordinates, the meaning of four numbers, and what the entries' ids refer to.
"""

from __future__ import annotations

from pathlib import Path

from vgbench.data.table import AnnotationTable
from vgbench.predictions.answers import Answers
from vgbench.predictions.checks import check
from vgbench.predictions.entries import read_entries
from vgbench.predictions.matching import match_rows, of_split, split_names
from vgbench.predictions.numbers import FORMS
from vgbench.predictions.reading import SEVERAL, Reading
from vgbench.predictions.table import Predictions


def read_foreign(path: str | Path, table: AnnotationTable, reading: Reading) -> tuple[Predictions, list[str]]:
    """Read a file in a foreign format.

    Args:
        path: ``.json`` (a list of entries, also below a key, or an object id -> entry), ``.jsonl`` (one per line),
            ``.tsv``, ``.csv``, ``.xlsx`` or ``.parquet`` (one entry per row).
        table: the expressions that were predicted.
        reading: how to read it.

    Returns:
        Predictions in the order of ``table``, and notes for the record (how many answers could not be read, ...).

    Raises:
        UserError: if the file cannot be read, or its ids do not fit the table.
    """
    path = Path(path)
    reading.check_stated()
    answers, notes = _gather(path, table, reading)
    predictions = Predictions.from_list(table.column("key").tolist(), answers.predictions())
    notes = [
        f"read as {reading.format}, coordinates {reading.scale_words}, matched by {reading.match}",
        *_rules(reading),
        *notes,
        *answers.notes(path),
    ]
    check(predictions, str(path), "expression")
    return predictions, notes


def unreadable_keys(path: str | Path, table: AnnotationTable, reading: Reading) -> list[str]:
    """The expressions whose answers hold no box that could be read; errors as of :func:`read_foreign`."""
    answers, _ = _gather(Path(path), table, reading)
    return [table.row(row).key for row in answers.tally.unreadable]


def _gather(path: Path, table: AnnotationTable, reading: Reading) -> tuple[Answers, list[str]]:
    """The answers of a file by expression, and notes on where they stood."""
    places, entries, notes = read_entries(path, split_names(table))
    entries, places, split_notes = of_split(entries, places, table)
    rows, matching_notes = match_rows(entries, places, table, reading)
    answers = Answers(table, reading)
    for entry, place, row in zip(entries, places, rows, strict=True):
        if row is not None:
            answers.add(row, entry, place)
    return answers, [*notes, *split_notes, *matching_notes]


def _rules(reading: Reading) -> list[str]:
    """What the user stated beyond format, scale and match."""
    rules = []
    if reading.boxes and reading.style is None:
        rules.append(f"four numbers are {FORMS[reading.boxes]} ({reading.boxes})")
    if reading.several:
        rules.append(f"of several boxes {SEVERAL[reading.several]} ({reading.several})")
    return rules
