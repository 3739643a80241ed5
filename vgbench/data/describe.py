"""What is in a split: words, boxes, targets, masks; as text and as a figure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vgbench.core.errors import UserError
from vgbench.data.table import AnnotationTable

LOCATION = re.compile(
    r"\b(left|right|top|bottom|middle|center|centre|front|back|behind|upper|lower|above|below|closest|nearest|farthest"
    r"|corner|first|second|third|last)\b"
)


@dataclass(frozen=True)
class Statistics:
    """Numbers of one split.

    Attributes:
        words: mean number of words per expression (separated by white space).
        vocabulary: number of different lower-case words.
        growth: (expressions, different words in the first so many of them), in steps of a tenth.
        location: share of expressions with a location word.
        targets: how many expressions have 0, 1, 2, ... targets.
        others: how many targets have 0, 1, 2, ... other annotated targets of their category in the image; empty
            where categories are not known. Objects that no expression refers to are not in the table.
        area: quantiles 0.05, 0.25, 0.5, 0.75, 0.95 of box area / image area.
        duplicates: expressions that repeat image, boxes and text of an earlier one.
        ambiguous: texts that occur in one image for different targets.
        length: how many expressions have so many words.
        common: the 20 most frequent words.
    """

    images: int
    expressions: int
    words: float
    vocabulary: int
    location: float
    targets: dict[int, int]
    area: tuple[float, ...]
    duplicates: int
    ambiguous: int
    length: dict[int, int] = field(repr=False)
    common: tuple[tuple[str, int], ...] = field(repr=False)
    others: dict[int, int] = field(repr=False)
    growth: tuple[tuple[int, int], ...] = field(repr=False)

    @property
    def same_category(self) -> float | None:
        """Mean of :attr:`others`; None where categories are not known."""
        if not self.others:
            return None
        return sum(number * count for number, count in self.others.items()) / sum(self.others.values())


def statistics(table: AnnotationTable) -> Statistics:
    """Count through a table once."""
    lengths: Counter[int] = Counter()
    vocabulary: Counter[str] = Counter()
    targets: Counter[int] = Counter()
    seen: set[tuple[str, tuple[float, ...], str]] = set()
    meanings: dict[tuple[str, str], set[tuple[float, ...]]] = {}
    objects: dict[tuple[str, str], set[tuple[float, ...]]] = {}
    areas: list[float] = []
    growth: list[tuple[int, int]] = []
    location = 0
    for number, row in enumerate(table, 1):
        words = row.expression.lower().split()
        lengths[len(words)] += 1
        vocabulary.update(words)
        if not growth or number >= 1.1 * growth[-1][0] or number == len(table):
            growth.append((number, len(vocabulary)))
        targets[len(row.boxes)] += 1
        location += LOCATION.search(row.expression.lower()) is not None
        boxes = tuple(row.boxes.reshape(-1).tolist())
        seen.add((row.image, boxes, row.expression))
        meanings.setdefault((row.image, row.expression), set()).add(boxes)
        sides = row.boxes[:, 2:] - row.boxes[:, :2]
        areas.extend((sides.prod(1) / (row.width * row.height)).tolist())
        for box, category in zip(row.boxes.tolist(), row.categories, strict=False):
            objects.setdefault((row.image, category), set()).add(tuple(box))
    others: Counter[int] = Counter()
    for group in objects.values():
        others[len(group) - 1] += len(group)
    return Statistics(
        images=len(np.unique(table.column("image"))),
        expressions=len(table),
        words=sum(length * count for length, count in lengths.items()) / max(len(table), 1),
        vocabulary=len(vocabulary),
        location=location / max(len(table), 1),
        targets=dict(sorted(targets.items())),
        area=tuple(np.quantile(areas, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist()) if areas else (),
        duplicates=len(table) - len(seen),
        ambiguous=sum(len(boxes) > 1 for boxes in meanings.values()),
        length=dict(sorted(lengths.items())),
        common=tuple(vocabulary.most_common(20)),
        others=dict(sorted(others.items())),
        growth=tuple(growth),
    )


def table_rows(splits: Mapping[str, Statistics]) -> list[list[str]]:
    """What a table with one column per split shows, the first cell of each row saying what it is."""
    rows: list[list[str]] = []

    def add(label: str, value: Callable[[Statistics], str]) -> None:
        rows.append([label, *map(value, splits.values())])

    add("images", lambda s: f"{s.images:,}")
    add("expressions", lambda s: f"{s.expressions:,}")
    add("words per expression", lambda s: f"{s.words:.2f}")
    add("different words", lambda s: f"{s.vocabulary:,}")
    add("with a location word", lambda s: f"{s.location:.1%}")
    add("targets", lambda s: ", ".join(f"{number}: {count:,}" for number, count in s.targets.items()))
    add("others of the category", lambda s: "-" if s.same_category is None else f"{s.same_category:.2f}")
    add("box area, 5 / 50 / 95 %", lambda s: " / ".join(f"{s.area[i]:.1%}" for i in (0, 2, 4)) if s.area else "-")
    add("duplicates", lambda s: f"{s.duplicates:,}")
    add("same text, other target", lambda s: f"{s.ambiguous:,}")
    add("most frequent words", lambda s: " ".join(word for word, _ in s.common[:6]))
    return rows


def figure(splits: Mapping[str, Statistics], path: Path) -> None:
    """Words per expression, other targets of the category, box area and vocabulary as an image file: four panels, one
    line per split.

    Raises:
        UserError: if the ending of ``path`` is none that can be drawn.
    """
    from matplotlib.backend_bases import FigureCanvasBase
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if path.suffix.lower().removeprefix(".") not in FigureCanvasBase.get_supported_filetypes():
        raise UserError(f"{path}: not a kind of picture that can be written; use .png, .pdf or .svg")

    drawing = Figure(figsize=(9, 6.5), layout="constrained")
    (words, others), (areas, vocabulary) = drawing.subplots(2, 2)
    for name, stats in splits.items():
        share = np.array(list(stats.length.values())) / max(stats.expressions, 1)
        words.plot(list(stats.length), share, label=name)
        if stats.others:
            numbers = range(max(stats.others) + 1)
            share = np.array([stats.others.get(number, 0) for number in numbers]) / sum(stats.others.values())
            others.plot(numbers, share, marker="o", markersize=3, label=name)
        if stats.area:
            areas.plot([5, 25, 50, 75, 95], stats.area, marker="o", markersize=3, label=name)
        if stats.growth:
            vocabulary.plot(*zip(*stats.growth, strict=True), label=name)
    words.set(xlabel="words per expression", ylabel="share of expressions", xlim=(0, None), ylim=(0, None))
    others.set(xlabel="other targets of the category in the image", ylabel="share of targets", ylim=(0, None))
    if not others.lines:
        others.set(xticks=[], yticks=[])
        others.text(0.5, 0.5, "categories are not known", transform=others.transAxes, ha="center")
    else:
        others.xaxis.set_major_locator(MaxNLocator(integer=True))
    areas.set(xlabel="quantile in %", ylabel="box area / image area", ylim=(0, None))
    vocabulary.set(xlabel="expressions", ylabel="different words in them", xscale="log", yscale="log")
    words.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=150)
