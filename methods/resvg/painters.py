"""Painters of scenes with several instances of one category: pasted instances, or a layout-to-image model."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from pycocotools import mask as rle

from vgbench.core.errors import UserError, require_extra
from vgbench.data.checks import BadSample
from vgbench.data.images import ImageFile, decode_image
from vgbench.methods.resvg.instances import Instance
from vgbench.methods.resvg.queries import plural

__all__ = ["CopyPaste", "LayoutToImage", "Painter", "Scene"]

Box = tuple[float, float, float, float]  # xyxy


@dataclass(frozen=True)
class Scene:
    """A painted scene.

    Attributes:
        image: uint8 RGB [h, w, 3].
        boxes: float64 [n, 4] xyxy of the visible parts of all instances of ``category`` in it.
        masks: bool [n, h, w], or None when the painter knows boxes only.
        painted_from: the images whose pixels are in it, as :func:`vgbench.data.leakage.image_keys` names them.
    """

    image: np.ndarray
    category: str
    boxes: np.ndarray
    masks: np.ndarray | None = None
    painted_from: tuple[str, ...] = ()


class Painter(Protocol):
    """Makes a scene that holds ``count`` instances of one category and no other one of it, or None if that fails."""

    name: str

    def __call__(self, count: int, rng: random.Random) -> Scene | None: ...


@dataclass
class CopyPaste:
    """Pastes instances of one category into an image without any of it.

    Colours are harmonised with the place: mean and spread of each Lab channel move part of the way towards those of
    the background there (Reinhard et al., 2001), and the edge of the mask is feathered.

    Args:
        instances: what can be pasted (:func:`instances_of`); only training images.
        image_path: image name -> file.
        present: for each image, the categories in it that the instances do not tell: objects nobody referred to
            (:func:`categories_in`). Without it a background may hold an instance that no query knows of.
        area: smallest and largest box area of a pasted instance, as a share of the image.
        max_overlap: largest intersection of two boxes over the smaller of the two.
        harmony: 0 keeps the colours of the source, 1 takes over the background's statistics.
        feather: width of the soft edge in pixels.
        min_pixels: instances with fewer visible pixels are not used.
    """

    instances: Sequence[Instance]
    image_path: Callable[[str], ImageFile]
    present: Mapping[int, Iterable[str]] = field(default_factory=dict)
    area: tuple[float, float] = (0.03, 0.15)
    max_overlap: float = 0.2
    harmony: float = 0.35
    feather: float = 1.0
    min_pixels: int = 64
    name: str = "copy-paste"

    def __post_init__(self) -> None:
        self._by_category: dict[str, list[Instance]] = defaultdict(list)
        self._categories: dict[int, set[str]] = defaultdict(set)
        self._images: dict[int, tuple[str, str]] = {}
        for instance in self.instances:
            self._categories[instance.image_id].add(instance.category)
            self._images[instance.image_id] = instance.image, instance.source
            if rle.area(encoded(instance.mask)) >= self.min_pixels:
                self._by_category[instance.category].append(instance)
        for image_id, names in self.present.items():
            self._categories[image_id].update(names)
        self._names = sorted(name for name, instances in self._by_category.items() if len(instances) > 1)
        self._backgrounds = sorted(self._images)
        if not self._names:
            raise UserError("no category has two segmented instances large enough to be pasted")

    def __call__(self, count: int, rng: random.Random) -> Scene | None:
        category = rng.choice(self._names)
        background = rng.choice(self._backgrounds)
        if category in self._categories[background]:
            return None
        name, source = self._images[background]
        canvas = _read(self.image_path(name))
        painted_from = {f"{source}:{background}"}
        height, width = canvas.shape[:2]
        owner = np.full((height, width), -1, dtype=np.int16)
        boxes: list[Box] = []
        for number in range(count):
            instance = rng.choice(self._by_category[category])
            painted_from.add(f"{instance.source}:{instance.image_id}")
            box = self._paste(instance, number, canvas, owner, boxes, rng)
            if box is None:
                return None
            boxes.append(box)
        masks = np.stack([owner == number for number in range(count)])
        if masks.sum((1, 2)).min() < self.min_pixels:
            return None
        return Scene(canvas, category, np.array([_box_of(mask) for mask in masks]), masks, tuple(painted_from))

    def _paste(
        self,
        instance: Instance,
        number: int,
        canvas: np.ndarray,
        owner: np.ndarray,
        boxes: Sequence[Box],
        rng: random.Random,
    ) -> Box | None:
        """Paint an instance into ``canvas`` and its ``number`` into ``owner``; its box, or None where it finds no
        place beside ``boxes``."""
        height, width = canvas.shape[:2]
        patch, mask = self._cut(instance)
        share = rng.uniform(*self.area)
        scale = (share * height * width / (mask.shape[0] * mask.shape[1])) ** 0.5
        size = (max(2, round(mask.shape[1] * scale)), max(2, round(mask.shape[0] * scale)))
        if size[0] >= width or size[1] >= height:
            return None
        patch = cv2.resize(patch, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
        box = self._place(size, (width, height), boxes, rng)
        if box is None or mask.sum() < self.min_pixels:
            return None
        left, top = int(box[0]), int(box[1])
        window = np.s_[top : top + size[1], left : left + size[0]]
        canvas[window] = self._blend(canvas[window], patch, mask)
        owner[window][mask] = number
        return box

    def _cut(self, instance: Instance) -> tuple[np.ndarray, np.ndarray]:
        """The instance's pixels [h, w, 3] and mask [h, w] within the box of its mask."""
        mask = rle.decode(encoded(instance.mask)).astype(bool)
        left, top, right, bottom = (int(value) for value in _box_of(mask))
        image = _read(self.image_path(instance.image))
        if image.shape[:2] != mask.shape:
            raise UserError(
                f"{self.image_path(instance.image)}: image is {image.shape[1]}x{image.shape[0]}, its mask "
                f"{mask.shape[1]}x{mask.shape[0]}; see `vgbench data verify`"
            )
        return image[top:bottom, left:right], mask[top:bottom, left:right]

    def _place(
        self,
        size: tuple[int, int],
        canvas: tuple[int, int],
        boxes: Sequence[Box],
        rng: random.Random,
        tries: int = 30,
    ) -> Box | None:
        for _ in range(tries):
            left, top = rng.randint(0, canvas[0] - size[0]), rng.randint(0, canvas[1] - size[1])
            box = (float(left), float(top), float(left + size[0]), float(top + size[1]))
            if all(_overlap(box, other) <= self.max_overlap for other in boxes):
                return box
        return None

    def _blend(self, background: np.ndarray, patch: np.ndarray, mask: np.ndarray) -> np.ndarray:
        source, place = (cv2.cvtColor(part, cv2.COLOR_RGB2LAB).astype(np.float32) for part in (patch, background))
        pixels, around = source[mask], place.reshape(-1, 3)
        mean, spread = pixels.mean(0), pixels.std(0) + 1e-3
        target = mean + self.harmony * (around.mean(0) - mean)
        ratio = 1 + self.harmony * (around.std(0) / spread - 1)
        moved = (source - mean) * np.clip(ratio, 0.5, 1.5) + target
        moved = cv2.cvtColor(np.clip(np.rint(moved), 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB)
        alpha = mask.astype(np.float32)
        if self.feather > 0:  # inwards only: no pixel of the source's background shows
            alpha *= np.clip(2 * cv2.GaussianBlur(alpha, (0, 0), self.feather) - 1, 0.5, 1)
        blended = background + (moved.astype(np.float32) - background) * alpha[..., None]
        return np.rint(blended).astype(np.uint8)


@dataclass
class LayoutToImage:
    """Has a layout-to-image model draw the category into boxes drawn at random.

    Args:
        pipeline: called like diffusers' GLIGEN pipeline: ``pipeline(prompt=..., gligen_phrases=[...],
            gligen_boxes=[...] (xyxy from 0 to 1), generator=..., height=..., width=...).images``.
        categories: what can be drawn, plain nouns.
        size: side of the square image in pixels.
        area: smallest and largest area of a box, as a share of the image.
        name: model and settings.
    """

    pipeline: Callable[..., Any]
    categories: Sequence[str]
    size: int = 512
    area: tuple[float, float] = (0.03, 0.12)
    name: str = "layout-to-image"

    @classmethod
    def from_folder(cls, folder: Path, categories: Sequence[str], device: str = "cpu") -> LayoutToImage:
        """A local GLIGEN checkpoint in the layout of diffusers.

        Raises:
            UserError: if diffusers is not installed or the folder holds no such pipeline.
        """
        diffusers = require_extra("diffusers", "priors", "painter=layout")
        try:
            pipeline = diffusers.StableDiffusionGLIGENPipeline.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{folder}: not a GLIGEN pipeline ({' '.join(str(error).split())[:200]})") from None
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline.to(device), categories, name=folder.resolve().name)

    def __call__(self, count: int, rng: random.Random) -> Scene | None:
        import torch

        category = rng.choice(list(self.categories))
        boxes: list[Box] = []
        for _ in range(30 * count):
            width, height = (rng.uniform(*self.area) ** 0.5 for _ in range(2))
            left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
            box = (left, top, left + width, top + height)
            if all(_overlap(box, other) == 0 for other in boxes):
                boxes.append(box)
            if len(boxes) == count:
                break
        else:
            return None
        words = {2: "two", 3: "three", 4: "four", 5: "five"}
        output = self.pipeline(
            prompt=f"{words.get(count, str(count))} {plural(category)}",
            gligen_phrases=[category] * count,
            gligen_boxes=[list(box) for box in boxes],
            generator=torch.Generator("cpu").manual_seed(rng.getrandbits(32)),
            height=self.size,
            width=self.size,
        )
        image = np.asarray(output.images[0].convert("RGB"))
        height, width = image.shape[:2]
        return Scene(image, category, np.array(boxes) * [width, height, width, height])


def encoded(mask: Mapping[str, Any]) -> dict[str, Any]:
    """A COCO RLE with counts as bytes, as pycocotools takes it."""
    counts = mask["counts"]
    return {"size": list(mask["size"]), "counts": counts.encode() if isinstance(counts, str) else counts}


def _read(path: ImageFile) -> np.ndarray:
    try:
        return decode_image(path).permute(1, 2, 0).numpy().copy()
    except BadSample as error:
        raise UserError(f"{error}; set image_root=FOLDER, or see `vgbench data verify`") from None


def _box_of(mask: np.ndarray) -> Box:
    """Tight box (xyxy, far sides exclusive) of a mask with at least one pixel."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over the smaller area."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / min(areas)
