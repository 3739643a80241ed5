"""The plain questions again, by what stands beside the target."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from vgbench.data.table import Row
from vgbench.probes.base import Annotations, Expectation, LeftOut, Probe


class Distractors(Probe):
    """Nothing is changed: accuracy by the number of objects of the target's category, and kinds of errors."""

    name = "distractors"
    title = "distractors"
    shows = (
        "accuracy by the number of other objects of the target's category, beside the chance of picking one of them "
        "('chance'); and what errors are: the wrong object of the right category, one of another category, the right "
        "object with a loose box, a place where nothing is annotated, no answer"
    )
    cannot = (
        "an expression with many distractors is harder in other ways, too: the curve is no experiment. All objects of "
        "an image must be annotated"
    )
    kinds: ClassVar = {"": Expectation.SAME}

    def question(self, row: Row, annotations: Annotations, random: np.random.Generator) -> Row:
        """The row itself; raises LeftOut where its image's objects are not all annotated."""
        if len(row.boxes) != 1:
            raise LeftOut("not exactly one target")
        annotations.peers(row)
        return row
