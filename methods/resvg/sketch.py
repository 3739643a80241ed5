"""Priors for the embedded data without any downloaded model: a sketch of the object that the expression names.

Stands in for text-to-image model and image encoder where neither is at hand; the interfaces are those of
:mod:`.priors`. What it knows is the vocabulary of RefShapes; of other texts it makes an object of chance.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from vgbench.core.errors import UserError
from vgbench.data.table import AnnotationTable
from vgbench.datasets.refshapes.language import ADJECTIVES, AFTERWARDS, NOUNS
from vgbench.datasets.refshapes.render import paint
from vgbench.datasets.refshapes.scene import ATTRIBUTES, Object, Scene
from vgbench.methods.resvg.prompts import prompt, prompt_seed

__all__ = ["SketchGenerator", "ThumbnailEncoder", "described", "sketch_priors"]

_NOUN = {word: shape for shape, pairs in NOUNS.items() for pair in pairs for word in pair}
_VALUE = {word: value for value, words in ADJECTIVES.items() for word in words}
_LATER = {phrase.split()[-1]: value for value, phrases in AFTERWARDS.items() for phrase in phrases}
_AXIS = {value: name for name, values in ATTRIBUTES.items() for value in values}


def described(expression: str) -> dict[str, str]:
    """Attributes of the object that is named first: its noun, the adjectives before it, "with ..." right behind it."""
    words = expression.lower().replace(",", " ").split()
    place = next((number for number, word in enumerate(words) if word in _NOUN), len(words))
    attributes = {_AXIS[_VALUE[word]]: _VALUE[word] for word in words[:place] if word in _VALUE}
    if place < len(words) and _NOUN[words[place]]:
        attributes["shape"] = _NOUN[words[place]]
    if words[place + 1 : place + 2] == ["with"] and words[place + 2 : place + 3]:
        value = _LATER.get(words[place + 2])
        if value:
            attributes[_AXIS[value]] = value
    return attributes


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


@cache
def _sketched(text: str, side: int, grid: int) -> Tensor:
    return ThumbnailEncoder(grid)(SketchGenerator(side)([text], [prompt_seed(text)]))[0]


def sketch_priors(table: AnnotationTable, side: int = 64, grid: int = 4) -> dict[str, Tensor]:
    """The prior of every expression of ``table``, by its key, painted now: what a file of sketches would hold.

    Raises:
        UserError: if the table is not of RefShapes or made from it; no word of other datasets is known here.
    """
    sources = {"refshapes", "resvg-augmentation", "predict"}  # "predict": one expression of the user's
    strangers = set(table.arrow.column("source").unique().to_pylist()) - sources
    if strangers:
        raise UserError(
            f"method.priors=sketch knows the words of RefShapes only, not of {', '.join(sorted(strangers))}; "
            "make priors with `vgbench data priors generator=FOLDER encoder=FOLDER`"
        )
    keys, texts = (table.arrow.column(name).to_pylist() for name in ("key", "expression"))
    return {key: _sketched(prompt(text), side, grid) for key, text in zip(keys, texts, strict=True)}
