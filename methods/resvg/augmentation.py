"""Relation-sensitive data augmentation: scenes with several instances of one category, and queries on their relations.

The paper has a text-to-image model draw such scenes and a detector find the objects; its code ships neither, only the
list of samples that the authors made. Here a scene comes from a :class:`Painter`: by default :class:`CopyPaste`,
which needs no generator (segmented instances of the training images, harmonised with a new background), or
:class:`LayoutToImage`. The queries follow the specification's recommendation (section 5.1): "<relation> <category>"
by the centres of the boxes. Every query is checked by :func:`denotes`, which knows nothing of how it was made: it
must be true of exactly one instance, and not by a hair.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from PIL import Image as PILImage
from pycocotools import mask as rle

from vgbench.core.errors import UserError, require_extra
from vgbench.data.additional import IMAGES, TABLE, AdditionalData
from vgbench.data.checks import BadSample, read_json
from vgbench.data.images import ImageFile, decode_image
from vgbench.data.table import AnnotationTable

__all__ = [
    "CopyPaste",
    "Instance",
    "LayoutToImage",
    "Painter",
    "Scene",
    "augment",
    "categories_in",
    "denotes",
    "instances_of",
    "pseudo_queries",
]

SOURCE = "resvg-augmentation"  # of the rows; also the folder of the images, so that no name is a dataset's
SEEDS_APART = 1_000_000  # more scenes than one folder holds: numbers of folders with different seeds do not meet
RELATIONS = ("left", "middle", "right", "top", "bottom")
EXTENT = 0.1  # of the image: centres must spread at least so far for a relation along that axis (specification)
MARGIN = 0.04  # of the image: every comparison that a query rests on must be at least this clear (ours)


@dataclass(frozen=True)
class Instance:
    """A segmented object of a training image. ``mask`` is a COCO RLE, ``box`` xyxy pixels, ``source`` the table's."""

    image: str
    image_id: int
    source: str
    category: str
    box: tuple[float, float, float, float]
    mask: Mapping[str, Any]


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


def instances_of(table: AnnotationTable) -> list[Instance]:
    """The distinct segmented objects of a table, in its order.

    Raises:
        UserError: if the table has no masks or no categories.
    """
    found: dict[tuple[int, str], Instance] = {}
    for row in table:
        if len(row.masks) == len(row.categories) == len(row.boxes):
            for mask, category, box in zip(row.masks, row.categories, row.boxes, strict=True):
                instance = Instance(row.image, row.image_id, row.source, category, tuple(map(float, box)), mask)  # type: ignore[arg-type]
                found.setdefault((row.image_id, mask["counts"]), instance)
    if not found:
        raise UserError("the augmentation needs masks and categories, this dataset has none; use one that is on COCO")
    return list(found.values())


def categories_in(instances_file: Path) -> dict[int, set[str]]:
    """All categories that COCO's ``instances*.json`` lists for each image.

    Raises:
        UserError: if the file is not of that format.
    """
    content = read_json(instances_file)
    try:
        names = {item["id"]: item["name"] for item in content["categories"]}
        present: dict[int, set[str]] = defaultdict(set)
        for annotation in content["annotations"]:
            present[annotation["image_id"]].add(names[annotation["category_id"]])
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{instances_file}: not an instances file of COCO ({error!r})") from None
    return dict(present)


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
            if rle.area(_encoded(instance.mask)) >= self.min_pixels:
                self._by_category[instance.category].append(instance)
        for image_id, names in self.present.items():
            self._categories[image_id].update(names)
        self._names = sorted(name for name, found in self._by_category.items() if len(found) > 1)
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
        placed: list[tuple[float, float, float, float]] = []
        for number in range(count):
            instance = rng.choice(self._by_category[category])
            painted_from.add(f"{instance.source}:{instance.image_id}")
            patch, mask = self._cut(instance)
            share = rng.uniform(*self.area)
            scale = (share * height * width / (mask.shape[0] * mask.shape[1])) ** 0.5
            size = (max(2, round(mask.shape[1] * scale)), max(2, round(mask.shape[0] * scale)))
            if size[0] >= width or size[1] >= height:
                return None
            shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            patch = cv2.resize(patch, size, interpolation=shrink)
            mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
            box = self._place(size, (width, height), placed, rng)
            if box is None or mask.sum() < self.min_pixels:
                return None
            placed.append(box)
            left, top = int(box[0]), int(box[1])
            window = np.s_[top : top + size[1], left : left + size[0]]
            canvas[window] = self._blend(canvas[window], patch, mask)
            owner[window][mask] = number
        masks = np.stack([owner == number for number in range(count)])
        if masks.sum((1, 2)).min() < self.min_pixels:
            return None
        return Scene(canvas, category, np.array([_box_of(mask) for mask in masks]), masks, tuple(painted_from))

    def _cut(self, instance: Instance) -> tuple[np.ndarray, np.ndarray]:
        """The instance's pixels [h, w, 3] and mask [h, w] within the box of its mask."""
        mask = rle.decode(_encoded(instance.mask)).astype(bool)
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
        placed: Sequence[tuple[float, float, float, float]],
        rng: random.Random,
        tries: int = 30,
    ) -> tuple[float, float, float, float] | None:
        for _ in range(tries):
            left, top = rng.randint(0, canvas[0] - size[0]), rng.randint(0, canvas[1] - size[1])
            box = (float(left), float(top), float(left + size[0]), float(top + size[1]))
            if all(_overlap(box, other) <= self.max_overlap for other in placed):
                return box
        return None

    def _blend(self, background: np.ndarray, patch: np.ndarray, mask: np.ndarray) -> np.ndarray:
        own, there = (cv2.cvtColor(part, cv2.COLOR_RGB2LAB).astype(np.float32) for part in (patch, background))
        pixels, around = own[mask], there.reshape(-1, 3)
        mean, spread = pixels.mean(0), pixels.std(0) + 1e-3
        target = mean + self.harmony * (around.mean(0) - mean)
        ratio = 1 + self.harmony * (around.std(0) / spread - 1)
        moved = (own - mean) * np.clip(ratio, 0.5, 1.5) + target
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
        boxes: list[tuple[float, float, float, float]] = []
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


def plural(noun: str) -> str:
    """Plural of a noun by the plain rules of English ("bus" -> "buses", "person" -> "people")."""
    irregular = {"person": "people", "man": "men", "woman": "women", "child": "children", "mouse": "mice"}
    irregular |= {"knife": "knives", "sheep": "sheep", "skis": "skis", "scissors": "scissors", "broccoli": "broccoli"}
    head, _, last = noun.rpartition(" ")
    if last in irregular:
        word = irregular[last]
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        word = f"{last}es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        word = f"{last[:-1]}ies"
    else:
        word = f"{last}s"
    return f"{head} {word}".strip()


# queries


def pseudo_queries(boxes: np.ndarray, size: tuple[int, int], category: str) -> list[tuple[int, str]]:
    """The unambiguous queries on a scene.

    If the centres spread over more than a tenth of the width, the outermost get "left" and "right"; of exactly three
    the remaining one gets "middle", of more each remaining one gets "left", "right" or "middle" by the quarter that it
    lies in. The same along the height with "top" and "bottom". A word that several instances carry is not used.

    Args:
        boxes: [n, 4] xyxy pixels of all instances of the category.
        size: (width, height) of the image.

    Returns:
        (index of the instance, query) for each query that :func:`denotes` confirms.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    carriers: dict[str, list[int]] = defaultdict(list)
    for axis, (low, high) in enumerate((("left", "right"), ("top", "bottom"))):
        values, extent = centres[:, axis], size[axis]
        if len(values) < 2 or np.ptp(values) <= EXTENT * extent:
            continue
        first, last = int(values.argmin()), int(values.argmax())
        carriers[low].append(first)
        carriers[high].append(last)
        for index in range(len(values)) if axis == 0 else ():
            if index not in (first, last):
                if len(values) == 3 or extent / 4 <= values[index] <= 3 * extent / 4:
                    carriers["middle"].append(index)
                else:
                    carriers["left" if values[index] < extent / 4 else "right"].append(index)
    return [
        (found[0], f"{word} {category}")
        for word, found in carriers.items()
        if len(found) == 1 and denotes(word, boxes, size) == found[0]
    ]


def denotes(relation: str, boxes: np.ndarray, size: tuple[int, int]) -> int | None:
    """The one instance that a relation word clearly stands for, or None.

    "left", "right", "top", "bottom": the instance furthest that way, by :data:`MARGIN` of the image before the next
    one. "middle": of three instances the one between the others along the x axis, of more the only one that has
    others on both sides and lies within the central half; by the same margin from its neighbours.

    Args:
        relation: one of :data:`RELATIONS`.
        boxes: [n, 4] xyxy pixels of all instances of the category.
        size: (width, height) of the image.
    """
    axis = 0 if relation in ("left", "middle", "right") else 1
    values = [(box[axis] + box[axis + 2]) / 2 / size[axis] for box in np.asarray(boxes, dtype=np.float64).tolist()]
    order = sorted(range(len(values)), key=values.__getitem__)
    if len(order) < 2:
        return None
    if relation in ("left", "top"):
        return order[0] if values[order[1]] - values[order[0]] >= MARGIN else None
    if relation in ("right", "bottom"):
        return order[-1] if values[order[-1]] - values[order[-2]] >= MARGIN else None
    inner = order[1:-1]
    candidates = inner if len(order) == 3 else [index for index in inner if 0.25 <= values[index] <= 0.75]
    if len(candidates) != 1:
        return None
    rank = order.index(candidates[0])
    clear = min(values[order[rank]] - values[order[rank - 1]], values[order[rank + 1]] - values[order[rank]])
    return candidates[0] if clear >= MARGIN else None


# tables


def augment(
    painter: Painter,
    folder: Path,
    scenes: int,
    *,
    seed: int = 0,
    counts: tuple[int, int] = (2, 5),
    tries: int = 50,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> AnnotationTable:
    """Paint ``scenes`` scenes and ask about them: JPEG images and an annotation table in ``folder``.

    Scene i depends on ``seed`` and i alone, so a longer list begins with the shorter one. The table is written last;
    all of its rows are of split "train".

    Args:
        painter: where scenes come from.
        folder: new or empty of tables.
        scenes: number of images.
        counts: fewest and most instances per scene.
        tries: attempts per scene (instances that find no place, no unambiguous query).
        progress: called with (done, total) after each scene.

    Raises:
        UserError: if the folder already holds a table, or no scene can be painted.
    """
    if (folder / TABLE).exists():
        raise UserError(f"{folder / TABLE}: exists; give another folder for the augmentation, or delete this one")
    if not 2 <= counts[0] <= counts[1]:
        raise UserError(f"counts={counts[0]}-{counts[1]}: a relation needs at least two instances, e.g. counts=2-5")
    rows: list[dict[str, Any]] = []
    painted_from: set[str] = set()
    for number in range(scenes):
        rng = random.Random(f"{seed}:{number}")
        for _ in range(tries):
            scene = painter(rng.randint(*counts), rng)
            if scene is None:
                continue
            height, width = scene.image.shape[:2]
            queries = pseudo_queries(scene.boxes, (width, height), scene.category)
            if queries:
                break
        else:
            raise UserError(
                f"{painter.name}: no scene with an unambiguous query in {tries} attempts; widen area or max_overlap"
            )
        name = f"{SOURCE}/{seed}-{number:06d}.jpg"
        file = folder / IMAGES / name
        file.parent.mkdir(parents=True, exist_ok=True)
        PILImage.fromarray(scene.image).save(file, quality=95)
        rows += _rows(scene, queries, seed * SEEDS_APART + number, name)
        painted_from.update(scene.painted_from)
        progress(number + 1, scenes)
    info: dict[str, Any] = {
        "dataset": SOURCE,
        "split": "train",
        "task": "rec",
        "sources": {},
        "image_root": None,
        "painter": painter.name,
        "seed": seed,
        "scenes": scenes,
        "painted_from": sorted(painted_from),
    }
    return AdditionalData.write(folder, AnnotationTable.from_rows(rows, info)).table


def _rows(scene: Scene, queries: Sequence[tuple[int, str]], number: int, name: str) -> Iterable[dict[str, Any]]:
    height, width = scene.image.shape[:2]
    for index, text in queries:
        masks = []
        if scene.masks is not None:
            masks = [rle.encode(np.asfortranarray(scene.masks[index].astype(np.uint8)))["counts"].decode()]
        yield {
            "key": f"{name.removesuffix('.jpg')}/{text}",
            "image_id": -1 - number,  # no image of a dataset has a negative number
            "image": name,
            "width": width,
            "height": height,
            "expression": text,
            "boxes": scene.boxes[index : index + 1],
            "masks": masks,
            "polygons": [0] * len(masks),
            "ann_ids": [],
            "categories": [scene.category],
            "ref_id": None,
            "sent_id": None,
            "group": -1 - (number * 64 + index),
            "source": SOURCE,
            "split": "train",
        }


# pixels


def _encoded(mask: Mapping[str, Any]) -> dict[str, Any]:
    counts = mask["counts"]
    return {"size": list(mask["size"]), "counts": counts.encode() if isinstance(counts, str) else counts}


def _read(path: ImageFile) -> np.ndarray:
    try:
        return decode_image(path).permute(1, 2, 0).numpy().copy()
    except BadSample as error:
        raise UserError(f"{error}; set image_root=FOLDER, or see `vgbench data verify`") from None


def _box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
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
