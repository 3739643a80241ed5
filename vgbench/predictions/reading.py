"""How a foreign predictions file is to be read, as its user states it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from vgbench.core.errors import UserError
from vgbench.predictions.styles import STYLES, Style


@dataclass(frozen=True)
class Reading:
    """How a file is to be read, as its user states it.

    Attributes:
        format: "coco" (results list: one entry per box), "grefcoco" (one entry per expression with lists of boxes and
            scores), "text" (one line per expression with the model's words).
        scale: "pixels" of the original image, or the number that stands for the whole side of the image ("1", "100",
            "1000", ...); "coco" and "grefcoco" default to pixels, "text" must say.
        boxes: "xyxy" or "xywh"; "coco" defaults to xywh, the others to xyxy.
        match: what the id of an entry is: "key" of the annotation table, "sent_id" of the original annotations, "row"
            (running number from 0 in the order of the split), or "sentence" (image id and expression together).
        id: field that holds the id; None: the first of :data:`ID_FIELDS` that the file has.
        text: field that holds the model's words; None: the first of :data:`TEXT_FIELDS` that the file has.
        sentence: field that holds the expression (match "sentence"); None: the first of :data:`SENTENCE_FIELDS`.
    """

    format: str
    scale: str | None = None
    boxes: Literal["xyxy", "xywh"] | None = None
    match: Literal["key", "sent_id", "row", "sentence"] = "key"
    id: str | None = None
    text: str | None = None
    sentence: str | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> Reading:
        """From ``key=value`` arguments.

        Raises:
            UserError: for an unknown or missing option or value.
        """
        allowed = {
            "format": tuple(STYLES),
            "boxes": ("xyxy", "xywh"),
            "match": ("key", "sent_id", "row", "sentence"),
        }
        names = [field.name for field in fields(cls)]
        for name, value in options.items():
            if name not in names:
                raise UserError(f"{name}={value}: no such option; there are: {', '.join(names)}")
            if name in allowed and value not in allowed[name]:
                raise UserError(f"{name}={value}: not known; use one of {', '.join(allowed[name])}")
        if "format" not in options:
            *first, last = STYLES
            raise UserError(
                f"{', '.join(options)}: these describe a foreign file; add format={', '.join(first)} or {last}"
            )
        style = STYLES[options["format"]]
        scale = options.get("scale", "pixels")
        if scale != "pixels" and not (re.fullmatch(r"\d+(\.\d+)?", scale) and float(scale) > 0):
            raise UserError(f"scale={scale}: say pixels, or the number that is the whole side of the image (1, 1000)")
        if style.scale is None and "scale" not in options:
            raise UserError(
                f"{style.option}: say what the numbers mean: scale=pixels, or scale=1, 100 or 1000 for shares of the "
                "image"
            )
        return cls(**dict(options))  # type: ignore[arg-type]

    @property
    def style(self) -> Style:
        """What its entries look like."""
        return STYLES[self.format]

    @property
    def box_form(self) -> str:
        """What four numbers are: "xyxy" or "xywh"."""
        return self.boxes or self.style.boxes

    @property
    def scale_words(self) -> str:
        """The scale for a reader."""
        return "in pixels" if self.divisor is None else f"as shares of {self.scale}"

    @property
    def divisor(self) -> float | None:
        """The number that stands for a whole side of the image, None for pixels."""
        return None if self.scale in (None, "pixels") else float(str(self.scale))
