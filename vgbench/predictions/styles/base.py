"""An answer style: what a family of models writes where it is asked for a box, and what the numbers mean."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from vgbench.core.errors import UserError
from vgbench.predictions.coordinates import Coordinates, Size
from vgbench.predictions.numbers import Box, bracketed, named
from vgbench.predictions.styles.denials import Silence, silence
from vgbench.predictions.styles.grammar import Reader, Spots
from vgbench.predictions.words import LARGEST, MOST, answer_text
from vgbench.types import Geometry, Prediction

_SLACK = 1.02  # a coordinate may lie this far beyond its frame: models miss the edge


@dataclass
class TextAnswer:
    """What a model's words say, in pixels of the original image.

    Attributes:
        boxes: x1, y1, x2, y2 each, in the order in which they were written, not clipped.
        points: x, y each, likewise.
        silence: of an answer without any: "denial" (nothing of the kind is in the image), "refusal" (the model
            declines), None (neither, the words could not be read).
        doubts: kinds of doubt about how it was read.
    """

    boxes: list[Box] = field(default_factory=list)
    points: list[Box] = field(default_factory=list)
    silence: Silence | None = None
    doubts: list[str] = field(default_factory=list)

    @property
    def no_target(self) -> bool | None:
        """The model's decision that nothing is meant; None: it makes none that could be read."""
        if self.boxes or self.points:
            return False
        return True if self.silence == "denial" else None

    @property
    def readable(self) -> bool:
        """Whether the words hold a box, a point, or that nothing is there."""
        return self.no_target is not None

    def prediction(self, words: str | None = None, geometry: Geometry | None = None) -> Prediction:
        """The answer as a method returns it, in tensors: every box with score 1, the first point, the model's words.

        ``geometry``: how the image lay in what the model saw; with it, and the words, the answer can be read again.
        """
        import torch

        stored = self.stored(words, geometry)
        boxes, scores = (torch.as_tensor(values, dtype=torch.float32) for values in (stored.boxes, stored.scores))
        return replace(stored, boxes=boxes, scores=scores)

    def stored(self, words: str | None = None, geometry: Geometry | None = None) -> Prediction:
        """The same in NumPy arrays, as it is read from a file."""
        boxes = np.array(self.boxes, dtype=np.float32).reshape(-1, 4)
        point = None if not self.points else (int(self.points[0][0]), int(self.points[0][1]))
        ones = np.ones(len(boxes), dtype=np.float32)
        return Prediction(boxes, ones, no_target=self.no_target, point=point, geometry=geometry, answer=words)


class AnswerStyle:
    """One family's way to write boxes. A subclass states it in its docstring: convention first, then the source.

    Attributes:
        name: how it is typed, ``style=NAME``.
        coordinates: what the numbers mean, as the family documents it.
        grammar: forms in which the family writes boxes and points, in the order in which they are looked for.
        shape: an example, for messages.
        numbers: numbers in brackets or with names are read, with a doubt, where none of these forms is there. False for
            location tokens: what bare numbers would mean is not known.

    Args:
        coordinates: what the numbers mean, if a user states something else than the family documents.
    """

    name: ClassVar[str]
    grammar: ClassVar[tuple[Reader, ...]]
    shape: ClassVar[str]
    numbers: ClassVar[bool] = True
    coordinates: Coordinates

    def __init__(self, coordinates: Coordinates | None = None) -> None:
        if coordinates is not None:
            self.coordinates = coordinates

    @classmethod
    def about(cls) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]

    @property
    def needs_model_size(self) -> bool:
        """Whether the size of the image as the model saw it has to be known."""
        return self.coordinates.of_model_size

    def read(self, text: str | None, image_size: Size, model_size: Size | None = None) -> TextAnswer:
        """Read an answer.

        Args:
            text: the model's words; None or empty: it said nothing.
            image_size: (width, height) of the original image in pixels.
            model_size: (width, height) of the image as the model saw it, from its processor; needed where
                :attr:`needs_model_size`.

        Raises:
            UserError: if that size is needed and missing.
        """
        if self.needs_model_size and model_size is None:
            raise UserError(
                f"style={self.name}: the numbers are pixels of the image as the model saw it, whose size is not known; "
                "name the two fields that hold it: scale=WIDTH,HEIGHT"
            )
        answer, doubts = answer_text(text or "")
        spots = self._spots(answer)
        doubts = [*doubts, *spots.doubts]
        quiet = silence(answer)
        if not spots:
            return TextAnswer(silence=quiet, doubts=doubts)
        if quiet == "denial":
            doubts.append("answers deny the target and still hold a box, which was taken")
        if len(spots.boxes) > MOST:
            doubts.append(f"answers hold more than {MOST} boxes, only the first {MOST} were read")
        doubts += self._frame_doubts(spots, image_size, model_size)
        boxes = [self.coordinates.box(box, image_size, model_size, spots.form) for box in spots.boxes[:MOST]]
        upright = [box for box in boxes if _finite(box) and box[2] >= box[0] and box[3] >= box[1]]
        if len(upright) < len(boxes):
            doubts.append("answers hold a box with x2 < x1 or y2 < y1 or a number that is no coordinate, left out")
        points = [self.coordinates.point(point, image_size, model_size) for point in spots.points[:MOST]]
        return TextAnswer(upright, [point for point in points if _finite(point)], doubts=doubts)

    def _spots(self, text: str) -> Spots:
        """In the family's forms, or else numbers in brackets or with names, with a doubt."""
        for reader in self.grammar:
            spots = reader(text)
            if spots:
                return spots
        words = named(text, self.coordinates.form)
        boxes = words.boxes or bracketed(text)
        if not boxes:
            return Spots()
        if not self.numbers:
            return Spots(
                doubts=[f"answers hold numbers in brackets, but no {self.shape}: were special tokens skipped?"]
            )
        form = words.form if words.boxes else None
        return Spots(boxes, form=form, doubts=[f"answers are not written as {self.shape}; numbers were taken"])

    def _frame_doubts(self, spots: Spots, image: Size, model: Size | None) -> list[str]:
        """What numbers cannot mean in this frame."""
        values = [abs(value) for spot in (*spots.boxes, *spots.points) for value in spot]
        limit = max(self.coordinates.limits(image, model))
        if max(values) > limit * _SLACK:
            return [f"answers have numbers larger than the side of the frame ({self.coordinates.words()})"]
        if limit >= 32 and max(values) <= 1 and any(value % 1 for value in values):
            return [f"answers have fractions of at most 1, but the numbers are {self.coordinates.words()}"]
        return []


def _finite(values: Sequence[float]) -> bool:
    return all(math.isfinite(value) and abs(value) <= LARGEST for value in values)
