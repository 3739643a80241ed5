"""Image files: what a decoder may raise, decoding, and the error for one that is wanted for its size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL import Image as PILImage
from torch import Tensor

from vgbench.data.checks import BadSample


class BadImage(BadSample):
    """An image file that is wanted for its size is missing or damaged: may be mended without any change of sources."""


# what Pillow raises for a file that is damaged or no image; its AVIF decoder: RuntimeError
IMAGE_ERRORS = (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError)


def decode_image(path: Path) -> Tensor:
    """Decode to uint8 RGB [3, H, W]; EXIF orientation is not applied (annotations refer to the stored pixels).

    Raises:
        BadSample: if the file is missing or no readable image.
    """
    try:
        with path.open("rb") as file, PILImage.open(file) as image:
            array = np.array(image.convert("RGB"))
    except FileNotFoundError:
        raise BadSample(f"{path}: image is missing") from None
    except (OSError, ValueError, SyntaxError, PILImage.DecompressionBombError) as error:
        raise BadSample(f"{path}: image cannot be decoded ({error})") from None
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()
