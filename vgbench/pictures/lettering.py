"""Text in pictures."""

from __future__ import annotations

import functools
import importlib.util
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from vgbench.pictures.palette import INK, MUTED, PAPER


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans as matplotlib ships it (Latin, Greek, Cyrillic, Arabic, ...), or Pillow's own."""
    spec = importlib.util.find_spec("matplotlib")
    for root in spec.submodule_search_locations or () if spec else ():
        file = Path(root) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)


def printable(text: str) -> str:
    """One line without control characters (line breaks, bidirectional overrides, lone surrogates)."""
    letters = (letter if unicodedata.category(letter)[0] != "C" else " " for letter in text)
    return " ".join("".join(letters).split())


def wrap(text: str, font: Any, width: float) -> list[str]:
    """Lines no wider than ``width``; a word that is too long is broken."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines.append(word)
        while font.getlength(lines[-1]) > width and len(lines[-1]) > 1:
            fits = max(1, int(len(lines[-1]) * width / font.getlength(lines[-1])) - 1)
            lines[-1:] = [lines[-1][:fits], lines[-1][fits:]]
    return [line for line in lines if line] or ["(empty expression)"]


def text_block(expression: str, legend: Sequence[tuple[tuple[int, int, int], str]], width: int) -> Image.Image:
    """The expression, wrapped, and under it the legend, its entries beside each other as long as they fit."""
    margin, large, small = 6, font(16), font(13)
    lines = wrap(printable(expression), large, width - 2 * margin)[:6]
    places: list[tuple[float, float, tuple[int, int, int], str]] = []
    left, top = float(margin), float(margin + 21 * len(lines) + 3)
    for colour, label in legend:
        label = printable(label)
        reach = 26 + small.getlength(label) + 12
        if left > margin and left + reach > width:
            left, top = margin, top + 19
        places.append((left, top, colour, label))
        left += reach
    block = Image.new("RGB", (width, round(top + (22 if legend else 3))), PAPER)
    pen = ImageDraw.Draw(block)
    for number, line in enumerate(lines):
        pen.text((margin, margin + 21 * number), line, fill=INK, font=large)
    for left, top, colour, label in places:
        pen.rectangle((left, top + 3, left + 18, top + 13), fill=colour, outline=MUTED)
        pen.text((left + 24, top), label, fill=MUTED, font=small)
    return block
