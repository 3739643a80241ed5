"""Expressions: logical forms, what they denote in a scene, and how people might write them.

A logical form is a nested list, kept as JSON beside the annotations. ``D`` stands for a description (of one object or
of several alike), ``E`` for a whole expression:

    D = ["is", {attribute: value, ...}]          objects with these attributes (none given: any object)
        ["side", PLACE, D]                       those of D in a part of the image
        ["most", DIRECTION, D]                   the one of D furthest to the left, right, top or bottom
        ["relation", RELATION, D, A]             those of D that stand in a relation to the one object A denotes
    E = D                                        exactly one object, or none if the expression has no target
        ["every", D]  ["count", N, D]            all of D; all N of D (nothing, if there are not N)
        ["and", E, E, ...]  ["except", E, D]     union; difference

Positions are centres of the boxes of visible regions; a side is a half of the image, a corner a quarter, the middle
a square of 0.36 of the image side. What is true only by a hair is never said: see :func:`denote`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from vgbench.datasets.refshapes.scene import Scene

Logic = list[Any]

MARGIN = 0.08  # of the image side: every comparison of positions that an expression rests on is at least this clear
MIDDLE = 0.18  # half side of the middle
COVERED = 0.002  # of the image area: objects that cover less than this of another are said neither to nor not to


class _Unclear(Exception):
    """A comparison is within its margin."""


def denote(logic: Logic, scene: Scene) -> frozenset[int] | None:
    """The objects of ``scene`` that ``logic`` stands for, as indices.

    None if that is unclear: a comparison that decides about any object is closer than :data:`MARGIN`, or the object
    that others are related to is not unique.
    """
    try:
        return _denote(logic, scene)
    except _Unclear:
        return None


def _denote(logic: Logic, scene: Scene) -> frozenset[int]:
    kind = logic[0]
    if kind == "is":
        return _alike(scene, tuple(logic[1].items()))
    if kind == "every":
        return _denote(logic[1], scene)
    if kind == "count":
        objects = _denote(logic[2], scene)
        return objects if len(objects) == logic[1] else frozenset()
    if kind == "and":
        return frozenset().union(*(_denote(part, scene) for part in logic[1:]))
    if kind == "except":
        return _denote(logic[1], scene) - _denote(logic[2], scene)
    objects = _denote(logic[2], scene)
    if kind == "side":
        return frozenset(index for index in objects if _clear(_inside(logic[1], scene, index)))
    if kind == "most":
        return _best(objects, lambda index: _towards(logic[1], scene, index))
    anchors = _denote(logic[3], scene)
    if len(anchors) != 1:
        raise _Unclear
    (anchor,) = anchors
    others = objects - anchors
    relation = logic[1]
    if relation == "near":
        x, y = scene.centres[anchor]
        return _best(others, lambda i: -math.dist(scene.centres[i], (x, y)) / scene.side)
    if relation in ("front", "behind"):
        return frozenset(i for i in others if _covering(scene, *((i, anchor) if relation == "front" else (anchor, i))))
    return frozenset(i for i in others if _clear(_towards(relation, scene, i) - _towards(relation, scene, anchor)))


@lru_cache(maxsize=512)
def _alike(scene: Scene, wanted: tuple[tuple[str, str], ...]) -> frozenset[int]:
    return frozenset(index for index, item in enumerate(scene.objects) if set(wanted) <= item.attributes.items())


def _towards(direction: str, scene: Scene, index: int) -> float:
    x, y = scene.centres[index]
    return {"left": -x, "right": x, "top": -y, "bottom": y}[direction] / scene.side


def _inside(place: str, scene: Scene, index: int) -> float:
    """How far inside a part of the image an object's centre lies (negative: outside), in image sides."""
    if place == "middle":
        return MIDDLE - max(abs(value / scene.side - 0.5) for value in scene.centres[index])
    half = {"left": -0.5, "right": 0.5, "top": -0.5, "bottom": 0.5}
    return min(_towards(side, scene, index) - half[side] for side in place.split())


def _clear(difference: float) -> bool:
    if abs(difference) < MARGIN:
        raise _Unclear
    return difference > 0


def _best(objects: frozenset[int], value: Callable[[int], float]) -> frozenset[int]:
    if not objects:
        return objects
    ranked = sorted(objects, key=value, reverse=True)
    if len(ranked) > 1:
        _clear(value(ranked[0]) - value(ranked[1]))
    return frozenset(ranked[:1])


def _covering(scene: Scene, front: int, back: int) -> bool:
    hidden = scene.covers.get((front, back), 0)
    if 0 < hidden < COVERED * scene.side**2:
        raise _Unclear
    return hidden > 0


# The first way to say something is the usual one. No word holds "left" or "right" together with something else
# ("leftmost"), and neither is used in another sense: a mirrored image needs nothing but the two words exchanged.

NOUNS = {  # singular, plural
    "circle": [("circle", "circles"), ("disc", "discs"), ("ball", "balls")],
    "ring": [("ring", "rings"), ("donut", "donuts"), ("hoop", "hoops")],
    "square": [("square", "squares"), ("box", "boxes"), ("block", "blocks")],
    "triangle": [("triangle", "triangles")],
    "cross": [("cross", "crosses"), ("plus", "pluses")],
    "": [("object", "objects"), ("shape", "shapes"), ("thing", "things")],
}
ADJECTIVES = {
    "red": ["red"],
    "yellow": ["yellow"],
    "green": ["green"],
    "blue": ["blue"],
    "purple": ["purple", "violet"],
    "white": ["white"],
    "small": ["small", "little", "tiny"],
    "large": ["large", "big", "huge"],
    "plain": ["plain", "solid"],
    "striped": ["striped", "stripy"],
}
AFTERWARDS = {"striped": ["with stripes", "with lines"]}
MOST_BEFORE = {
    "left": ["left", "far left"],
    "right": ["right", "far right"],
    "top": ["top", "highest", "upper"],
    "bottom": ["bottom", "lowest", "lower"],
}
MOST_AFTER = {
    "left": ["on the far left", "furthest left"],
    "right": ["on the far right", "furthest right"],
    "top": ["furthest up", "closest to the top"],
    "bottom": ["furthest down", "closest to the bottom"],
}
SIDE_AFTER = {
    "left": ["on the left", "on left", "on the left side", "in the left half"],
    "right": ["on the right", "on right", "on the right side", "in the right half"],
    "top": ["at the top", "at top", "in the upper half"],
    "bottom": ["at the bottom", "at bottom", "in the lower half"],
    "middle": ["in the middle", "in the center", "in middle"],
    "top left": ["at the top left", "in the upper left", "at top left"],
    "top right": ["at the top right", "in the upper right", "at top right"],
    "bottom left": ["at the bottom left", "in the lower left", "at bottom left"],
    "bottom right": ["at the bottom right", "in the lower right", "at bottom right"],
}
SIDE_BEFORE = {
    "middle": ["middle", "center"],
    "top left": ["top left", "upper left"],
    "top right": ["top right", "upper right"],
    "bottom left": ["bottom left", "lower left"],
    "bottom right": ["bottom right", "lower right"],
}
RELATIONS = {
    "left": ["to the left of", "left of", "on the left side of"],
    "right": ["to the right of", "right of", "on the right side of"],
    "top": ["above", "higher than"],
    "bottom": ["below", "under", "lower than"],
    "near": ["closest to", "nearest to"],
    "front": ["in front of", "partly covering"],
    "behind": ["behind", "partly hidden by"],
}
LINKS = ["", "that is", "which is"]
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
TEMPLATES = ["the", "a", "an", "one", "ones", "all", "all the", "all of the", "both", "every", "and", "except", "but"]


def vocabulary() -> list[str]:
    """Every word that an expression of any flavour may hold, lower case, sorted."""
    texts: list[str] = [*LINKS, *NUMBERS.values(), *TEMPLATES]
    texts += [word for forms in NOUNS.values() for pair in forms for word in pair]
    for table in (ADJECTIVES, AFTERWARDS, MOST_BEFORE, MOST_AFTER, SIDE_AFTER, SIDE_BEFORE, RELATIONS):
        texts += [text for forms in table.values() for text in forms]
    return sorted({word for text in texts for word in text.split()})


def _usual(rng: random.Random, forms: Sequence[Any]) -> Any:
    return forms[0] if rng.random() < 0.55 else rng.choice(forms)


class Speaker:
    """Words for logical forms. ``formal``: whole phrases with articles (RefCOCOg), otherwise as typed in a hurry."""

    def __init__(self, rng: random.Random, formal: bool = False) -> None:
        self.rng = rng
        self.formal = formal

    def say(self, logic: Logic) -> str:
        """Words of a logical form, lower case, without punctuation except commas in enumerations."""
        kind = logic[0]
        if kind == "every":
            return self._every(logic[1])
        if kind == "count":
            phrase = self._noun_phrase(logic[2], plural=True)
            number = NUMBERS[logic[1]]
            if logic[1] == 2 and self.rng.random() < 0.5:
                return f"both {phrase}"
            return f"the {number} {phrase}" if self.rng.random() < 0.5 else f"{number} {phrase}"
        if kind == "and":
            parts = [self.say(part) for part in logic[1:]]
            return f"{', '.join(parts[:-1])} and {parts[-1]}"
        if kind == "except":
            return f"{self.say(logic[1])} {self.rng.choice(('except', 'but'))} the {self._noun_phrase(logic[2])}"
        phrase = self._noun_phrase(logic)
        definite = self.rng.random() < (0.7 if self.formal else 0.2)
        if definite or (self.formal and logic[0] == "most"):
            return f"the {phrase}"
        if self.formal:
            return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"
        return phrase

    def _every(self, description: Logic) -> str:
        plural = self._noun_phrase(description, plural=True)
        kind = self.rng.random()
        if kind < 0.15:
            return f"every {self._noun_phrase(description)}"
        if kind < 0.35:
            return plural
        return f"{_usual(self.rng, ('all', 'all the', 'all of the'))} {plural}"

    def _noun_phrase(self, logic: Logic, plural: bool = False) -> str:
        before: list[str] = []
        after: list[str] = []
        anchor: Logic | None = None
        while logic[0] != "is":
            if logic[0] == "most":
                early = self.rng.random() < 0.75
                table = MOST_BEFORE if early else MOST_AFTER
                (before if early else after).append(_usual(self.rng, table[logic[1]]))
            elif logic[0] == "side":
                early = not plural and logic[1] in SIDE_BEFORE and self.rng.random() < 0.5
                table = SIDE_BEFORE if early else SIDE_AFTER
                (before if early else after).append(_usual(self.rng, table[logic[1]]))
            else:
                link = self.rng.choice(LINKS) if self.formal else ""
                after.append(f"{link} {_usual(self.rng, RELATIONS[logic[1]])} the".strip())
                anchor = logic[3]
            logic = logic[2]
        described = self._described(logic[1], plural, bool(before))
        phrase = " ".join(part for part in (*before, described, *after) if part)
        if anchor is not None:
            phrase = f"{phrase} {self._noun_phrase(anchor)}"
        return phrase

    def _described(self, attributes: dict[str, str], plural: bool, placed: bool) -> str:
        rng = self.rng
        texture = attributes.get("texture", "")
        late = texture in AFTERWARDS and rng.random() < 0.3
        order = ["size", "texture", "colour"] if rng.random() < 0.7 else ["size", "colour", "texture"]
        words = [
            _usual(rng, ADJECTIVES[attributes[name]])
            for name in order
            if name in attributes and not (name == "texture" and late)
        ]
        shape = attributes.get("shape", "")
        if not attributes and placed and not self.formal and rng.random() < 0.3:
            return ""
        if not shape and (words or placed) and rng.random() < 0.45:
            words.append("ones" if plural else "one")
        else:
            words.append(_usual(rng, NOUNS[shape])[plural])
        if late:
            words.append(_usual(rng, AFTERWARDS[texture]))
        return " ".join(words)


def as_typed(text: str, rng: random.Random) -> str:
    """``text`` with the capitals and full stops of crowd workers."""
    kind = rng.random()
    if kind < 0.08:
        text = text[0].upper() + text[1:]
    elif kind < 0.11:
        text = text.upper()
    return f"{text}." if rng.random() < 0.08 else text
