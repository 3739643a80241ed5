"""Images that are worse than they were taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vgbench.core.errors import require_extra
from vgbench.data import rle
from vgbench.data.describe import LOCATION
from vgbench.data.table import Row
from vgbench.probes.base import Annotations, Expectation, LeftOut, Probe

if TYPE_CHECKING:
    import torch

EXTRA = "corruptions"
LEVELS = 5
LEAST_SIDE = 32  # pixels: what the library takes

# The parameters of ImageNet-C (Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261), weak to strong.
NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation, of the range of values
BLUR = (1, 2, 3, 4, 6)  # standard deviation in pixels
QUALITY = (25, 18, 15, 10, 7)  # of the JPEG
RESOLUTION = (0.6, 0.5, 0.4, 0.3, 0.25)  # of each side
MARGINS = (0.2, 0.4, 0.6, 0.8, 1.0)  # share of the margin around all objects that a crop takes away

# What :mod:`imagecorruptions` makes from a seed. Its elastic_transform moves the target; its impulse_noise and
# glass_blur draw from a generator of their own.
OF_LIBRARY = (
    *("shot_noise", "speckle_noise", "defocus_blur", "motion_blur", "zoom_blur", "snow", "frost", "fog", "brightness"),
    *("contrast", "saturate", "spatter"),
)


def gaussian_noise(image: np.ndarray, level: int, random: np.random.Generator) -> np.ndarray:
    """Drawn here and not by torchvision, whose noise comes from the global generator."""
    noisy = image / 255.0 + random.normal(scale=NOISE[level - 1], size=image.shape)
    return (np.clip(noisy, 0, 1) * 255).astype(np.uint8)


def gaussian_blur(image: np.ndarray, level: int, random: np.random.Generator) -> np.ndarray:
    """As far as four standard deviations, as the filter of scikit-image that ImageNet-C is made with."""
    from torchvision.transforms.v2 import functional

    sigma = float(BLUR[level - 1])
    limit = (min(image.shape[:2]) - 1) // 2  # reflection needs a kernel that is smaller than the image
    return _planes(functional.gaussian_blur, image, kernel_size=[2 * min(int(4 * sigma), limit) + 1] * 2, sigma=[sigma])


def jpeg_compression(image: np.ndarray, level: int, random: np.random.Generator) -> np.ndarray:
    """Compressed and read again."""
    from torchvision.transforms.v2 import functional

    return _planes(functional.jpeg, image, quality=QUALITY[level - 1])


def pixelate(image: np.ndarray, level: int, random: np.random.Generator) -> np.ndarray:
    """A lower resolution, in as many pixels as before."""
    import cv2

    height, width = image.shape[:2]
    small = [max(1, int(side * RESOLUTION[level - 1])) for side in (width, height)]
    return cv2.resize(
        cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height), interpolation=cv2.INTER_NEAREST
    )


def _planes(change: Callable[..., torch.Tensor], image: np.ndarray, **options: Any) -> np.ndarray:
    """``change`` of torchvision, which wants channels first."""
    import torch

    planes = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).contiguous()
    return change(planes, **options).permute(1, 2, 0).numpy()


OWN: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "gaussian_noise": gaussian_noise,
    "gaussian_blur": gaussian_blur,
    "jpeg_compression": jpeg_compression,
    "pixelate": pixelate,
}


def corrupted(name: str, image: np.ndarray, level: int, random: np.random.Generator) -> np.ndarray:
    """A corruption of the library, from our seed: it draws from NumPy's global state.

    Raises:
        UserError: if the library is not installed.
    """
    library = require_extra("imagecorruptions", EXTRA, f"probe image:{name}")
    state = np.random.get_state()
    np.random.seed(int(random.integers(2**32)))
    try:
        return library.corrupt(np.ascontiguousarray(image), corruption_name=name, severity=level).astype(np.uint8)
    finally:
        np.random.set_state(state)


class Corruption(Probe):
    """The common corruptions of ImageNet-C, and a crop."""

    name = "image"
    title = "image corrupted"
    shows = (
        "how much of the accuracy is left when the image is noisy, blurred, compressed, coarse or cropped, in five "
        "severities ('retention': of the answers that were right, the share that stays right)"
    )
    cannot = (
        "the severities were chosen for images of about 224 pixels: on smaller ones they are stronger than on larger. "
        "A crop keeps every annotated object whole, and expressions with words of place are left out of it"
    )
    kinds: ClassVar = dict.fromkeys((*OWN, "crop", *OF_LIBRARY), Expectation.STAY)
    levels = LEVELS
    changes_images = True

    def question(self, row: Row, annotations: Annotations, random: np.random.Generator) -> Row:
        """The same expression; of a crop, with boxes and masks where they are then."""
        if self.kind != "crop":
            if self.kind in OF_LIBRARY and min(row.width, row.height) < LEAST_SIDE:
                raise LeftOut(f"an image of less than {LEAST_SIDE} pixels")
            return row
        if LOCATION.search(row.expression.lower()):
            raise LeftOut("words of place, which a crop may make wrong")
        left, top, right, bottom = self._window(row, annotations)
        if right - left == row.width and bottom - top == row.height:
            raise LeftOut("no margin around the objects")
        masks = tuple(rle.encode(rle.decode(mask)[top:bottom, left:right]) for mask in row.masks)
        shift = np.array([left, top, left, top])
        return replace(row, width=right - left, height=bottom - top, boxes=row.boxes - shift, masks=masks)

    def picture(self, image: np.ndarray, row: Row, annotations: Annotations, random: np.random.Generator) -> np.ndarray:
        """The corrupted image."""
        assert self.level is not None
        if self.kind == "crop":
            left, top, right, bottom = self._window(row, annotations)
            return image[top:bottom, left:right]
        if self.kind in OWN:
            return OWN[self.kind](image, self.level, random)
        return corrupted(self.kind, image, self.level, random)

    def carried(self, boxes: np.ndarray, row: Row, question: Row) -> np.ndarray:
        """Boxes as far as the crop moved the target."""
        if not len(row.boxes):
            return boxes
        return boxes + np.tile(question.boxes[0, :2] - row.boxes[0, :2], 2)

    def _window(self, row: Row, annotations: Annotations) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the crop in whole pixels; it holds every annotated object."""
        boxes = [item.box for item in annotations.objects(row)] + [tuple(box) for box in row.boxes.tolist()]
        if not boxes:
            raise LeftOut("no object to crop around")
        corners = np.array(boxes)
        share = MARGINS[(self.level or 1) - 1]
        near = np.floor(share * np.clip(corners[:, :2].min(0), 0, None)).astype(int)
        size = np.array([row.width, row.height])
        far = size - np.floor(share * np.clip(size - corners[:, 2:].max(0), 0, None)).astype(int)
        return int(near[0]), int(near[1]), int(far[0]), int(far[1])
