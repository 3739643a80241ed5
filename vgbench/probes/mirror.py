"""Mirror images, and left and right exchanged in the words alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from vgbench.data import rle
from vgbench.data.scene import SceneObject
from vgbench.data.table import Row
from vgbench.probes.base import Annotations, Expectation, LeftOut, Probe
from vgbench.probes.wording import exchange_sides, is_side, words

# "right" and "left" in another sense than a side
OTHER_SENSE = re.compile(
    r"\bright\s+(next|behind|in|at|by|under|above|below|on|beside|there|here|now|after|before|near|up|down|out|over"
    r"|through|where|beneath|against|outside|inside)\b|\ball\s+right\b|\bleft\s+(over|behind|alone|out)\b"
    r"|\b(is|was|been|has|have)\s+left\b(?!\s+(of|side|hand|most))"
)
# what a mirror turns although no word says left or right
WRITING = re.compile(
    r"\d|[\"“”]|\b(letters?|text|says?|said|reads?|reading|written|writing|numbers?|numbered|spelled|initials?"
    r"|clockwise|counterclockwise|east|west|eastern|western)\b"
)
ORDINAL = re.compile(r"\b(first|second|third|fourth|fifth|sixth|last|1st|2nd|3rd|4th|5th)\b")
SHORT = re.compile(r"\b(l|r|lft|rt|rgt)\b")


def check_sides(text: str) -> None:
    """
    Raises:
        LeftOut: if it is not sure that every left and right of a text is a side, and spelt out.
    """
    lower = text.lower()
    if not lower.isascii():
        raise LeftOut("letters that are not English")
    if OTHER_SENSE.search(lower):
        raise LeftOut("'left' or 'right' may not be a side")
    if SHORT.search(lower):
        raise LeftOut("an abbreviation may be a side")


class Mirror(Probe):
    """Image, boxes and masks flipped, left and right exchanged in the words."""

    name = "mirror"
    title = "mirror image"
    shows = (
        "the same question about the mirrored image, left and right exchanged in the words: a model that grounds is as "
        "good as before, and its answer is the mirror image of the plain one"
    )
    cannot = (
        "a model trained with flipped images has seen this. Expressions about writing, digits, compass points and "
        "ordinals without a side are left out, and so is 'right' that may be no side: the rest is easier than the whole"
    )
    kinds: ClassVar = {"": Expectation.FOLLOW}
    changes_images = True

    def question(self, row: Row, annotations: Annotations, random: np.random.Generator) -> Row:
        """Everything mirrored; raises LeftOut where the words may turn with the mirror in another way."""
        check_sides(row.expression)
        lower = row.expression.lower()
        if WRITING.search(lower):
            raise LeftOut("writing, digits or compass points, which a mirror turns")
        if ORDINAL.search(lower) and not any(map(is_side, words(lower))):
            raise LeftOut("an ordinal that may count from the left")
        return replace(
            row,
            expression=exchange_sides(row.expression),
            boxes=self.carried(row.boxes, row, row),
            masks=tuple(rle.encode(rle.decode(mask)[:, ::-1]) for mask in row.masks),
        )

    def picture(self, image: np.ndarray, row: Row, annotations: Annotations, random: np.random.Generator) -> np.ndarray:
        """The mirror image."""
        return image[:, ::-1]

    def carried(self, boxes: np.ndarray, row: Row, question: Row) -> np.ndarray:
        """Mirrored boxes."""
        flipped = np.array(boxes, dtype=np.float64)
        flipped[..., 0], flipped[..., 2] = row.width - boxes[..., 2], row.width - boxes[..., 0]
        return flipped


# Words that choose nothing among the objects of a kind.
_FILLING = frozenset(
    [
        "the",
        "a",
        "an",
        "on",
        "in",
        "at",
        "to",
        "of",
        "far",
        "most",
        "very",
        "all",
        "way",
        "side",
        "hand",
        "end",
        "one",
        "that",
        "is",
        "which",
        "object",
        "thing",
        "shape",
        "furthest",
        "farthest",
        "half",
    ]
)
_SUPERLATIVE = re.compile(r"\b(far|furthest|farthest|(left|right)most|(left|right)\s+most|most)\b")
_RELATION = re.compile(r"\b(left|right)(\s+(hand\s+)?side)?\s+of\b")
MARGIN = 0.08  # of the image's width: a difference of positions that decides is at least this clear


class Swap(Probe):
    """Left and right exchanged in the words only: another object of the same category is then meant."""

    name = "swap"
    title = "left and right swapped"
    shows = (
        "one word is changed and the image is not; geometry proves that another object of the same category is then "
        "meant. 'stuck' counts answers that stay where they were, 'both' expressions that are right before and after"
    )
    cannot = (
        "only plain expressions ('the left circle', 'dog on the far right') have a proof: the model is asked the "
        "easiest questions about sides there are. All objects of an image must be annotated"
    )
    kinds: ClassVar = {"": Expectation.MOVE}

    def question(self, row: Row, annotations: Annotations, random: np.random.Generator) -> Row:
        """The other side's object; raises LeftOut unless it is proved that it is meant."""
        check_sides(row.expression)
        lower = row.expression.lower()
        if sum(map(is_side, words(lower))) != 1:
            raise LeftOut("not exactly one word says left or right")
        if _RELATION.search(lower):
            raise LeftOut("a side of another object")
        target = annotations.target(row)
        candidates = self._candidates(row, annotations, lower)
        if target.id not in {item.id for item in candidates}:
            raise LeftOut("the target does not answer to its own words, as far as they are understood")
        other = _opposite(candidates, target, row.width, bool(_SUPERLATIVE.search(lower)), "left" in lower)
        if other.category != target.category:
            raise LeftOut("an object of another category would be meant")
        masks = () if not row.masks or other.mask is None else (other.mask,)
        if row.masks and not masks:
            raise LeftOut("the other object has no mask")
        return replace(
            row,
            expression=exchange_sides(row.expression),
            boxes=np.array([other.box], dtype=np.float64),
            masks=masks,
            polygons=row.polygons[: len(masks)],
            ann_ids=(other.id,) if row.ann_ids else (),
            categories=(other.category,) if row.categories else (),
        )

    def _candidates(self, row: Row, annotations: Annotations, lower: str) -> list[SceneObject]:
        """The objects that answer to all words but the side."""
        meanings = []
        for word in words(lower):
            if is_side(word) or word in _FILLING:
                continue
            meaning = annotations.lexicon.whole.get(word)
            if meaning is None:
                raise LeftOut("words beside the side whose meaning is not annotated")
            meanings.append(meaning)
        return annotations.answering(row, meanings)


def _opposite(
    candidates: Sequence[SceneObject], target: SceneObject, width: int, superlative: bool, from_left: bool
) -> SceneObject:
    """The object at the other end of a row of objects.

    Raises:
        LeftOut: if the target is not clearly at the end that is named, or the other end is not clear.
    """
    if len(candidates) < 2:
        raise LeftOut("no other object answers to the words")

    def place(item: SceneObject) -> float:
        middle = (item.box[0] + item.box[2]) / 2 / width
        return middle if from_left else 1 - middle

    ordered = sorted(candidates, key=place)
    places = [place(item) for item in ordered]
    if ordered[0].id != target.id or places[1] - places[0] < MARGIN:
        raise LeftOut("the target is not clearly at the end that is named")
    if places[-1] - places[-2] < MARGIN:
        raise LeftOut("no object is clearly at the other end")
    halves_agree = places[-1] > 0.5 + MARGIN and places[-2] < 0.5 - MARGIN
    if not (superlative or len(ordered) == 2 or halves_agree):
        raise LeftOut("several objects lie in the other half")
    return ordered[-1]
