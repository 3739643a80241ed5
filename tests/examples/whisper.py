"""A probe in a file: expressions in lower case, without their article (``vgbench stress --plugin whisper.py``)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from vgbench.data.table import Row
from vgbench.probes.base import Annotations, Expectation, LeftOut, Probe


class Whisper(Probe):
    """The answer must stay."""

    name = "whisper"
    title = "whispered"
    shows = "whether a model needs capitals and articles to know what is meant"
    cannot = "expressions that have neither are left out"
    kinds: ClassVar = {"": Expectation.STAY}

    def question(self, row: Row, annotations: Annotations, random: np.random.Generator) -> Row:
        """The expression in lower case; raises LeftOut where that changes nothing."""
        text = row.expression.lower().removeprefix("the ")
        if text == row.expression:
            raise LeftOut("neither capitals nor an article")
        return replace(row, expression=text)
