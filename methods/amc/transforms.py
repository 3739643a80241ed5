"""AMC's image and text pipelines, as the official code has them, quirks by name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from vgbench.batches.transforms import Interpolation, Normalize, Resize, resize_image, resize_masks, swap_left_right
from vgbench.types import Geometry, Sample

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

JITTER = (0.4, 0.4, 0.4, 0.4)  # brightness, contrast, saturation, hue


def clean_caption(text: str, max_words: int) -> str:
    """ALBEF's caption cleaning: lower case, punctuation removed, at most ``max_words`` words.

    ``, . ' ! ? " ( ) * # : ; ~`` are deleted, hyphen and slash become spaces, ``<person>`` becomes ``person``.
    """
    text = re.sub(r"[,.'!?\"()*#:;~]", "", text.lower())
    text = text.replace("-", " ").replace("/", " ").replace("<person>", "person")
    text = re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])


class EvalTransform:
    """Stretched to a square, normalised; caption cleaned.

    Args:
        size: side of the network input, pixels.
        resize: "pillow_bicubic" (RefCOCO+ and ReferIt scripts) or "opencv" (Flickr30k script).
        max_words: words kept of an expression.
    """

    def __init__(self, size: int, resize: Interpolation, max_words: int) -> None:
        self.resize = Resize((size, size), resize)
        self.normalise = Normalize(CLIP_MEAN, CLIP_STD, late=True)
        self.max_words = max_words

    def __call__(self, sample: Sample) -> Sample:
        out: Sample = self.normalise(self.resize(sample))
        out["text"] = clean_caption(sample["text"], self.max_words)
        return out


def clamp_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes [n, 4] xyxy cut to an image of ``size`` (height, width) and truncated to integers, int64 [n, 4]."""
    height, width = size
    low = torch.zeros(4, dtype=boxes.dtype) + torch.tensor([0, 0, 1, 1])
    high = torch.tensor([width - 1, height - 1, width, height], dtype=boxes.dtype)
    return torch.minimum(torch.maximum(boxes, low), high).long()


def choose_box(boxes: Tensor, draw: Callable[[int], int]) -> int:
    """Index of a box drawn uniformly, drawn again while the box is empty and another one is not.

    Args:
        boxes: int64 [n, 4] xyxy, n >= 1.
        draw: n -> a number from 0 to n - 1.
    """
    full = ((boxes[:, 2:] > boxes[:, :2]).all(1)).tolist()
    index = draw(len(boxes))
    while not full[index] and any(full):
        index = draw(len(boxes))
    return index


def box_masks(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [n, H, W], 1 on rows y with y1 <= y < y2 and columns x with x1 <= x < x2 of boxes [n, 4] xyxy."""
    rows = torch.arange(size[0], device=boxes.device)[None, :, None]
    columns = torch.arange(size[1], device=boxes.device)[None, None]
    x1, y1, x2, y2 = (boxes[:, number, None, None] for number in range(4))
    return ((rows >= y1) & (rows < y2) & (columns >= x1) & (columns < x2)).to(torch.uint8)


@dataclass(frozen=True)
class ColourDraws:
    """Random numbers of AMC's augmentation; ``jitter`` = (brightness, contrast, saturation, hue) or None."""

    flip: bool
    gray: bool
    jitter: tuple[float, float, float, float] | None

    @classmethod
    def draw(cls, colour: bool = True) -> ColourDraws:
        """From torch's generator, with the official probabilities and ranges; without ``colour`` only the flip."""
        flip, gray, jitter = (torch.rand(()).item() < p for p in (0.5, 0.2 * colour, 0.5 * colour))
        if not jitter:
            return cls(flip, gray, None)
        centres = (1.0, 1.0, 1.0, 0.0)
        factors = (
            float(torch.empty((), dtype=torch.float64).uniform_(centre - width, centre + width))
            for centre, width in zip(centres, JITTER, strict=True)
        )
        return cls(flip, gray, tuple(factors))  # type: ignore[arg-type]


def colour_jitter(
    image: np.ndarray, factors: tuple[float, float, float, float], fix_saturation: bool = False
) -> np.ndarray:
    """Brightness and contrast by a look-up table, hue and saturation by OpenCV's 8-bit HSV.

    Args:
        image: uint8 RGB [H, W, 3].
        factors: brightness b, contrast c, saturation s, hue h.
        fix_saturation: shift the saturation by ``255 (s - 1)``. The official code shifts by ``255 s``, which is
            153..357 and saturates every jittered image almost completely.
    """
    brightness, contrast, saturation, hue = factors
    table = np.arange(256, dtype=np.float32) * contrast
    table = table + contrast * (brightness - 1) * image.mean()
    image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8))
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    levels = np.arange(256)
    hues = np.mod(levels + int(255 * hue), 180).astype(np.uint8)
    shift = int(255 * (saturation - 1 if fix_saturation else saturation))
    saturations = np.clip(levels + shift, 0, 255).astype(np.uint8)
    channels = [cv2.LUT(hsv[..., 0], hues), cv2.LUT(hsv[..., 1], saturations), hsv[..., 2]]
    return cv2.cvtColor(cv2.merge(channels), cv2.COLOR_HSV2RGB)


def augment_colour(
    image: Tensor, masks: Tensor, size: int, draws: ColourDraws, fix_saturation: bool = False
) -> tuple[Tensor, Tensor]:
    """AMC's augmentation: resize to a square, flip, gray, colour jitter; no crop.

    Args:
        image: uint8 RGB [3, H, W].
        masks: uint8 [n, H, W]; resized by floor-nearest, then flipped with the image.
        size: side of the result, pixels.
    """
    array = resize_image(image, (size, size), "opencv").permute(1, 2, 0).contiguous().numpy()
    masks = resize_masks(masks, (size, size))
    if draws.flip:
        array, masks = np.ascontiguousarray(array[:, ::-1]), masks.flip(-1)
    if draws.gray:
        array = cv2.cvtColor(cv2.cvtColor(array, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if draws.jitter is not None:
        array = colour_jitter(array, draws.jitter, fix_saturation)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous(), masks


class RandAugment:
    """ALBEF's RandAugment: two of ten operations at magnitude 7 of 10, each applied with p = 0.5.

    Works on uint8 images [3, H, W] with their masks [n, H, W]; uncovered pixels become gray (128), masks 0.
    """

    FILL = 128
    MAGNITUDE = 0.7
    OPERATIONS = (
        *("identity", "autocontrast", "equalize", "brightness", "sharpness"),
        *("shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    )

    def __call__(self, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        for number in torch.randint(len(self.OPERATIONS), (2,)).tolist():
            if torch.rand(()).item() < 0.5:
                image, masks = self.apply(self.OPERATIONS[number], image, masks)
        return image, masks

    def apply(self, name: str, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """One operation by name; the geometric ones draw their sign."""
        enhance = 0.1 + 1.8 * self.MAGNITUDE
        if name == "autocontrast":
            return tvf.autocontrast(image), masks
        if name == "equalize":
            return tvf.equalize(image), masks
        if name == "brightness":
            return tvf.adjust_brightness(image, enhance), masks
        if name == "sharpness":
            return tvf.adjust_sharpness(image, enhance), masks
        if name == "identity":
            return image, masks
        sign = 1.0 if torch.rand(()).item() < 0.5 else -1.0
        shear = sign * math.degrees(math.atan(0.3 * self.MAGNITUDE))
        shift = sign * 10 * self.MAGNITUDE
        angle, translate, shears, centre = 0.0, [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
        if name == "rotate":
            angle, centre = sign * 30 * self.MAGNITUDE, [image.shape[-1] / 2, image.shape[-2] / 2]
        elif name.startswith("shear"):
            shears = [shear, 0.0] if name == "shear_x" else [0.0, shear]
        else:
            translate = [shift, 0.0] if name == "translate_x" else [0.0, shift]

        def move(tensor: Tensor, fill: int, bilinear: bool) -> Tensor:
            how = v2.InterpolationMode.BILINEAR if bilinear else v2.InterpolationMode.NEAREST
            return tvf.affine(tensor, angle, translate, 1.0, shears, how, fill=[float(fill)], center=centre)

        return move(image, self.FILL, True), move(masks, 0, False) if len(masks) else masks


def augment_crop(image: Tensor, masks: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """ALBEF's augmentation: random resized crop (20 to 100 % of the area, bicubic), flip, :class:`RandAugment`.

    Args:
        image: uint8 RGB [3, H, W].
        masks: uint8 [n, H, W]; cropped and moved with the image (a box may leave the picture).
        size: side of the result, pixels.
    """
    top, left, height, width = v2.RandomResizedCrop((size, size), scale=(0.2, 1.0)).make_params([image]).values()
    box = (slice(top, top + height), slice(left, left + width))
    image = resize_image(image[:, box[0], box[1]], (size, size), "pillow_bicubic")
    masks = resize_masks(masks[:, box[0], box[1]], (size, size))
    if torch.rand(()).item() < 0.5:
        image, masks = image.flip(-1), masks.flip(-1)
    return RandAugment()(image, masks)


class TrainTransform:
    """Draws a box of the entry, makes its rectangular mask, augments image and mask together, cleans the caption.

    The result has at most one box and mask: none if the entry has no box, or if the box is empty after truncation to
    integers or after a crop (the official code keeps such a sample in the AMC loss with an empty mask).

    Args:
        size: side of image and mask, pixels.
        max_words: words kept of a caption.
        shorten: cuts a clean caption to the training length in word pieces.
        augmentation: "amc" (:func:`augment_colour`), "albef" (:func:`augment_crop`), or "flip", which is "amc" without
            gray and jitter: these turn hues by up to 204 degrees and leave the text alone, so that words of colour
            become wrong.
        fix_saturation: see :func:`colour_jitter`.
        swap_left_right: exchange left and right in the text of flipped images (not with "albef"). The official code
            leaves the text alone, so such words become wrong.
        mask_all: the union of all boxes instead of one drawn box.
    """

    def __init__(
        self,
        size: int,
        max_words: int,
        shorten: Callable[[str], str],
        augmentation: Literal["amc", "albef", "flip"] = "amc",
        fix_saturation: bool = False,
        swap_left_right: bool = False,
        mask_all: bool = False,
    ) -> None:
        self.size, self.max_words, self.shorten = size, max_words, shorten
        self.augmentation, self.fix_saturation, self.swap = augmentation, fix_saturation, swap_left_right
        self.mask_all = mask_all
        self.normalise = Normalize(CLIP_MEAN, CLIP_STD, late=True)

    def __call__(self, sample: Sample) -> Sample:
        image = sample["image"].as_subclass(Tensor)
        size = (image.shape[-2], image.shape[-1])
        boxes = clamp_boxes(sample["boxes"].as_subclass(Tensor), size)
        if len(boxes) and not self.mask_all:
            boxes = boxes[[choose_box(boxes, lambda count: int(torch.randint(count, ())))]]
        masks = box_masks(boxes, size)
        text = sample["text"]
        if self.augmentation != "albef":
            draws = ColourDraws.draw(colour=self.augmentation == "amc")
            image, masks = augment_colour(image, masks, self.size, draws, self.fix_saturation)
            if self.swap and draws.flip:
                text = swap_left_right(text)
        else:
            image, masks = augment_crop(image, masks, self.size)
        return self.finish(sample, image, masks, text)

    def finish(self, sample: Sample, image: Tensor, masks: Tensor, text: str) -> Sample:
        """The sample with an augmented uint8 image [3, S, S] and its masks [n, S, S], n >= 0 (united if several)."""
        if len(masks):
            masks = masks.amax(0, keepdim=True)
        masks = masks[(masks > 0).flatten(1).any(1)]
        canvas = (self.size, self.size)
        # A box is written half open, a mask's last row and column belong to it.
        boxes = masks_to_boxes(masks) + torch.tensor([0.0, 0.0, 1.0, 1.0]) if len(masks) else torch.zeros(0, 4)
        height, width = sample["image"].shape[-2:]
        out: Sample = self.normalise({**sample, "image": tv_tensors.Image(image)})
        out["masks"] = tv_tensors.Mask(masks)
        out["boxes"] = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=canvas)  # type: ignore[call-overload]
        # Of the plain resize; flips and crops are not mapped back, nothing is predicted on training samples.
        out["geometry"] = Geometry(
            scale=(self.size / width, self.size / height), offset=(0.0, 0.0), size=(height, width), canvas=canvas
        )
        out["text"] = self.shorten(clean_caption(text, self.max_words))
        return out
