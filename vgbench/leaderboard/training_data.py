"""What is said of the training data of models that were trained elsewhere, as it stands in training_data.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from vgbench.leaderboard.names import plain_name

NOT_KNOWN = "not known whether images of the split were trained on"


class Statement(NamedTuple):
    """One line of training_data.csv: what is said of the models whose names begin in this way."""

    model: str
    training_data: str
    source: str

    def __str__(self) -> str:
        return f"training data: {self.training_data} ({self.source})"


@cache
def statements() -> tuple[Statement, ...]:
    """The lines of the file in the package."""
    text = (files("vgbench.leaderboards") / "training_data.csv").read_text(encoding="utf-8")
    return tuple(Statement(**line) for line in csv.DictReader(io.StringIO(text)))


def statement_of(names: Iterable[str]) -> Statement | None:
    """What is said of a model that is called by one of these names; None: nothing that we know of.

    "Florence-2-large-ft" is not "Florence-2-large": the longest name that fits is meant.
    """
    plain_names = [plain_name(name) for name in names]
    fitting = [one for one in statements() if any(name.startswith(plain_name(one.model)) for name in plain_names)]
    return max(fitting, key=lambda one: len(plain_name(one.model)), default=None)
