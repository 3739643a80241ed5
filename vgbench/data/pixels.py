"""What a picture file shows, as 8-bit RGB: deep, floating-point, CMYK and transparent pictures, turned photographs."""

from __future__ import annotations

import functools
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

# What is decoded, by the file's first bytes, whatever it is called. Pillow knows more formats; one of them (EPS) is a
# program that it runs in Ghostscript.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "JPEG2000", "TIFF", "GIF", "BMP", "PPM")
# What Pillow's decoders raise for a file that is damaged or no image: almost anything. AVIF: RuntimeError; PNG:
# SyntaxError; TIFF: KeyError, TypeError, ZeroDivisionError, struct.error.
IMAGE_ERRORS = (
    *(OSError, ValueError, SyntaxError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(AssertionError, EOFError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError),
)
MAX_PIXELS_VARIABLE = "VGBENCH_MAX_PIXELS"
MAX_PIXELS = 89_478_485  # 270 MB as RGB; from here on Pillow warns
DEEP = 4  # times as much as an 8-bit pixel takes one of a deep picture while it is scaled

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # of half as many pixels

EIGHT_BITS, SIXTEEN_BITS = 255, 65_535


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def max_pixels() -> int:
    """The largest picture that is decoded, in pixels: ``VGBENCH_MAX_PIXELS``, or :data:`MAX_PIXELS`."""
    text = os.environ.get(MAX_PIXELS_VARIABLE, "")
    return int(text) if text.isdecimal() and int(text) else MAX_PIXELS


@contextmanager
def open_image(source: str | Path | IO[bytes]) -> Iterator[Image.Image]:
    """A picture file, its header read and its pixels not yet, if it is of one of :data:`FORMATS` and not too large.

    Raises:
        IMAGE_ERRORS: when it is opened and whenever its pixels are looked at.
    """
    limit, before = max_pixels(), Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max(limit // 2, 1)  # Pillow refuses from twice as many on
    try:
        with Image.open(source, formats=_formats()) as image:
            if image.width * image.height * (DEEP if image.mode[0] in "IF" else 1) > limit:
                raise Image.DecompressionBombError("")
            yield image
    except Image.DecompressionBombError:
        raise ValueError(f"it has more than {limit:,} pixels; {MAX_PIXELS_VARIABLE}=NUMBER allows more") from None
    finally:
        Image.MAX_IMAGE_PIXELS = before


def as_rgb(image: Image.Image) -> Image.Image:
    """The stored pixels of a picture as 8-bit RGB, in the stored frame: what data sets are read with.

    Grey pictures of more than eight bits are scaled (:func:`eight_bits`), where Pillow alone would clip them.
    """
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        if image.mode == "I" and image.format in ("PNG", "PPM"):  # what Pillow makes of their 16 bits
            values = values.astype(np.uint16)
        image = Image.fromarray(eight_bits(values))
    if image.mode == "LAB":
        image = _managed(image, ImageCms.createProfile("LAB")) or image
    return image.convert("RGB")


def as_shown(image: Image.Image) -> Image.Image:
    """A picture as viewers show it, 8-bit RGB: turned by its EXIF tag, CMYK by its colour profile, on white paper where
    it is transparent. For pictures that no annotation refers to."""
    try:
        upright = ImageOps.exif_transpose(image)
    except (OSError, ValueError, TypeError, KeyError, SyntaxError, OverflowError):  # a damaged tag turns nothing
        upright = image
    if upright.mode == "CMYK" and (profile := image.info.get("icc_profile")):
        upright = _managed(upright, io.BytesIO(profile)) or upright
    if "transparency" in image.info or upright.mode in ("RGBA", "LA", "PA"):
        colours = upright.convert("RGBA")
        paper = Image.new("RGBA", colours.size, "white")
        upright = Image.alpha_composite(paper, colours)
    return as_rgb(upright)


def eight_bits(values: np.ndarray) -> np.ndarray:
    """Brightness of any range as uint8.

    Integers of 16 bits use their whole range (65,535 is white), as do other whole numbers up to that. Floating-point
    pictures are white at 1, at 255 or at 65,535, whichever is the least that holds their values. What fits none of
    these (negative or larger numbers) is stretched from its least to its greatest value; NaN is black.
    """
    numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 0.0)
    if low < 0 or high > SIXTEEN_BITS:
        numbers, white = numbers - low, high - low
    elif values.dtype.kind == "u" and values.itemsize == 2:
        white = SIXTEEN_BITS
    elif values.dtype.kind == "f":
        white = next(limit for limit in (1, EIGHT_BITS, SIXTEEN_BITS) if high <= limit)
    else:
        white = next(limit for limit in (EIGHT_BITS, SIXTEEN_BITS) if high <= limit)
    return np.rint(numbers * (EIGHT_BITS / (white or 1))).astype(np.uint8)


def _managed(image: Image.Image, profile: Any) -> Image.Image | None:
    """A picture in sRGB by its colour profile, or None where the profile is of no use."""
    try:
        return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, ImportError):
        return None
