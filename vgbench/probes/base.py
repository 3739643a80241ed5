"""What a probe is: a seeded, pure change of one expression and its image, with a known effect on the right answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum
from typing import ClassVar

import numpy as np

from vgbench.core.errors import UserError
from vgbench.data.table import Row
from vgbench.probes.annotations import Annotations, LeftOut

__all__ = ["Annotations", "Expectation", "LeftOut", "Probe"]


class Expectation(str, Enum):
    """How the answer to a changed question is judged."""

    FOLLOW = "follow"  # the target moves with the picture, and so must the answer
    STAY = "stay"  # the target is the same, and so must be the answer
    MOVE = "move"  # another object is meant
    REJECT = "reject"  # nothing is meant
    LOSE = "lose"  # what the answer rests on is gone: one that is still right was not read off it
    SAME = "same"  # nothing is changed: the plain answer is looked at again


class Probe(ABC):
    """A probe, in one of its kinds and severities.

    A subclass is registered in the entry-point group ``vgbench.probes`` under its :attr:`name`. It depends on nothing
    but its arguments: the same seed makes the same questions, in whatever order and process.

    Args:
        kind: one of :attr:`kinds`.
        level: severity from 1 (weak) to :attr:`levels`; None where there are none.

    Attributes:
        name: what is typed.
        title: for tables.
        shows, cannot: the card: what its numbers show, and what they cannot.
        kinds: name -> how its answers are judged; the only one of most probes is called "".
        levels: number of severities, 0 if there are none.
        changes_images: :meth:`picture` does something.
        proves_by_scenes: it needs all objects of an image (:meth:`Annotations.objects`).

    Raises:
        UserError: if there is no such kind or severity.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    shows: ClassVar[str]
    cannot: ClassVar[str]
    kinds: ClassVar[Mapping[str, Expectation]]
    levels: ClassVar[int] = 0
    changes_images: ClassVar[bool] = False

    def __init__(self, kind: str = "", level: int | None = None) -> None:
        if kind not in self.kinds:
            choices = ", ".join(f"{self.name}:{name}" if name else self.name for name in self.kinds)
            raise UserError(f"probe {self.name}:{kind}: no such kind; there are: {choices}")
        if (level is None) != (self.levels == 0) or (level is not None and not 1 <= level <= self.levels):
            levels = f"severities are @1 to @{self.levels}" if self.levels else "it has no severities"
            raise UserError(f"probe {self.name}{f':{kind}' * bool(kind)}@{level}: {levels}")
        self.kind, self.level = kind, level

    @property
    def spec(self) -> str:
        """What is typed and stored: ``mirror``, ``words:typos``, ``image:jpeg_compression@3``."""
        return self.name + f":{self.kind}" * bool(self.kind) + ("" if self.level is None else f"@{self.level}")

    @property
    def expectation(self) -> Expectation:
        """How its answers are judged."""
        return self.kinds[self.kind]

    @abstractmethod
    def question(self, row: Row, annotations: Annotations, random: np.random.Generator) -> Row:
        """The changed expression with its right answer; the key stays.

        Raises:
            LeftOut: if the effect on this expression cannot be proved.
        """

    def picture(self, image: np.ndarray, row: Row, annotations: Annotations, random: np.random.Generator) -> np.ndarray:
        """The image of a question, uint8 RGB [H', W', 3], from the original one [H, W, 3] and the plain ``row``."""
        return image

    def carried(self, boxes: np.ndarray, row: Row, question: Row) -> np.ndarray:
        """Where boxes [..., 4] of the plain image lie in that of the question."""
        return boxes
