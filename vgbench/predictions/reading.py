"""How a foreign predictions file is to be read, as its user states it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from vgbench.core.errors import UserError
from vgbench.predictions.coordinates import FRAMES, Coordinates, Size
from vgbench.predictions.fields import has, inner, names_of, shown
from vgbench.predictions.formats import FORMATS, Format
from vgbench.predictions.numbers import FORMS, PATCH_CELLS
from vgbench.predictions.styles import style
from vgbench.predictions.styles.base import AnswerStyle

SEVERAL = {
    "all": "all are kept, best first",
    "first": "the best or first counts",
    "last": "the last counts",
    "union": "the box around all of them counts",
    "any": "the best match counts, in rec/any",
}
MATCHES = ("key", "sent_id", "row", "order", "sentence")
_SIZE = re.compile(r"([A-Za-z_][\w.]*),([A-Za-z_][\w.]*)")  # two fields of each entry


@dataclass(frozen=True)
class Reading:
    """How a file is to be read, as its user states it.

    Attributes:
        format: "coco" (results list: one entry per box), "grefcoco" (one entry per expression with lists of boxes and
            scores), "text" (one line per expression with the model's words).
        style: the family whose way of writing the words follow, one of :mod:`vgbench.predictions.styles`; None: any
            four numbers are a box. What else is stated of the numbers stands instead of what the family documents.
        scale: "pixels" of the original image, the number that stands for the whole side of the image ("1", "100",
            "1000", ...), or two fields "WIDTH,HEIGHT" of each entry: pixels of the image as it was resized to that
            size; "coco" and "grefcoco" default to pixels, "text" must say it, or a style.
        boxes: order of the four numbers, one of :data:`~vgbench.predictions.numbers.FORMS`; "coco" defaults to xywh,
            the others to xyxy.
        frame: what the coordinates are measured in, one of :data:`FRAMES`; None: the image.
        several: what several boxes for an expression are, one of :data:`SEVERAL`; None: all.
        match: what the id of an entry is: "key" of the annotation table, "sent_id" of the original annotations, "row"
            (running number from 0 in the order of the split; without ids, the position), "order" (the position,
            whatever ids there are), or "sentence" (image id and expression together).
        id: field that holds the id; None: the first of :data:`ID_FIELDS` that the file has.
        text: field that holds the model's words; None: the first of :data:`TEXT_FIELDS` that the file has.
        box: field that holds the boxes; None: the first of :data:`BOX_FIELDS` that the file has.
        sentence: field that holds the expression (match "sentence"); None: the first of :data:`SENTENCE_FIELDS`.
    """

    format: str
    scale: str | None = None
    boxes: str | None = None
    frame: str | None = None
    several: str | None = None
    match: Literal["key", "sent_id", "row", "order", "sentence"] = "key"
    id: str | None = None
    text: str | None = None
    box: str | None = None
    sentence: str | None = None
    style: str | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> Reading:
        """From ``key=value`` arguments.

        Raises:
            UserError: for an unknown or missing option or value.
        """
        allowed = {
            "format": tuple(FORMATS),
            "boxes": tuple(FORMS),
            "frame": tuple(FRAMES),
            "several": tuple(SEVERAL),
            "match": MATCHES,
        }
        remedies = {"boxes": "; it is the order of the numbers, their field is named by box=FIELD"}
        names = [field.name for field in fields(cls)]
        for name, value in options.items():
            if name not in names:
                raise UserError(f"{name}={value}: no such option; there are: {', '.join(names)}")
            if name in allowed and value not in allowed[name]:
                known = ", ".join(allowed[name])
                raise UserError(f"{name}={value}: not known; use one of {known}{remedies.get(name, '')}")
        options = dict(options)
        if "style" in options and options.setdefault("format", "text") != "text":
            raise UserError(f"style={options['style']} reads a model's words, which format={options['format']} has not")
        if "format" not in options:
            *first, last = FORMATS
            raise UserError(
                f"{', '.join(options)}: these describe a foreign file; add format={', '.join(first)} or {last}, or "
                "style=NAME (vgbench list styles)"
            )
        _check_scale(options.get("scale", "pixels"))
        return cls(**options)  # type: ignore[arg-type]

    def check_stated(self) -> None:
        """Whether it is known what the numbers mean.

        Raises:
            UserError: if it has to be stated.
        """
        sizes = "scale=WIDTH,HEIGHT with the fields that hold the size it was resized to"
        if self.entry_format.scale is None and self.style is None and self.scale is None:
            raise UserError(
                f"{self.entry_format.option}: say what the numbers mean: style=NAME (vgbench list styles), "
                f"scale=pixels, scale=1, 100 or 1000 for shares of the image, or {sizes}"
            )
        if self.coordinates.of_model_size and self.size_fields is None:
            raise UserError(
                f"style={self.style}: the numbers are pixels of the image as the model saw it, in a size that its "
                f"processor chose; say {sizes}, or scale=pixels if it was not resized"
            )

    @property
    def entry_format(self) -> Format:
        """What its entries look like."""
        return FORMATS[self.format]

    @property
    def answer_style(self) -> AnswerStyle | None:
        """The reader of the words; None: any four numbers are a box."""
        return None if self.style is None else style(self.style, self.coordinates)

    @property
    def coordinates(self) -> Coordinates:
        """What the numbers mean: as the style documents it, with what the user states instead."""
        meant = Coordinates(self.entry_format.boxes) if self.style is None else style(self.style).coordinates
        if self.boxes:
            meant = replace(meant, form=self.boxes)
        if self.frame:
            meant = replace(meant, frame=self.frame)
        if self.size_fields or self.scale == "pixels":
            return replace(meant, whole=None, seen=self.size_fields is not None, shift=0.0)
        if self.divisor is not None and self.divisor != meant.whole:
            meant = replace(meant, whole=self.divisor, seen=False, shift=0.0)
        return meant

    @property
    def scale_words(self) -> str:
        """The scale and the frame for a reader."""
        if self.style is not None:
            return f"{self.coordinates.words()} (style {self.style})"
        frame = "" if self.frame in (None, "image") else f" {FRAMES[self.frame]}"
        if self.size_fields:
            return f"in pixels of the size in {' and '.join(self.size_fields)}{frame}"
        return f"in pixels{frame}" if self.divisor is None else f"as shares of {self.scale}{frame}"

    @property
    def cells(self) -> bool:
        """Whether the numbers can be cells of Kosmos-2's grid."""
        return self.divisor == PATCH_CELLS

    @property
    def divisor(self) -> float | None:
        """The number that stands for a whole side of the image, None for pixels."""
        return None if self.scale in (None, "pixels") or self.size_fields else float(str(self.scale))

    @property
    def size_fields(self) -> tuple[str, str] | None:
        """The fields with width and height of the image as it was resized, None if it is not stated."""
        parts = _SIZE.fullmatch(self.scale or "")
        return (parts[1], parts[2]) if parts else None

    def seen(self, entry: Mapping[str, Any], place: str) -> Size | None:
        """The size in which the model saw the image, as an entry has it; None: it is not stated.

        Raises:
            UserError: if the entry does not say it.
        """
        if self.size_fields is None:
            return None
        sides = []
        for name in self.size_fields:
            if not has(entry, name):
                raise UserError(
                    f"{place}: no field {name!r} (scale=); the entry has {names_of(entry)}; name the two that hold "
                    "width and height: scale=WIDTH,HEIGHT"
                )
            try:
                side = float(inner(entry, name))
            except (TypeError, ValueError):
                side = 0.0
            if not 0 < side < 1e9:
                raise UserError(f"{place}: {name} is {shown(inner(entry, name))}, expected a size in pixels")
            sides.append(side)
        return sides[0], sides[1]


def _check_scale(scale: str) -> None:
    if scale == "pixels" or (re.fullmatch(r"\d+(\.\d+)?", scale) and float(scale) > 0):
        return
    if not _SIZE.fullmatch(scale):
        raise UserError(
            f"scale={scale}: say pixels, or the number that is the whole side of the image (1, 1000), or the two "
            "fields with the size that the image was resized to (WIDTH,HEIGHT)"
        )
