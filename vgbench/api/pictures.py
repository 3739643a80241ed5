"""Pictures as people hold them: files, PIL images, arrays, tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vgbench.core.errors import UserError
from vgbench.data.checks import BadSample
from vgbench.data.images import decode_array
from vgbench.data.pixels import as_shown
from vgbench.types import as_array

if TYPE_CHECKING:
    from torch import Tensor

    Picture = str | Path | Image.Image | np.ndarray | Tensor


def as_pixels(image: Picture) -> np.ndarray:
    """A picture as uint8 RGB [height, width, 3].

    Args:
        image: a file (turned as its EXIF tag says), a PIL image, an array [H, W, 3] or [H, W], or a tensor [3, H, W];
            integers from 0 to 255, or floating-point numbers from 0 to 1.

    Raises:
        UserError: if there is no such file, or it is no picture of these shapes and ranges.
    """
    if isinstance(image, (str, Path)):
        try:
            return decode_array(Path(image), upright=True)
        except BadSample as error:
            raise UserError(str(error)) from None
    if isinstance(image, Image.Image):
        return np.array(as_shown(image))
    values = np.asarray(image) if isinstance(image, np.ndarray) else as_array(image)
    if not isinstance(image, np.ndarray) and values.ndim == 3:
        values = values.transpose(1, 2, 0)
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, axis=2)
    if values.ndim != 3 or values.shape[2] != 3 or 0 in values.shape:
        raise UserError(
            f"a picture of shape {tuple(values.shape)}; give RGB as an array [height, width, 3] or a tensor "
            "[3, height, width]"
        )
    return _eight_bits(values)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise UserError("a floating-point picture has values from 0 to 1; divide by its maximum, or give integers")
        return (values * 255).round().astype(np.uint8)
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
        raise UserError(f"a picture of {values.dtype} values; give integers from 0 to 255")
    return np.ascontiguousarray(values.astype(np.uint8))
