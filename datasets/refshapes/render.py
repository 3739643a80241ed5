"""Pixels and masks: paints a scene with clutter, and encodes visible regions as COCO segmentations."""

from __future__ import annotations

import colorsys
import random
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle

from vgbench.datasets.refshapes.scene import Object, Scene, overlap, patch_grid, pixel_means

PALETTE = {  # hue in degrees, saturation, value
    "red": (356, 0.88, 0.85),
    "yellow": (54, 0.88, 0.98),
    "green": (125, 0.75, 0.66),
    "blue": (216, 0.82, 0.88),
    "purple": (274, 0.68, 0.68),
    "white": (0, 0.0, 0.98),
}
JPEG_QUALITY = 92


def paint(scene: Scene, rng: random.Random) -> np.ndarray:
    """The picture of a scene, uint8 RGB [side, side, 3]."""
    noise = np.random.default_rng(rng.getrandbits(64))
    canvas = _background(scene.side, rng, noise)
    light = rng.uniform(0, 2 * np.pi)
    for item in scene.objects:
        _draw(canvas, item, light, rng)
    canvas += rng.uniform(2, 5) * noise.standard_normal(canvas.shape, np.float32)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def encode_jpeg(image: np.ndarray) -> bytes:
    """uint8 RGB [h, w, 3] -> JPEG file."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise RuntimeError("OpenCV could not encode a JPEG image")
    return data.tobytes()


def segmentation(mask: np.ndarray) -> list[list[float]] | dict[str, Any]:
    """uint8 [h, w] -> COCO segmentation that decodes to exactly this mask.

    A region without holes becomes a list of polygons, one per piece, simplified as far as the decoded mask stays the
    same; one with holes becomes a compressed RLE, as COCO writes what polygons cannot say.
    """
    height, width = mask.shape
    exact = rle.encode(np.asfortranarray(mask))
    zoom = 3  # contours run through the centres of the enlarged pixels: a sixth of a pixel inside the region
    left, top, w, h = cv2.boundingRect(mask)
    large = np.repeat(np.repeat(mask[top : top + h, left : left + w], zoom, 0), zoom, 1)
    corner = (left * zoom, top * zoom)
    contours, hierarchy = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=corner)
    if (hierarchy[0, :, 3] < 0).all():
        for tolerance in (2.0, 1.5, 1.0, 0.5, 0.0):
            polygons = [
                ((cv2.approxPolyDP(contour, tolerance, True).reshape(-1) + 0.5) / zoom).round(1).tolist()
                for contour in contours
            ]
            if min(map(len, polygons)) >= 6:
                merged = rle.merge(rle.frPyObjects(polygons, height, width))
                if merged["counts"] == exact["counts"]:
                    return polygons
    return {"size": [height, width], "counts": exact["counts"].decode()}


def _background(side: int, rng: random.Random, noise: np.random.Generator) -> np.ndarray:
    """Two muted colours with a soft transition, blotches, and lines or tiles; float32 [side, side, 3]."""
    axis = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    direction = rng.uniform(0, 2 * np.pi)
    ramp = axis[None, :] * np.cos(direction) + axis[:, None] * np.sin(direction) + 0.5
    blotches = noise.random((rng.randint(4, 12),) * 2).astype(np.float32)
    ramp = ramp + rng.uniform(0.1, 0.5) * (cv2.resize(blotches, (side, side), interpolation=cv2.INTER_CUBIC) - 0.5)
    first, second = (
        np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.05, 0.3), rng.uniform(0.2, 0.6)), np.float32) * 255
        for _ in range(2)
    )
    canvas = first + np.clip(ramp, 0, 1)[..., None] * (second - first)
    pattern = rng.choice(("none", "none", "planks", "tiles", "scratches"))
    if pattern in ("planks", "tiles"):
        period = side * rng.uniform(0.08, 0.2)
        shade = np.cos(axis * side * 2 * np.pi / period + rng.uniform(0, 6)) > 0.9
        lines = shade[None, :] | shade[:, None] if pattern == "tiles" else np.broadcast_to(shade, (side, side))
        if rng.random() < 0.5:
            lines = lines.T
        canvas[lines] *= rng.uniform(0.75, 0.9)
    elif pattern == "scratches":
        for _ in range(rng.randint(4, 14)):
            start, end = ((rng.randrange(side), rng.randrange(side)) for _ in range(2))
            tone = [float(value) for value in canvas[start[1], start[0]] * rng.choice((0.75, 1.25))]
            cv2.line(canvas, start, end, tone, 1, cv2.LINE_AA)
    return canvas


def _draw(canvas: np.ndarray, item: Object, light: float, rng: random.Random) -> None:
    """Blend one object into ``canvas`` (in place): soft shadow, shaded and textured surface, darker rim."""
    side = len(canvas)
    image, part = overlap(side, item)
    unit = side / 128
    _shade(canvas, item, (-2.5 * unit * np.cos(light), -2.5 * unit * np.sin(light)), 1.6 * unit)

    hue, saturation, value = PALETTE[item.colour]
    if saturation:
        saturation = min(1.0, saturation * rng.uniform(0.92, 1.08))
    rgb = colorsys.hsv_to_rgb((hue + rng.uniform(-5, 5)) / 360 % 1, saturation, value * rng.uniform(0.92, 1.0))
    surface = np.array(rgb, np.float32) * 255
    patch = len(item.coverage)
    axis = (np.arange(patch, dtype=np.float32) + 0.5 - patch / 2) / item.radius
    tone = 1 + 0.16 * (axis[None, :] * np.float32(np.cos(light)) + axis[:, None] * np.float32(np.sin(light)))
    if item.texture != "plain":
        strength = rng.uniform(0.55, 0.7)
        tone *= 1 - strength * _pattern(item, unit, rng)
    rim = item.coverage - cv2.erode(item.coverage, np.ones((3, 3), np.uint8))
    tone *= 1 - 0.45 * rim

    alpha = item.coverage[part][..., None]
    canvas[image] += (surface * tone[part][..., None] - canvas[image]) * alpha


def _shade(canvas: np.ndarray, item: Object, shift: tuple[float, float], blur: float) -> None:
    """Darken ``canvas`` (in place) where an object's shadow falls: its silhouette, shifted and blurred (pixels)."""
    margin = int(np.ceil(max(map(abs, shift)) + 3 * blur))
    wide = cv2.copyMakeBorder(item.coverage, margin, margin, margin, margin, cv2.BORDER_CONSTANT)
    move = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    soft = cv2.GaussianBlur(cv2.warpAffine(wide, move, wide.shape), (0, 0), blur)
    x, y = item.corner[0] - margin, item.corner[1] - margin
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + len(wide), len(canvas)), min(y + len(wide), len(canvas))
    canvas[top:bottom, left:right] *= 1 - 0.45 * soft[top - y : bottom - y, left - x : right - x, None]


def _pattern(item: Object, unit: float, rng: random.Random) -> np.ndarray:
    """Stripes: the share of each pixel of the patch that is dark, float32 [P, P]."""
    angle = rng.uniform(0, np.pi)
    scale = item.radius / unit  # object frame -> pixels of a 128 pixel image
    u = patch_grid(item.radius, angle)[0].astype(np.float32) * np.float32(scale)
    u = u * np.float32(1 / rng.uniform(6.5, 8.5)) + np.float32(rng.random())
    return pixel_means(u - np.floor(u) < 0.45)
