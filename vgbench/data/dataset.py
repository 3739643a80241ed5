"""The contract between a dataset and the suite: original files on disk -> annotation table.

A dataset is a class that names its splits and files and turns them into an annotation table. What is the same for all
of them is done here and in the modules beside: the cache (:mod:`.cache`), the checks of every single sample
(:mod:`.checks`), and finding the image files (:mod:`.images`).
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from vgbench.core.errors import MissingData, UserError
from vgbench.core.hub import dataset_root
from vgbench.data.cache import cached_table, sha256, table_path
from vgbench.data.checks import read_json
from vgbench.data.filters import NamedFilter, open_filter
from vgbench.data.images import ImageFinder
from vgbench.data.scene import Scenes
from vgbench.data.sketch import Sketcher
from vgbench.data.table import SCHEMA, AnnotationTable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """Published size of a split; None: not published, or publications disagree."""

    images: int | None = None
    refs: int | None = None
    expressions: int | None = None


class GroundingData(ImageFinder, ABC):
    """Base class of all datasets.

    Args:
        data_root: folder with the annotation files (:meth:`expected_files` says which), or "hf://datasets/ORG/NAME".
        image_root: folder of the images, or of tar files with images (:mod:`vgbench.data.shards`); None: looked
            for in the usual places below and beside ``data_root``.
        image_template: how image files are called, e.g. ``"train2017/{:012d}.jpg"`` (formatted with the image id);
            None: COCO 2014 and 2017 names and the name in the annotations are tried.
        cache_dir: where annotation tables are kept; None: ``$VGBENCH_CACHE`` or ``~/.cache/vgbench``.
        on_bad_sample: "error" raises on the first sample that cannot be used, "skip" leaves it out and counts it in
            ``table.info["skipped"]``.
        filter: a cleaned version of the evaluation splits (:func:`~vgbench.data.filters.open_filter`): the dataset is
            then called ``<name>@<filter>``.

    Raises:
        UserError: from every method, if a file is missing, damaged or of the wrong kind.
    """

    name: str
    title: str
    tasks: tuple[str, ...]  # "rec", "res", or "grec", "gres"
    splits: Mapping[str, Counts]
    licence: ClassVar[str]
    homepage: ClassVar[str]
    embedded: ClassVar[bool] = False  # rendered test bench: never in one table with real data
    smoke_options: ClassVar[Mapping[str, Any]] = MappingProxyType({})  # constructor options that make it small
    version: ClassVar[int] = 1  # of the reader; a change makes cached tables stale
    disagreements: ClassVar[tuple[str, ...]] = ()  # counts where publications differ from each other or from the files
    whole: ClassVar[Mapping[str, int]] = MappingProxyType({})  # expressions of all splits together, by who counts them
    own_metrics: ClassVar[tuple[str, ...]] = ()  # what its authors report ("grec/single"): scored without being named
    filters: ClassVar[tuple[type[NamedFilter], ...]] = ()  # published reviews, of this dataset's expressions or others'
    disjoint: bool = True  # no image is in two splits
    split_by: str | None = None  # author of the split, where several are in use
    usual_split_by: ClassVar[str | None] = None  # the one that is meant where none is given
    published_split_by: ClassVar[str | None] = None  # the one that publications mean by the plain name, if they do
    published_names: ClassVar[tuple[str, ...]] = ()  # what publications call the dataset besides ``name``
    file_options: ClassVar[frozenset[str]] = frozenset()  # further arguments that are paths
    layout_names: Mapping[str, Any] = MappingProxyType({})  # layout -> what the dataset is called there, if it is known

    def __init__(
        self,
        data_root: str | Path | None = None,
        image_root: str | Path | None = None,
        image_template: str | None = None,
        cache_dir: str | Path | None = None,
        on_bad_sample: Literal["error", "skip"] = "error",
        filter: str | None = None,
    ) -> None:
        default = os.environ.get("VGBENCH_CACHE") or Path("~/.cache/vgbench").expanduser()
        cache = Path(cache_dir if cache_dir is not None else default)
        super().__init__(
            None if data_root is None else dataset_root(data_root, cache),
            None if image_root is None else dataset_root(image_root, cache),
            image_template,
            cache,
        )
        if on_bad_sample not in ("error", "skip"):
            raise UserError(f"{self.name}: on_bad_sample={on_bad_sample!r} is not known; use error or skip")
        self.on_bad_sample = on_bad_sample
        self._parsed: dict[Path, Any] | None = None
        self._filter = None if filter is None else open_filter(filter, self.name, self.splits, self._data_root)
        if self._filter is not None:
            self.name = f"{type(self).name}@{self._filter.name}"
            self.title = f"{type(self).title} ({self._filter.name})"
            self.splits = {
                split: Counts() if self._filter.covers(split) else counts for split, counts in self.splits.items()
            }

    @abstractmethod
    def expected_files(self) -> list[str]:
        """One line per accepted layout: the files it needs, below ``data_root``."""

    @abstractmethod
    def sources(self, split: str) -> list[Path]:
        """The annotation files that ``split`` is read from.

        Raises:
            UserError: if they are not there (:meth:`missing`).
        """

    @abstractmethod
    def read(self, split: str) -> AnnotationTable:
        """Parse the original files (slow). Unusable samples are counted, not raised: :meth:`load` decides."""

    def options(self) -> dict[str, Any]:
        """Constructor options that change the table, as JSON: part of the cache key."""
        return {}

    def image_aliases(self) -> Mapping[tuple[str, int], tuple[str, int]]:
        """Images that are images of another collection, as far as the files of this dataset tell: (source, image id)
        -> (source, image id), e.g. Visual Genome's that are COCO's: else nobody sees that two datasets share them."""
        return {}

    def scenes(self, split: str) -> Scenes | None:
        """All annotated objects of the images of ``split``, referred to or not; None: the files do not hold them."""
        return None

    @classmethod
    def attribute_words(cls) -> Mapping[str, tuple[str, str]]:
        """Words of expressions and what each says of an object of :meth:`scenes`, as (attribute, value): "disc" is
        ("category", "circle"). Only attributes that every object is annotated with."""
        return {}

    @classmethod
    def downloads(cls) -> Path | None:
        """The list of where the authors keep their files (:mod:`vgbench.data.download`): ``downloads.yaml`` beside the
        module of the class or, where there is none, the next one above it in its package."""
        folders = Path(inspect.getfile(cls)).parents[: max(cls.__module__.count("."), 1)]
        return next((path for folder in folders if (path := folder / "downloads.yaml").is_file()), None)

    @classmethod
    def sentencepiece_model(cls) -> Path | None:
        """A SentencePiece model for expressions of this dataset: what ``method.tokenizer=<name of the dataset>`` means
        to methods that use one."""
        return None

    @classmethod
    def wordpiece_vocabulary(cls) -> list[str] | None:
        """The same for methods with BERT's WordPiece: the pieces, in order of their ids."""
        return None

    @classmethod
    def sketcher(cls) -> Sketcher | None:
        """Who draws what expressions of this dataset name, for methods that look at such pictures; None: nobody can."""
        return None

    @property
    def data_root(self) -> Path:
        """The folder with the annotation files.

        Raises:
            UserError: if it was not given or does not exist.
        """
        if self._data_root is None or not self._data_root.is_dir():
            raise self.missing()
        return self._data_root

    def first_file(self, names: str | Sequence[str], folders: Sequence[str], what: str = "") -> Path:
        """The first of ``names`` that a folder below ``data_root`` holds, from the first of ``folders`` that does.

        Raises:
            MissingData: if none does; ``what`` is missing then (see :meth:`missing`).
        """
        for name in (names,) if isinstance(names, str) else names:
            for folder in folders:
                if (path := self.data_root / folder / name).is_file():
                    return path
        raise self.missing(what)

    def first_files(
        self,
        patterns: Sequence[str],
        folders: Sequence[str],
        what: str = "",
        fits: Callable[[Path], bool] = lambda path: True,
    ) -> list[Path]:
        """All files of these names (with ``*``) in the first of ``folders`` below ``data_root`` that holds any, sorted.

        Args:
            patterns: of the names.
            folders: below ``data_root``.
            what: is missing if no folder holds any (see :meth:`missing`).
            fits: asked of the first file of a folder; a folder of other people's files of the same name is passed over.

        Raises:
            MissingData: if no folder holds any.
        """
        for folder in folders:
            place = self.data_root / folder
            paths = sorted({path for pattern in patterns for path in place.glob(pattern)})
            if paths and fits(paths[0]):
                return paths
        raise self.missing(what)

    def missing(self, what: str = "") -> MissingData:
        """The error for missing files: says what is expected where, which key to set, and what lists all layouts."""
        if self._data_root is None:
            what = "no data_root given"
        elif not self._data_root.is_dir():
            what = f"{self._data_root}: no such folder"
        else:
            what = f"{self._data_root}: {what or 'none of the expected annotation files'}"
        expected = self.expected_files()
        return MissingData(self.name, what, expected[0], len(expected) - 1)

    def check_split(self, split: str) -> str:
        """Raises UserError unless the dataset has this split."""
        if split not in self.splits:
            raise UserError(f"{self.name} has no split {split!r}; there are: {', '.join(self.splits)}")
        return split

    @property
    def evaluation_splits(self) -> tuple[str, ...]:
        """The splits that nothing is trained on."""
        return tuple(split for split in self.splits if split not in ("train", "pretrain"))

    def parse_splits(self, splits: str | Sequence[str] | None) -> tuple[str, ...]:
        """``"val,testA"``, a list of names, or None / ``"all"`` for every split -> names.

        Raises:
            UserError: if one of them does not exist.
        """
        if splits is None or splits == "all":
            return tuple(self.splits)
        names = splits.split(",") if isinstance(splits, str) else splits
        return tuple(self.check_split(name.strip()) for name in names)

    def parse_file(self, path: Path, reader: Callable[[Path], Any] = read_json) -> Any:
        """``reader(path)``, remembered while :meth:`one_pass` is open."""
        if self._parsed is None:
            return reader(path)
        if path not in self._parsed:
            self._parsed[path] = reader(path)
        return self._parsed[path]

    @contextlib.contextmanager
    def one_pass(self) -> Iterator[None]:
        """Inside it, files that several splits share are parsed once (and kept in memory until it is left)."""
        outer, self._parsed = self._parsed, {} if self._parsed is None else self._parsed
        try:
            yield
        finally:
            self._parsed = outer

    def load(self, split: str, on_bad_sample: Literal["error", "skip"] | None = None) -> AnnotationTable:
        """The annotation table of ``split``, memory-mapped from the cache; built on first use or when a source changed.

        Args:
            split: one of :attr:`splits`.
            on_bad_sample: instead of the dataset's own.

        Raises:
            UserError: if files are missing or damaged, or (``on_bad_sample="error"``) if a sample cannot be used.
        """
        self.check_split(split)
        table = self._cached_table(split)
        table.info["image_root"] = None if self.image_root is None else str(self.image_root)
        skipped: dict[str, int] = table.info["skipped"]
        if skipped:
            total = sum(skipped.values())
            first = next(iter(table.info["skipped_examples"].values()))
            if (on_bad_sample or self.on_bad_sample) == "error":
                raise UserError(f"{first}; set on_bad_sample=skip to leave out {total} such expression(s) of {split}")
            log.warning("%s %s: %d expression(s) left out: %s", self.name, split, total, skipped)
        if self._filter is not None and self._filter.covers(split):
            listing = self._filter.file(split)
            table = self._filter.apply(table, split)
            table.info["sources"] = {**table.info["sources"], self._label(listing): self._sha256(listing)}
            log.info("%s %s: %d expression(s) left out", self.name, split, table.info["filter"]["left_out"])
        for note in table.info["warnings"]:
            log.warning("%s %s: %s", self.name, split, note)
        for note in table.info["notes"]:
            log.info("%s %s: %s", self.name, split, note)
        return table

    def _cached_table(self, split: str) -> AnnotationTable:
        """What :meth:`read` gives (filters are applied to it afterwards), and the SHA-256 of its sources."""
        sums = {self._label(path): self._sha256(path) for path in self.sources(split)}
        name = type(self).name
        identity = [type(self).__qualname__, name, self.version, SCHEMA.to_string(), split, self.options(), sums]

        def read() -> AnnotationTable:
            table = self.read(split)
            table.info["sources"] = sums
            return table

        return cached_table(table_path(self.cache_dir, name, split, identity), read)

    def _label(self, path: Path) -> str:
        try:
            return path.relative_to(self.data_root).as_posix()
        except ValueError:
            return path.name

    def _sha256(self, path: Path) -> str:
        try:
            return sha256(path, self.cache_dir)
        except OSError:
            raise self.missing(f"{path.name} is not there") from None
