"""How a foreign predictions file is to be read, as its user states it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from vgbench.core.errors import UserError
from vgbench.predictions.formats import FORMATS, Format, has, inner
from vgbench.predictions.numbers import FORMS, PATCH_CELLS

FRAMES = {
    "image": "of the image",
    "square": "of the image padded to a square around it",
    "corner": "of the image padded to a square right and below",
}
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
        scale: "pixels" of the original image, the number that stands for the whole side of the image ("1", "100",
            "1000", ...), or two fields "WIDTH,HEIGHT" of each entry: pixels of the image as it was resized to that
            size; "coco" and "grefcoco" default to pixels, "text" must say.
        boxes: order of the four numbers, one of :data:`~vgbench.predictions.words.FORMS`; "coco" defaults to xywh, the
            others to xyxy.
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
        if "format" not in options:
            *first, last = FORMATS
            raise UserError(
                f"{', '.join(options)}: these describe a foreign file; add format={', '.join(first)} or {last}"
            )
        form = FORMATS[options["format"]]
        _check_scale(options.get("scale", "pixels"))
        if form.scale is None and "scale" not in options:
            raise UserError(
                f"{form.option}: say what the numbers mean: scale=pixels, scale=1, 100 or 1000 for shares of the "
                "image, or scale=WIDTH,HEIGHT with the fields that hold the size it was resized to"
            )
        return cls(**dict(options))  # type: ignore[arg-type]

    @property
    def entry_format(self) -> Format:
        """What its entries look like."""
        return FORMATS[self.format]

    @property
    def box_form(self) -> str:
        """What four numbers are, one of :data:`~vgbench.predictions.words.FORMS`."""
        return self.boxes or self.entry_format.boxes

    @property
    def scale_words(self) -> str:
        """The scale and the frame for a reader."""
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

    def whole(self, entry: Mapping[str, Any], place: str) -> tuple[float, float] | None:
        """What stands for the whole width and height in an entry; None: pixels.

        Raises:
            UserError: if the entry does not say.
        """
        if self.size_fields is None:
            return None if self.divisor is None else (self.divisor, self.divisor)
        sides = []
        for name in self.size_fields:
            if not has(entry, name):
                raise UserError(
                    f"{place}: no field {name!r} (scale=); the entry has {', '.join(map(str, entry))[:200]}"
                )
            try:
                side = float(inner(entry, name))
            except (TypeError, ValueError):
                side = 0.0
            if not 0 < side < 1e9:
                raise UserError(f"{place}: {name} is {str(inner(entry, name))[:60]!r}, expected a size in pixels")
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
