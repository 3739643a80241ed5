"""tmp"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

# what Pillow raises for a file that is damaged or no image; its AVIF decoder: RuntimeError
IMAGE_ERRORS = (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Counts:
    """Published size of a split; None: not published, or publications disagree."""

    images: int | None = None
    refs: int | None = None
    expressions: int | None = None
