"""Grey patches over the target or over what could be taken for it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from vgbench.data import rle
from vgbench.data.table import Row
from vgbench.probes.base import Annotations, Expectation, LeftOut, Probe

COVER = (0.2, 0.4, 0.6, 0.8, 1.0)  # share of the target's pixels that is covered


def pixels(box: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool [height, width]: the pixels of an xyxy box, rounded to whole pixels."""
    area = np.zeros((height, width), dtype=bool)
    left, top, right, bottom = (max(round(float(edge)), 0) for edge in box)
    area[top:bottom, left:right] = True
    return area


class TargetOcclusion(Probe):
    """The target covered, from one side on, in five steps up to all of it."""

    name = "cover_target"
    title = "target covered"
    shows = (
        "does the model look at the target? The more of it is covered, the less should be right. What is still right "
        "when all of it is covered (@5) was found by the rest of the image, or by the patch itself"
    )
    cannot = (
        "a grey patch is a hint by itself: it lies where the target is. The numbers are to be read beside those of "
        "'cover_others', where patches lie on other objects"
    )
    kinds: ClassVar = {"": Expectation.LOSE}
    levels = len(COVER)
    changes_images = True

    def question(self, row: Row, annotations: Annotations, random: np.random.Generator) -> Row:
        """The same question."""
        if len(row.boxes) != 1:
            raise LeftOut("not exactly one target")
        return row

    def picture(self, image: np.ndarray, row: Row, annotations: Annotations, random: np.random.Generator) -> np.ndarray:
        """A grey strip over the target's box, as wide as it takes to cover the share of its mask (else of its box)."""
        assert self.level is not None
        height, width = image.shape[:2]
        box = pixels(row.boxes[0], height, width)
        target = rle.decode(row.masks[0]) & box if row.masks else box
        if not target.any():
            target = box
        along = 1 - int(random.integers(2))  # rows or columns
        from_end = bool(random.integers(2))
        lines = target.sum(along)
        covered = np.cumsum(lines[::-1] if from_end else lines)
        count = int(np.searchsorted(covered, COVER[self.level - 1] * target.sum() - 1e-9)) + 1
        strip = np.arange(len(lines)) < count
        strip = strip[::-1] if from_end else strip
        cover = box & (strip[:, None] if along else strip[None])
        return filled(image, cover)


class DistractorOcclusion(Probe):
    """Every other object of the target's category covered."""

    name = "cover_others"
    title = "distractors covered"
    shows = (
        "the other objects of the target's category are covered by grey patches, the target's own pixels are not: the "
        "answer must stay, and wrong objects of the category are no longer there to be chosen"
    )
    cannot = (
        "expressions that compare with what is covered ('the second from left') become odd: those with ordinals are "
        "left out, other comparisons are not seen. All objects of an image must be annotated"
    )
    kinds: ClassVar = {"": Expectation.STAY}
    changes_images = True

    def question(self, row: Row, annotations: Annotations, random: np.random.Generator) -> Row:
        """The same question; raises LeftOut where there is nothing to cover."""
        from vgbench.probes.mirror import ORDINAL

        if ORDINAL.search(row.expression.lower()):
            raise LeftOut("an ordinal that counts what would be covered")
        if not annotations.peers(row):
            raise LeftOut("no other object of the category")
        return row

    def picture(self, image: np.ndarray, row: Row, annotations: Annotations, random: np.random.Generator) -> np.ndarray:
        """Grey patches over the boxes of the others."""
        height, width = image.shape[:2]
        cover = np.zeros((height, width), dtype=bool)
        for item in annotations.peers(row):
            cover |= pixels(np.array(item.box), height, width)
        own = rle.decode(row.masks[0]) if row.masks else pixels(row.boxes[0], height, width)
        return filled(image, cover & ~own)


def filled(image: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """The image with its mean colour over the pixels of ``cover``."""
    patched = image.copy()
    patched[cover] = image.reshape(-1, 3).mean(0).round().astype(np.uint8)
    return patched
