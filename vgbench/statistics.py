"""What is in a dataset: numbers per split, and evaluation images that a training set contains."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from tabulate import tabulate

from vgbench.errors import UserError
from vgbench.files import atomic
from vgbench.table import AnnotationTable

__all__ = [
    "Leakage",
    "SeenImages",
    "Statistics",
    "exclude_leaked",
    "figure",
    "leakage",
    "statistics",
    "text",
    "without_images",
]

SEEN_FILE = "train_images.parquet"  # in a run folder

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


def text(splits: Mapping[str, Statistics]) -> str:
    """A table with one column per split."""
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
    return tabulate(rows, headers=["", *splits], disable_numparse=True)


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
    for name, found in splits.items():
        share = np.array(list(found.length.values())) / max(found.expressions, 1)
        words.plot(list(found.length), share, label=name)
        if found.others:
            numbers = range(max(found.others) + 1)
            share = np.array([found.others.get(number, 0) for number in numbers]) / sum(found.others.values())
            others.plot(numbers, share, marker="o", markersize=3, label=name)
        if found.area:
            areas.plot([5, 25, 50, 75, 95], found.area, marker="o", markersize=3, label=name)
        if found.growth:
            vocabulary.plot(*zip(*found.growth, strict=True), label=name)
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


@dataclass(frozen=True)
class Leakage:
    """Overlap of one training table with one evaluation table.

    Attributes:
        images: evaluation images that the training table contains.
        evaluation_images: all evaluation images.
        training_expressions: training expressions on those images.
    """

    images: int
    evaluation_images: int
    training_expressions: int


def image_keys(table: AnnotationTable, coco_of_vg: Mapping[int, int] | None = None) -> np.ndarray:
    """One text per row that names the image whatever the data set calls it: "coco:581857".

    Args:
        table: any annotation table.
        coco_of_vg: Visual Genome's image id -> COCO id (``coco_id`` of its ``image_data.json``), for those of its
            images that are COCO images.
    """
    known = coco_of_vg or {}
    ids, sources = table.column("image_id").tolist(), table.arrow.column("source").to_pylist()
    pairs = [
        ("coco", known[number]) if source == "vg" and number in known else (source, number)
        for number, source in zip(ids, sources, strict=True)
    ]
    return np.array([f"{source}:{number}" for source, number in pairs])


@dataclass(frozen=True)
class SeenImages:
    """The images that a model was trained on.

    Attributes:
        keys: sorted names as :func:`image_keys` gives them, each once; of synthetic images the ones that they are
            painted from too.
        complete: False if the model started from weights whose training images nobody knows.
    """

    keys: np.ndarray
    complete: bool = True

    @classmethod
    def of(cls, train: AnnotationTable, coco_of_vg: Mapping[int, int] | None = None) -> SeenImages:
        painted = np.array(train.info.get("painted_from", []), dtype=str)  # whose pixels synthetic images are made of
        return cls(np.unique(np.concatenate([image_keys(train, coco_of_vg), painted])))

    def __or__(self, earlier: SeenImages) -> SeenImages:
        """With those of an earlier stage of the training."""
        return SeenImages(np.union1d(self.keys, earlier.keys), self.complete and earlier.complete)

    def among(self, evaluation: AnnotationTable, coco_of_vg: Mapping[int, int] | None = None) -> int | None:
        """How many images of ``evaluation`` the model was trained on; None if none is known and some are not known."""
        shared = len(np.intersect1d(self.keys, image_keys(evaluation, coco_of_vg)))
        return shared if shared or self.complete else None

    def save(self, folder: Path) -> None:
        """Into a run folder."""
        table = pa.table({"image": pa.array(self.keys.tolist(), pa.string())})
        with atomic(folder / SEEN_FILE) as temporary:
            parquet.write_table(table.replace_schema_metadata({"complete": str(self.complete)}), temporary)

    @classmethod
    def read(cls, folder: Path) -> SeenImages | None:
        """Of a run folder; None if it is none, or one of an evaluation.

        Raises:
            UserError: if the file is damaged.
        """
        path = folder / SEEN_FILE
        if not path.is_file():
            return None
        try:
            table = parquet.read_table(path)
            keys = np.array(table.column("image").to_pylist(), dtype=str)
            return cls(keys, table.schema.metadata[b"complete"] == b"True")
        except (OSError, pa.ArrowInvalid, KeyError, TypeError) as error:
            raise UserError(f"{path}: not a list of training images ({error}); copy it again, or remove it") from None


def leakage(
    train: AnnotationTable, evaluation: AnnotationTable, coco_of_vg: Mapping[int, int] | None = None
) -> Leakage:
    """How many images of ``evaluation`` are in ``train`` (see :func:`image_keys` for ``coco_of_vg``)."""
    evaluated = np.unique(image_keys(evaluation, coco_of_vg))
    shared = np.intersect1d(SeenImages.of(train, coco_of_vg).keys, evaluated)
    return Leakage(len(shared), len(evaluated), int(np.isin(image_keys(train, coco_of_vg), shared).sum()))


def without_images(
    train: AnnotationTable, evaluations: list[AnnotationTable], coco_of_vg: Mapping[int, int] | None = None
) -> AnnotationTable:
    """``train`` without the images of ``evaluations``; ``info["excluded_images"]`` says how many were left out."""
    training = image_keys(train, coco_of_vg)
    unwanted = np.unique(np.concatenate([image_keys(table, coco_of_vg) for table in evaluations]))
    leaked = np.isin(training, unwanted)
    kept = train.take(np.flatnonzero(~leaked))
    before = train.info.get("excluded_images", 0)
    kept.info = {**train.info, "excluded_images": before + len(np.unique(training[leaked]))}
    return kept


def exclude_leaked(
    trains: Sequence[AnnotationTable],
    evaluations: list[AnnotationTable],
    coco_of_vg: Mapping[int, int] | None = None,
) -> list[AnnotationTable]:
    """Training tables without the images of ``evaluations`` (:func:`without_images` each).

    Raises:
        UserError: if nothing is left, or if a table's images are painted from pixels of evaluation images: then no
            row can be told to be clean.
    """
    kept = [without_images(table, evaluations, coco_of_vg) for table in trains]
    name = kept[0].info.get("dataset")
    if not len(kept[0]):
        raise UserError(f"recipe.exclude_leaked: every training image of {name} is in an evaluation split of this run")
    evaluated = set().union(*(image_keys(table, coco_of_vg).tolist() for table in evaluations))
    for table in kept:
        painted = evaluated.intersection(table.info.get("painted_from", []))
        if painted:
            raise UserError(
                f"recipe.exclude_leaked: the images of {table.info.get('dataset')} are painted from {len(painted):,} "
                "images of this run's evaluation splits; make them again from other images, or leave out extra_train"
            )
    return kept
