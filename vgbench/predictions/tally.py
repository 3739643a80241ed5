"""How a model's words were read, counted for the notes of a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from vgbench.predictions.styles.denials import Silence

READABLE = 0.05  # share of the expressions with a target whose answers hold a box or a point, at least
FEW = 3  # of fewer answers the share says nothing
SEVERAL_BOXES = "answers hold several boxes: the first one is judged, or state several=first, last, union or any"


@dataclass
class Tally:
    """Counts of what answers in words were, with an example of each kind.

    Attributes:
        targets: number of targets of every expression of the split.
        holding: expressions whose answer holds a box or a point.
        answers: number of answers.
    """

    targets: Sequence[int]
    holding: set[int] = field(default_factory=set)
    answers: int = 0
    _without: dict[str, dict[int, str]] = field(default_factory=dict)
    _doubts: Counter[str] = field(default_factory=Counter)
    _examples: dict[str, str] = field(default_factory=dict)

    def add(
        self, row: int, words: str, place: str, spots: bool, silence: Silence | None, doubts: Sequence[str]
    ) -> None:
        """Count an answer.

        Args:
            row: of the split's table.
            words: of the model.
            place: where they stand, for the example ("entry 3").
            spots: whether it holds a box or a point.
            silence: what it says where it holds none.
            doubts: kinds of doubt about how it was read.
        """
        self.answers += 1
        example = f"{place}: {short(words)}"
        if spots:
            self.holding.add(row)
        else:
            self._without.setdefault(silence or ("unreadable" if words.strip() else "empty"), {})[row] = example
        for doubt in doubts:
            self.doubt(doubt, example)

    def doubt(self, kind: str, example: str) -> None:
        """Count a doubt."""
        self._doubts[kind] += 1
        self._examples.setdefault(kind, example)

    @property
    def unreadable(self) -> list[int]:
        """Rows whose words hold neither a box nor a refusal."""
        return sorted(self._without.get("unreadable", ()))

    @property
    def example(self) -> str:
        """An answer without a box: of those that could not be read, if there are any."""
        for kind in ("unreadable", "refusal", "denial", "empty"):
            for example in self._without.get(kind, {}).values():
                return example
        return ""

    @property
    def hardly_read(self) -> bool:
        """Whether so few answers hold a box that another field or style must be meant."""
        wanted = sum(count > 0 for count in self.targets)
        return self.answers >= FEW and wanted > 0 and len(self.holding) < READABLE * wanted

    def notes(self) -> list[str]:
        """What a reader of the record has to know."""
        kinds = {"unreadable": "unreadable", "empty": "empty", "refusal": "refusals"}
        counts = {name: len(self._without.get(kind, {})) for kind, name in kinds.items()}
        unread = [row for kind in kinds for row in self._without.get(kind, {})]
        denials = self._without.get("denial", {})
        notes = []
        if unread:
            named = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
            notes.append(f"{self._share(unread)} cannot be read ({named}) and count as no box; e.g. {self.example}")
        if denials:
            notes.append(f"{self._share(list(denials))} deny the target; e.g. {next(iter(denials.values()))}")
        return notes + [f"{count} {doubt}; e.g. {self._examples[doubt]}" for doubt, count in self._doubts.items()]

    def _share(self, rows: Sequence[int]) -> str:
        """How many answers these are, and how many of them are right because nothing is meant."""
        right = sum(not self.targets[row] for row in rows)
        rightly = f", {right} of them where nothing is meant and no box is right," if right else ""
        return f"{len(rows)} of {self.answers} answers ({100 * len(rows) / self.answers:.2f} %){rightly}"


def short(words: str) -> str:
    """An answer as it stands in a note: its start and its end."""
    text = " ".join(words[:400].split())
    return repr(text if len(text) <= 80 else f"{text[:40]} ... {' '.join(words[-60:].split())[-36:]}")
