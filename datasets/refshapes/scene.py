"""Scenes: which objects there are, where they lie, and which pixels of each are visible.

Everything that enters an annotation is decided here with Python's ``random.Random`` and plain arithmetic, so that
it does not depend on the versions of the imaging libraries. Colours and shades of pixels are the business of
``render.py``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import cv2
import numpy as np

ROUND = ("circle", "ring")
ANGULAR = ("square", "triangle", "cross")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": ROUND + ANGULAR,
    "colour": ("red", "yellow", "green", "blue", "purple", "white"),
    "size": ("small", "large"),
    "texture": ("plain", "striped"),
}
RADIUS = {"small": (0.120, 0.145), "large": (0.190, 0.230)}  # of the image side; nothing lies between the two classes
TILT = {"circle": 180, "ring": 180, "square": 12, "triangle": 15, "cross": 12}  # +- degrees
OBJECTS = (3, 4, 5, 6)  # objects asked for; those that find no place are left out, at least three remain
OBJECT_WEIGHTS = (30, 35, 25, 10)
SUPERSAMPLING = 3  # samples per pixel and axis; odd, so that no pixel is exactly half covered
MIN_VISIBLE = 0.7  # of an object's full area, whatever covers it or cuts it off
MIN_INSIDE = 0.88  # of an object's full area that lies inside the image
MIN_EXTENT = 0.12  # of the image side: shorter side of the box of a visible region
MIN_PIECE = 0.0012  # of the image area: smaller visible pieces of an object would only confuse its box


@dataclass(eq=False)
class Object:
    """One object. ``radius`` in pixels, ``angle`` in radians, ``corner`` = (x, y) of its patch in the image."""

    shape: str
    colour: str
    size: str
    texture: str
    radius: float
    angle: float
    corner: tuple[int, int] = (0, 0)

    @cached_property
    def attributes(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in ATTRIBUTES}

    @cached_property
    def samples(self) -> np.ndarray:
        """Silhouette, bool [P * SUPERSAMPLING, P * SUPERSAMPLING] for a patch of P x P pixels."""
        u, v = patch_grid(self.radius, self.angle)
        return inside(self.shape, u, v)

    @cached_property
    def coverage(self) -> np.ndarray:
        """Share of each pixel of the patch that the silhouette covers, float32 [P, P]."""
        return pixel_means(self.samples)

    @cached_property
    def solid(self) -> np.ndarray:
        """Pixels of the patch that belong to the object, bool [P, P]."""
        return self.coverage > 0.5


@dataclass(eq=False)
class Scene:
    """Objects from back to front and, per pixel, the index of the visible one (-1: background), int8 [side, side]."""

    side: int
    objects: list[Object]
    owner: np.ndarray

    def visible(self, index: int) -> np.ndarray:
        """The visible region of an object, uint8 [side, side]."""
        return (self.owner == index).astype(np.uint8)

    @cached_property
    def boxes(self) -> list[tuple[int, int, int, int]]:
        """Tight boxes of the visible regions, x, y, w, h in pixels."""
        boxes = []
        for index in range(len(self.objects)):
            x, y, w, h = cv2.boundingRect(self.visible(index))
            boxes.append((x, y, w, h))
        return boxes

    @cached_property
    def centres(self) -> list[tuple[float, float]]:
        """Centres of :attr:`boxes`, (x, y) in pixels."""
        return [(x + w / 2, y + h / 2) for x, y, w, h in self.boxes]

    @cached_property
    def covers(self) -> dict[tuple[int, int], int]:
        """(front, back) -> number of pixels of ``back`` that are hidden by the visible part of ``front``."""
        covered = {}
        for back, item in enumerate(self.objects):
            image, patch = overlap(self.side, item)
            owners = self.owner[image][item.solid[patch]]
            for front in range(back + 1, len(self.objects)):
                hidden = int(np.count_nonzero(owners == front))
                if hidden:
                    covered[front, back] = hidden
        return covered


def patch_grid(radius: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the samples of a patch in the object's own frame, in which it fills [-1, 1] x [-1, 1]."""
    side = 2 * int(np.ceil(radius * 1.1)) + 2
    axis = ((np.arange(side * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - side / 2) / radius
    x, y = axis[None, :], axis[:, None]
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which points lie inside a shape: bool, of the shape of ``u`` and ``v``."""
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) <= 0.9
    if shape == "triangle":  # upright, tip at (0, -1)
        return (v <= 0.8) & (np.abs(u) * 1.8 <= v + 1.0)
    if shape == "cross":
        a, b = np.abs(u), np.abs(v)
        return (np.maximum(a, b) <= 0.97) & (np.minimum(a, b) <= 0.33)
    distance = u * u + v * v
    if shape == "ring":
        return (distance <= 1.0) & (distance >= 0.3)
    return distance <= 1.0


def pixel_means(samples: np.ndarray) -> np.ndarray:
    """[P * SUPERSAMPLING, P * SUPERSAMPLING] -> means over the samples of each pixel, float32 [P, P]."""
    steps = range(SUPERSAMPLING)
    rows = reduce(np.add, [samples[step::SUPERSAMPLING].astype(np.float32) for step in steps])
    return reduce(np.add, [rows[:, step::SUPERSAMPLING] for step in steps]) / SUPERSAMPLING**2


def overlap(side: int, item: Object) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of an object's patch that lies in the image: slices of the image and slices of the patch."""
    patch = len(item.samples) // SUPERSAMPLING
    image_slices, patch_slices = [], []
    for start in (item.corner[1], item.corner[0]):
        low = min(max(start, 0), side)
        high = max(min(start + patch, side), low)
        image_slices.append(slice(low, high))
        patch_slices.append(slice(low - start, high - start))
    return (image_slices[0], image_slices[1]), (patch_slices[0], patch_slices[1])


def sample_scene(rng: random.Random, side: int, shapes: Sequence[str], weights: Sequence[float]) -> Scene:
    """A scene of ``side`` x ``side`` pixels with 3 to 6 objects.

    Most objects are distractors: copies of an earlier one with one attribute changed, now and then exact twins.
    ``shapes`` with ``weights`` says how often each shape is drawn when it is drawn afresh.
    """
    while True:
        count = rng.choices(OBJECTS, OBJECT_WEIGHTS)[0]
        scene = Scene(side, [], np.full((side, side), -1, np.int8))
        described: list[dict[str, str]] = []
        for _ in range(count):
            described.append(_attributes(rng, described, shapes, weights))
        rng.shuffle(described)
        for attributes in described:
            low, high = RADIUS[attributes["size"]]
            item = Object(
                attributes["shape"],
                attributes["colour"],
                attributes["size"],
                attributes["texture"],
                radius=side * rng.uniform(low, high),
                angle=np.deg2rad(rng.uniform(-1, 1) * TILT[attributes["shape"]]),
            )
            _place(rng, scene, item)
        if len(scene.objects) >= OBJECTS[0]:
            return scene


def _attributes(
    rng: random.Random, earlier_objects: list[dict[str, str]], shapes: Sequence[str], weights: Sequence[float]
) -> dict[str, str]:
    def draw(name: str) -> str:
        return rng.choices(shapes, weights)[0] if name == "shape" else rng.choice(ATTRIBUTES[name])

    fate = rng.random()
    if not earlier_objects or fate < 0.4:
        return {name: draw(name) for name in ATTRIBUTES}
    copy = dict(rng.choice(earlier_objects))
    if fate < 0.95:
        name = rng.choices(tuple(ATTRIBUTES), (2, 4, 1, 2))[0]
        old = copy[name]
        while copy[name] == old:
            copy[name] = draw(name)
    return copy


def _place(rng: random.Random, scene: Scene, item: Object) -> None:
    """Put ``item`` in front of the others where it hides none of them too much, or leave it out."""
    side, patch, full = scene.side, len(item.solid), int(item.solid.sum())
    crowd = bool(scene.objects) and rng.random() < 0.2  # aim at another object: overlap is what makes masks matter
    for attempt in range(40):
        if crowd and attempt < 20:
            other = rng.choice(scene.objects)
            direction, distance = rng.uniform(0, 2 * np.pi), (other.radius + item.radius) * rng.uniform(0.55, 0.95)
            half = len(other.solid) / 2
            x = round(other.corner[0] + half + distance * np.cos(direction) - patch / 2)
            y = round(other.corner[1] + half + distance * np.sin(direction) - patch / 2)
        else:
            reach = int(item.radius * 0.2)
            x, y = (rng.randint(-reach, side - patch + reach) for _ in range(2))
        item.corner = (x, y)
        image, part = overlap(side, item)
        solid = item.solid[part]
        if solid.sum() < MIN_INSIDE * full:
            continue
        index = len(scene.objects)
        before = scene.owner[image]
        touched = [index, *(int(other) for other in np.unique(before[solid]) if other >= 0)]
        if len(touched) > 1 and not crowd and attempt < 20:  # look for a free place first
            continue
        owner = scene.owner.copy()
        owner[image][solid] = index
        if all(_recognisable(owner == other, item if other == index else scene.objects[other]) for other in touched):
            scene.objects.append(item)
            scene.owner = owner
            return


def _recognisable(visible: np.ndarray, item: Object) -> bool:
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    if not len(rows) or visible.sum() < MIN_VISIBLE * item.solid.sum():
        return False
    window = visible[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(window)
    pieces = stats[1:count, cv2.CC_STAT_AREA]
    return min(window.shape) >= MIN_EXTENT * len(visible) and pieces.min() >= MIN_PIECE * visible.size
