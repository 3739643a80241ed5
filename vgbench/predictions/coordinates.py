"""From the numbers of an answer to pixels of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vgbench.predictions.numbers import Box, corners

Size = tuple[float, float]  # width, height in pixels

FRAMES = {
    "image": "of the image",
    "square": "of the image padded to a square around it",
    "corner": "of the image padded to a square right and below",
}


@dataclass(frozen=True)
class Coordinates:
    """What the numbers of an answer mean.

    Attributes:
        form: order of four numbers, one of :data:`~vgbench.predictions.numbers.FORMS`; two numbers are a point, y first
            where the form has y first.
        whole: the number that stands for a whole side of the frame; None: pixels.
        frame: what is measured, one of :data:`FRAMES`.
        seen: pixels are those of the frame in the size in which the model saw it, which its processor chose.
        shift: added to every number first: 0.5 where it is the index of a bin whose centre is meant.
    """

    form: str = "xyxy"
    whole: float | None = None
    frame: str = "image"
    seen: bool = False
    shift: float = 0.0

    @property
    def of_model_size(self) -> bool:
        """Whether the size of the image as the model saw it has to be known."""
        return self.whole is None and self.seen

    def words(self) -> str:
        """For a reader: order, unit and frame."""
        unit = "pixels" if self.whole is None else f"shares of {self.whole:g}"
        seen = " as the model saw it" if self.of_model_size else ""
        return f"{self.form}, {unit} {FRAMES[self.frame]}{seen}{', bin centres' if self.shift else ''}"

    def box(self, numbers: Sequence[float], image: Size, model: Size | None = None, form: str | None = None) -> Box:
        """Four numbers as x1, y1, x2, y2 in pixels of the image, not clipped.

        Args:
            numbers: as written.
            image: size of the original image.
            model: size of the image as the model saw it.
            form: of these numbers, if it is not :attr:`form`.
        """
        shifted = [number + self.shift for number in numbers]
        return to_pixels(corners(shifted, form or self.form), image, self._whole(model), self.frame)

    def point(self, numbers: Sequence[float], image: Size, model: Size | None = None) -> Box:
        """Two numbers as x, y in pixels of the image."""
        first, second = (number + self.shift for number in numbers)
        x, y = (second, first) if self.form.startswith("y") else (first, second)
        return to_pixels([x, y], image, self._whole(model), self.frame)

    def limits(self, image: Size, model: Size | None = None) -> Size:
        """The largest x and y that lie in the frame, as they are written."""
        whole = self._whole(model)
        return whole if whole is not None else _frame_size(image, self.frame)

    def _whole(self, model: Size | None) -> Size | None:
        if self.of_model_size:
            assert model is not None
            return model
        return None if self.whole is None else (self.whole, self.whole)


def to_pixels(box: Sequence[float], image: Size, whole: Size | None, frame: str) -> Box:
    """x, y, x, y, ... in pixels of the image; ``whole``: what stands for the frame's width and height, None: pixels."""
    width, height = image
    size = _frame_size(image, frame)
    offset = ((size[0] - width) // 2, (size[1] - height) // 2) if frame == "square" else (0, 0)
    scale = (1.0, 1.0) if whole is None else (size[0] / whole[0], size[1] / whole[1])
    return [value * scale[axis % 2] - offset[axis % 2] for axis, value in enumerate(box)]


def _frame_size(image: Size, frame: str) -> Size:
    return image if frame == "image" else (max(image), max(image))
