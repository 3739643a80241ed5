"""Examples of a probe for a reader: where the answer should have moved and did not, or should have stayed and moved."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from vgbench.data.checks import BadSample
from vgbench.data.images import ImageFile, decode_image
from vgbench.data.table import AnnotationTable
from vgbench.method import GroundingMethod
from vgbench.pictures.examples import write_examples
from vgbench.predictions.table import Predictions
from vgbench.probes.base import Expectation
from vgbench.probes.questions import Questions

COUNT = 4  # of each probe, at most


class ShownImage:
    """The image of a question, in memory; ``str`` of it says where the original is."""

    def __init__(self, questions: Questions, index: int, file: ImageFile) -> None:
        self.questions, self.index, self.file = questions, index, file

    def __str__(self) -> str:
        return f"{self.file} as {self.questions.probe.spec} shows it"

    @property
    def name(self) -> str:
        """The name of the original file."""
        return self.file.name

    def open(self, mode: Literal["rb"]) -> BinaryIO:
        """The image as PNG; raises OSError if the original cannot be read."""
        try:
            pixels = self.questions.picture(self.index, decode_image(self.file))
        except BadSample as error:
            raise OSError(str(error)) from None
        content = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(content, "PNG")
        content.seek(0)
        return content


def worst(columns: Mapping[str, np.ndarray], expectation: Expectation, count: int) -> np.ndarray:
    """The questions that say most about a model, int64 [at most count]: those it answers as it should not, the most
    confident first.

    Args:
        columns: of :meth:`~vgbench.metrics.stress.Stress.measure`.
    """
    right, plain = columns["right"].astype(bool), columns["plain"].astype(bool)
    telling = {
        Expectation.MOVE: ~right & columns["stuck"].astype(bool),
        Expectation.LOSE: right & plain,
    }.get(expectation, ~right & plain)
    if expectation is Expectation.REJECT:
        telling = ~right
    order = np.argsort(-columns["score"], kind="stable")
    return order[telling[order]][:count]


def draw_worst(
    folder: Path,
    questions: Questions,
    columns: Mapping[str, np.ndarray],
    answers: Mapping[str, Predictions],
    method: GroundingMethod,
    image_path: Callable[[str], ImageFile],
) -> None:
    """Draw :func:`worst` into ``folder``, for the page, too.

    Args:
        answers: name of an output -> predictions of all questions.
        image_path: of the plain images.
    """
    rows = worst(columns, questions.probe.expectation, COUNT)
    if not len(rows):
        return
    part = questions.table.take(rows)
    place = part.arrow.schema.get_field_index("image")
    numbers = pa.array([str(index) for index in rows.tolist()], pa.string())  # images of questions have no file
    numbered = AnnotationTable(part.arrow.set_column(place, part.arrow.schema.field(place), numbers), part.info)
    names = questions.table.column("image")

    def shown(name: str) -> ImageFile:
        return ShownImage(questions, int(name), image_path(str(names[int(name)])))

    drawn = {name: predictions.take(rows) for name, predictions in answers.items()}
    write_examples(folder, numbered, shown, drawn, method, questions.hash)
