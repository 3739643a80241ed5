"""Predictions whose model answered in words, read again: in another style, or to count how they were read."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vgbench.core.errors import UserError
from vgbench.data.table import AnnotationTable
from vgbench.predictions.answers import by_rule
from vgbench.predictions.coordinates import Size
from vgbench.predictions.reading import SEVERAL, Reading
from vgbench.predictions.styles.base import AnswerStyle, TextAnswer
from vgbench.predictions.table import SCHEMA, Predictions
from vgbench.predictions.tally import SEVERAL_BOXES, Tally
from vgbench.types import Geometry

_STATED = ("style", "scale", "boxes", "frame", "several")  # what can be stated of a file of ours


def is_predictions_file(path: Path) -> bool:
    """Whether a file has the fields of ours, by its first line or its schema; what is in them is not looked at."""
    try:
        if path.suffix == ".parquet":
            names = pq.read_schema(path).names
        elif path.suffix in (".jsonl", ".ndjson"):
            with path.open("rb") as file:
                line = json.loads(file.readline(100_000_000))
            names = list(line) if isinstance(line, dict) else []
        else:
            return False
    except (OSError, ValueError, RecursionError, pa.ArrowException):
        return False
    return {"key", "boxes"} <= set(names) <= set(SCHEMA.names)


def reread(
    predictions: Predictions, table: AnnotationTable, reading: Reading, name: str
) -> tuple[Predictions, list[str]]:
    """Predictions with boxes and points as a style reads them in the model's words; masks and heat maps are left out.

    Args:
        predictions: in the order of ``table``.
        table: the expressions that were predicted.
        reading: with a style.
        name: of the file, for messages.

    Returns:
        Predictions, and notes for the record.

    Raises:
        UserError: if something is stated that such a file has of its own, it holds no words, hardly any of them hold a
            box, or the style needs the size in which the model saw the image, which was not kept.
    """
    others = [key for key in ("match", "id", "text", "box", "sentence") if vars(reading)[key] not in (None, "key")]
    if others or reading.size_fields:
        raise UserError(
            f"{name}: a predictions file of vgbench, whose fields are known; {', '.join(others) or 'scale='} cannot be "
            f"stated of it, only {', '.join(_STATED)}"
        )
    style = reading.answer_style
    assert style is not None
    if not predictions.has("answer"):
        raise UserError(
            f"{name}: no model's words (field 'answer') to be read as style={style.name}; score the file without style="
        )
    rule = reading.several or "all"
    answers, tally = _answers(predictions, table, style, name)
    read = []
    for answer, words, geometry in zip(answers, predictions.answers(), predictions.geometry(), strict=True):
        chosen = TextAnswer() if answer is None else answer
        chosen.boxes = by_rule(chosen.boxes, [1.0] * len(chosen.boxes), rule)[0]
        read.append(chosen.stored(words, geometry))
    if tally.hardly_read:
        raise UserError(
            f"{name}: {len(tally.holding)} of {tally.answers} answers hold a box as style={style.name} writes it "
            f"({style.shape}), e.g. {tally.example}; state another style="
        )
    notes = [f"read again as style {style.name}: {style.coordinates.words()}", *_rule(reading)]
    absent = sum(answer is None for answer in answers)
    if absent:
        notes.append(f"{absent} expressions have no words: no box there")
    return Predictions.from_list(table.column("key").tolist(), read), notes + tally.notes()


def reading_notes(predictions: Predictions, table: AnnotationTable, style: AnswerStyle) -> list[str]:
    """How the words in a predictions file were read, for the record of the run that wrote it.

    Args:
        predictions: in the order of ``table``.
        table: the expressions that were predicted.
        style: that the method read its model's words in.
    """
    if not predictions.has("answer"):
        return []
    _, tally = _answers(predictions, table, style, "predictions")
    return [f"answers read as style {style.name}: {style.coordinates.words()}", *tally.notes()]


def _answers(
    predictions: Predictions, table: AnnotationTable, style: AnswerStyle, name: str
) -> tuple[list[TextAnswer | None], Tally]:
    """Every answer (None: no words), and the counts."""
    keys, widths, heights = (table.column(column).tolist() for column in ("key", "width", "height"))
    tally = Tally([len(boxes) for boxes in table.arrow.column("boxes")])
    generalised = table.info.get("task") == "grec"
    answers: list[TextAnswer | None] = []
    for row, (words, geometry) in enumerate(zip(predictions.answers(), predictions.geometry(), strict=True)):
        if words is None:
            answers.append(None)
            continue
        seen = seen_size(geometry)
        if style.needs_model_size and seen is None:
            raise UserError(
                f"{name}: key {keys[row]!r}: style={style.name} needs the size in which the model saw the image "
                "(field 'geometry'), which was not kept; state scale=pixels if it was not resized"
            )
        answer = style.read(words, (widths[row], heights[row]), seen)
        doubts = [*answer.doubts, SEVERAL_BOXES] if len(answer.boxes) > 1 and not generalised else answer.doubts
        tally.add(row, words, f"key {keys[row]!r}", bool(answer.boxes or answer.points), answer.silence, doubts)
        answers.append(answer)
    return answers, tally


def seen_size(geometry: Geometry | None) -> Size | None:
    """(width, height) of the image as the model saw it, without padding; None: it is not known."""
    if geometry is None:
        return None
    height, width = geometry.size
    return (round(width * geometry.scale[0]), round(height * geometry.scale[1]))


def _rule(reading: Reading) -> list[str]:
    if reading.several is None:
        return []
    return [f"of several boxes {SEVERAL[reading.several]} ({reading.several})"]
