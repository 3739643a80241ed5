"""Priors for the embedded data without any downloaded model: a sketch of the object that the expression names.

Stands in for text-to-image model and image encoder where neither is at hand; the interfaces are those of
:mod:`.priors`. What it knows is the vocabulary of RefShapes; of other texts it makes an object of chance.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from vgbench.datasets.refshapes.language import ADJECTIVES, AFTERWARDS, NOUNS
from vgbench.datasets.refshapes.render import paint
from vgbench.datasets.refshapes.scene import ATTRIBUTES, Object, Scene

__all__ = ["SketchGenerator", "ThumbnailEncoder", "described"]

_NOUN = {word: shape for shape, pairs in NOUNS.items() for pair in pairs for word in pair}
_VALUE = {word: value for value, words in ADJECTIVES.items() for word in words}
_LATER = {phrase.split()[-1]: value for value, phrases in AFTERWARDS.items() for phrase in phrases}
_AXIS = {value: name for name, values in ATTRIBUTES.items() for value in values}


def described(expression: str) -> dict[str, str]:
    """Attributes of the object that is named first: its noun, the adjectives before it, "with ..." right behind it."""
    words = expression.lower().replace(",", " ").split()
    place = next((number for number, word in enumerate(words) if word in _NOUN), len(words))
    found = {_AXIS[_VALUE[word]]: _VALUE[word] for word in words[:place] if word in _VALUE}
    if place < len(words) and _NOUN[words[place]]:
        found["shape"] = _NOUN[words[place]]
    if words[place + 1 : place + 2] == ["with"] and words[place + 2 : place + 3]:
        value = _LATER.get(words[place + 2])
        if value:
            found[_AXIS[value]] = value
    return found


class SketchGenerator:
    """Paints the described object large in the middle; what the expression leaves open is left to chance.

    Args:
        side: width and height of the picture in pixels.
    """

    def __init__(self, side: int = 64) -> None:
        self.side = side
        self.name = f"sketch side={side}"

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[PILImage.Image]:
        return [self._sketch(text, seed) for text, seed in zip(prompts, seeds, strict=True)]

    def _sketch(self, text: str, seed: int) -> PILImage.Image:
        rng = random.Random(seed)
        attributes = {name: rng.choice(values) for name, values in ATTRIBUTES.items()} | described(text)
        radius = self.side * (0.22 if attributes["size"] == "small" else 0.38)
        item = Object(
            attributes["shape"], attributes["colour"], attributes["size"], attributes["texture"], radius, angle=0.0
        )
        corner = (self.side - len(item.solid)) // 2
        item.corner = (corner, corner)
        scene = Scene(self.side, [item], np.full((self.side, self.side), -1, np.int8))
        return PILImage.fromarray(paint(scene, rng))


class ThumbnailEncoder:
    """Mean colours of a grid of cells, from -1 to 1: 3 ``grid``^2 numbers."""

    def __init__(self, grid: int = 4) -> None:
        self.grid = grid
        self.name = f"thumbnail grid={grid}"

    def __call__(self, images: Sequence[PILImage.Image]) -> Tensor:
        small = [image.resize((self.grid, self.grid), PILImage.Resampling.BOX) for image in images]
        return torch.stack([torch.from_numpy(np.asarray(image).reshape(-1) / 127.5 - 1).float() for image in small])
