"""A picture of what an expression names: what a text-to-image model does, for the words of RefShapes."""

from __future__ import annotations

import random

import numpy as np

from vgbench.datasets.refshapes.language import ADJECTIVES, AFTERWARDS, NOUNS
from vgbench.datasets.refshapes.render import paint
from vgbench.datasets.refshapes.scene import ATTRIBUTES, Object, Scene

__all__ = ["described", "sketch"]

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


def sketch(expression: str, side: int, seed: int) -> np.ndarray:
    """The described object, large in the middle; what the expression leaves open is left to chance.

    Args:
        expression: any text; of words that are not RefShapes' it makes an object of chance.
        side: width and height of the picture in pixels.
        seed: of the chance.

    Returns:
        uint8 RGB [side, side, 3].
    """
    rng = random.Random(seed)
    attributes = {name: rng.choice(values) for name, values in ATTRIBUTES.items()} | described(expression)
    radius = side * (0.22 if attributes["size"] == "small" else 0.38)
    item = Object(
        attributes["shape"], attributes["colour"], attributes["size"], attributes["texture"], radius, angle=0.0
    )
    corner = (side - len(item.solid)) // 2
    item.corner = (corner, corner)
    return paint(Scene(side, [item], np.full((side, side), -1, np.int8)), rng)
