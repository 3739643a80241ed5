"""Which objects of a scene are referred to in each flavour, and by which logical forms.

A target is chosen first, then forms are proposed at random and kept only if they denote it and nothing else.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache

from vgbench.datasets.refshapes.language import (
    RELATIONS,
    SIDE_AFTER,
    Logic,
    Speaker,
    as_typed,
    denote,
)
from vgbench.datasets.refshapes.scene import ATTRIBUTES, Scene

FLAVOURS = ("refshapes", "refshapes+", "refshapesg", "grefshapes")
MENTIONED = {"shape": 0.6, "colour": 0.85, "texture": 0.35, "size": 0.15}  # how readily an attribute is mentioned
SUBSETS = [names for count in range(5) for names in itertools.combinations(MENTIONED, count)]
TRIES = 25


@dataclass
class Ref:
    """What one entry of a refs file says: target indices (none: no target) and (logical form, raw text) pairs."""

    targets: tuple[int, ...]
    sentences: list[tuple[Logic, str]]


def describable(scene: Scene, shapes: Collection[str]) -> list[int]:
    """Objects of the given ``shapes`` that attributes alone single out."""
    return [index for index, item in enumerate(scene.objects) if item.shape in shapes and _unique(scene, index)]


def refer(flavour: str, scene: Scene, rng: random.Random, shapes: Collection[str]) -> list[Ref]:
    """The refs of a scene; only objects of the given ``shapes`` become targets."""
    allowed = [index for index, item in enumerate(scene.objects) if item.shape in shapes]
    if flavour == "grefshapes":
        return _general(scene, rng, frozenset(allowed), shapes)
    return _single(flavour, scene, rng, allowed, ref_count=rng.choices((2, 3, 4), (1, 2, 1))[0])


def _single(flavour: str, scene: Scene, rng: random.Random, allowed: list[int], ref_count: int) -> list[Ref]:
    refs: list[Ref] = []
    for target in rng.sample(allowed, len(allowed)):
        if len(refs) == ref_count:
            break
        amount = 2 if flavour == "refshapesg" else rng.choice((2, 3, 3))
        sentences = _sentences(
            (_propose(flavour, scene, target, rng) for _ in range(3 * amount)), amount, rng, flavour == "refshapesg"
        )
        if sentences:
            refs.append(Ref((target,), sentences))
    return refs


def _sentences(
    forms: Iterable[Logic | None], amount: int, rng: random.Random, formal: bool = False
) -> list[tuple[Logic, str]]:
    """Put up to ``amount`` forms into words; the same words are not used twice."""
    texts: dict[str, tuple[Logic, str]] = {}
    for form in forms:
        if len(texts) == amount:
            break
        if form is not None:
            text = Speaker(rng, formal).say(form)
            texts.setdefault(text, (form, as_typed(text, rng)))
    return list(texts.values())


def _propose(flavour: str, scene: Scene, target: int, rng: random.Random) -> Logic | None:
    kind = rng.random()
    if flavour == "refshapes+":
        return described(scene, target, rng)
    if flavour == "refshapesg":
        if kind < 0.7:
            return related(scene, target, rng)
        return located(scene, target, rng) if kind < 0.85 else described(scene, target, rng, extra=1.0)
    return located(scene, target, rng) if kind < 0.6 else described(scene, target, rng)


def described(scene: Scene, target: int, rng: random.Random, extra: float = 0.25) -> Logic | None:
    """A description by attributes alone. ``extra``: how readily one says more than needed."""
    unique = _unique(scene, target)
    if not unique:
        return None
    weights = [weight if minimal else weight * extra for _, weight, minimal in unique]
    return _is(scene.objects[target].attributes, rng.choices(unique, weights)[0][0])


@lru_cache(maxsize=16)
def _unique(scene: Scene, target: int) -> list[tuple[tuple[str, ...], float, bool]]:
    """Sets of attributes that single an object out, how readily they are mentioned, and whether all are needed."""
    attributes = scene.objects[target].attributes
    names_weights: list[tuple[tuple[str, ...], float, bool]] = []
    for names in SUBSETS:  # small ones first
        if denote(_is(attributes, names), scene) == {target}:
            weight = math.prod(likely if name in names else 1 - likely for name, likely in MENTIONED.items())
            minimal = not any(set(other) < set(names) for other, _, _ in names_weights)
            names_weights.append((names, weight, minimal))
    return names_weights


def located(scene: Scene, target: int, rng: random.Random) -> Logic | None:
    """A description with an absolute location."""
    attributes = scene.objects[target].attributes
    for _ in range(TRIES):
        peers = _is(attributes, _mention(rng, 0.75))
        count = len(denote(peers, scene) or ())
        if rng.random() < 0.5:
            form = ["most", rng.choice(("left", "right", "top", "bottom")), peers]
            needed = count > 1
        else:
            form = ["side", rng.choice(tuple(SIDE_AFTER)), peers]
            needed = count > 1 or rng.random() < 0.15
        if needed and denote(form, scene) == {target}:
            return form
    return None


def related(scene: Scene, target: int, rng: random.Random) -> Logic | None:
    """A description by the relation to another object, which is described by its attributes."""
    attributes = scene.objects[target].attributes
    others = [index for index in range(len(scene.objects)) if index != target]
    for _ in range(TRIES):
        anchor = rng.choice(others)
        relation = rng.choices(tuple(RELATIONS), (4, 4, 4, 4, 3, 4, 4))[0]
        if not _natural(scene, relation, target, anchor):
            continue
        peers = _is(attributes, _mention(rng, 1.0) or ("shape",))
        count = len(denote(peers, scene) or ())
        name = described(scene, anchor, rng, extra=0.1)
        if name is None or (count == 1 and rng.random() < 0.75):
            continue
        form = ["relation", relation, peers, name]
        if denote(form, scene) == {target}:
            return form
    return None


def _natural(scene: Scene, relation: str, target: int, anchor: int) -> bool:
    """Nobody says "left of" for what is mostly above."""
    (x, y), (anchor_x, anchor_y) = scene.centres[target], scene.centres[anchor]
    across, down = abs(x - anchor_x), abs(y - anchor_y)
    if relation in ("left", "right"):
        return across >= down
    return down >= across if relation in ("top", "bottom") else True


def _is(attributes: dict[str, str], names: Iterable[str]) -> Logic:
    return ["is", {name: attributes[name] for name in ATTRIBUTES if name in names}]


def _mention(rng: random.Random, readiness: float) -> tuple[str, ...]:
    return tuple(name for name, likely in MENTIONED.items() if rng.random() < likely * readiness)


def _general(scene: Scene, rng: random.Random, allowed: frozenset[int], shapes: Collection[str]) -> list[Ref]:
    """One or two single targets as in ``refshapes``, one or two groups, one or two descriptions of nothing."""
    refs = _single("refshapes", scene, rng, sorted(allowed), ref_count=rng.choice((1, 2)))
    seen: set[frozenset[int]] = set()
    for _ in range(rng.choice((1, 2, 2))):
        form = several(scene, rng, allowed)
        targets = denote(form, scene) if form is not None else None
        if form is not None and targets and targets not in seen:
            seen.add(targets)
            sentences = _sentences(itertools.repeat(form, 4), 2, rng)
            refs.append(Ref(tuple(sorted(targets)), sentences))
    for _ in range(rng.choice((1, 1, 2))):
        sentences = _sentences((nothing(scene, rng, shapes) for _ in range(4)), 2, rng)
        if sentences:
            refs.append(Ref((), sentences))
    return refs


def several(scene: Scene, rng: random.Random, allowed: frozenset[int]) -> Logic | None:
    """An expression for two or more objects, all of them in ``allowed``."""
    for _ in range(TRIES):
        kind = rng.random()
        peers = _is(rng.choice(scene.objects).attributes, _mention(rng, 0.6))
        group = denote(peers, scene) or frozenset()
        form: Logic | None = None
        if kind < 0.45:
            counted = 2 <= len(group) <= 5 and rng.random() < 0.5
            form = ["count", len(group), peers] if counted else ["every", peers]
        elif kind < 0.6:
            form = ["every", ["side", rng.choice(tuple(SIDE_AFTER)), peers]]
        elif kind < 0.72 and len(group) >= 3:
            left_out = described(scene, rng.choice(sorted(group)), rng)
            form = ["except", ["every", peers], left_out] if left_out else None
        elif kind >= 0.72:
            parts = [part for part in (_part(scene, rng) for _ in range(rng.choice((2, 2, 2, 3)))) if part]
            referents = [denote(part, scene) or frozenset() for part in parts]
            apart = len(parts) > 1 and all(referents) and sum(map(len, referents)) == len(frozenset().union(*referents))
            form = ["and", *parts] if apart else None
        targets = denote(form, scene) if form else None
        if targets and 2 <= len(targets) < len(scene.objects) and targets <= allowed:
            return form
    return None


def _part(scene: Scene, rng: random.Random) -> Logic | None:
    """What can be one part of an enumeration: mostly a single object."""
    target = rng.randrange(len(scene.objects))
    if rng.random() < 0.8:
        return described(scene, target, rng, extra=0.1)
    return ["every", _is(scene.objects[target].attributes, _mention(rng, 0.6) or ("colour",))]


def nothing(scene: Scene, rng: random.Random, shapes: Collection[str]) -> Logic | None:
    """An expression that nothing in the scene answers to, although something nearly does."""
    present = {name: [getattr(item, name) for item in scene.objects] for name in ATTRIBUTES}
    for _ in range(TRIES):
        item = rng.choice(scene.objects)
        names = _mention(rng, 1.0)
        kind = rng.random()
        form: Logic
        if kind < 0.65:  # one attribute is another one's
            if not names:
                continue
            attributes, changed = dict(item.attributes), rng.choice(names)
            choice = present[changed] if rng.random() < 0.75 else ATTRIBUTES[changed]
            attributes[changed] = rng.choice(choice)
            form = _is(attributes, names)
            plural = rng.random()
            if plural < 0.12:
                form = ["every", form]
            elif plural < 0.2:
                form = ["count", 2, form]
            if denote(["is", _attributes(form)], scene):
                continue
        elif kind < 0.85:  # somewhere else
            peers = _is(item.attributes, names or ("shape",))
            if len(denote(peers, scene) or ()) != 1:  # of two, the one nearer to that side might be meant
                continue
            form = ["side", rng.choice(tuple(SIDE_AFTER)), peers]
        else:
            anchor = rng.randrange(len(scene.objects))
            name = described(scene, anchor, rng, extra=0.1)
            relation = rng.choice(("left", "right", "top", "bottom", "front", "behind"))
            peers = _is(item.attributes, names or ("shape",))
            if name is None or not (denote(peers, scene) or frozenset()) - {anchor}:
                continue
            form = ["relation", relation, peers, name]
        shape = _attributes(form).get("shape")
        if (shape is None or shape in shapes) and denote(form, scene) == frozenset():
            return form
    return None


def _attributes(form: Logic) -> dict[str, str]:
    """The attributes of what a form is about."""
    while form[0] != "is":
        form = form[1] if form[0] == "every" else form[2]
    return form[1]
