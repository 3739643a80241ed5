"""The contract between a dataset and the suite: original files on disk -> annotation table.

A dataset is a class that names its splits and files and turns them into an annotation table.
This module does for all of them what is the same everywhere: the cache (an Arrow file under a key of the source
files' SHA-256), the check of every single sample, and finding the image files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from PIL import Image

from vgbench.core.errors import MissingData, UserError
from vgbench.core.files import atomic, file_sha256, folder_sha256, folder_state
from vgbench.data.checks import BadSample, check_size, read_json
from vgbench.data.filters import open_filter
from vgbench.data.images import IMAGE_ERRORS, BadImage
from vgbench.data.shards import Shards
from vgbench.data.table import SCHEMA, AnnotationTable

log = logging.getLogger(__name__)


class GroundingData(ABC):
    """Base class of all datasets.

    Args:
        data_root: folder with the annotation files (:meth:`expected_files` says which).
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
    version: ClassVar[int] = 1  # of the reader; a change makes cached tables stale
    disagreements: ClassVar[tuple[str, ...]] = ()  # counts where publications differ from each other or from the files
    disjoint: bool = True  # no image is in two splits
    split_by: str | None = None  # author of the split, where several are in use
    usual_split_by: ClassVar[str | None] = None  # the one that is meant where none is given
    published_split_by: ClassVar[str | None] = None  # the one that publications mean by the plain name, if they do
    published_names: ClassVar[tuple[str, ...]] = ()  # what publications call the dataset besides ``name``
    layout_names: Mapping[str, Any] = MappingProxyType({})  # layout -> what the dataset is called there, if it is known
    image_folders: ClassVar[tuple[str, ...]] = ()  # usual image roots, below data_root or up to two folders above
    image_names: ClassVar[tuple[str, ...]] = ("{:012d}.jpg", "COCO_train2014_{:012d}.jpg", "COCO_val2014_{:012d}.jpg")

    def __init__(
        self,
        data_root: str | Path | None = None,
        image_root: str | Path | None = None,
        image_template: str | None = None,
        cache_dir: str | Path | None = None,
        on_bad_sample: Literal["error", "skip"] = "error",
        filter: str | None = None,
    ) -> None:
        self._data_root = None if data_root is None else Path(data_root).expanduser()
        self._image_root = None if image_root is None else Path(image_root).expanduser()
        self.image_template = image_template
        default = os.environ.get("VGBENCH_CACHE") or Path("~/.cache/vgbench").expanduser()
        self.cache_dir = Path(cache_dir if cache_dir is not None else default)
        if on_bad_sample not in ("error", "skip"):
            raise UserError(f"{self.name}: on_bad_sample={on_bad_sample!r} is not known; use error or skip")
        self.on_bad_sample = on_bad_sample
        self._parsed: dict[Path, Any] | None = None
        self._filter = None if filter is None else open_filter(filter, self.name, self.splits, self._data_root)
        if self._filter is not None:
            self.name = f"{type(self).name}@{self._filter.name}"
            self.title = f"{type(self).title} ({self._filter.name})"
            self.splits = {
                split: Counts() if self._filter.covers(split) else known for split, known in self.splits.items()
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

    def coco_of_vg(self) -> Mapping[int, int]:
        """Visual Genome's image id -> COCO id, for those of its images that are COCO images and as far as the files
        of this dataset tell: without it nobody sees that two datasets share them."""
        return {}

    @classmethod
    def sentencepiece_model(cls) -> Path | None:
        """A SentencePiece model for expressions of this dataset: what ``method.tokenizer=<name of the dataset>`` means
        to methods that use one."""
        return None

    @classmethod
    def wordpiece_vocabulary(cls) -> list[str] | None:
        """The same for methods with BERT's WordPiece: the pieces, in order of their ids."""
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

    def missing(self, what: str = "") -> MissingData:
        """The error for missing files: says what is expected where, and which key to set."""
        if self._data_root is None:
            what = "no data_root given"
        elif not self._data_root.is_dir():
            what = f"{self._data_root}: no such folder"
        else:
            what = f"{self._data_root}: {what or 'none of the expected annotation files'}"
        expected = "; or ".join(self.expected_files())
        return MissingData(self.name, what, expected)

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
        sums = {self._label(path): self._sha256(path) for path in self.sources(split)}
        name = type(self).name  # filters are applied to the same table
        identity = [type(self).__qualname__, name, self.version, SCHEMA.to_string(), split, self.options(), sums]
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        path = self.cache_dir / "tables" / f"{re.sub(r'[^a-z0-9]+', '-', name)}-{split}-{key[:24]}.arrow"
        table = None
        if path.exists():
            try:
                table = AnnotationTable.open(path)
            except UserError as error:
                log.warning("%s", error)
        if table is None:
            table = self.read(split)
            table.info["sources"] = sums
            try:
                if not table.info["volatile"]:
                    table.save(path)
                    table = AnnotationTable.open(path)
            except OSError as error:
                log.warning("%s: annotation table not cached (%s)", path, error.strerror)
        root = self.image_root
        table.info["image_root"] = None if root is None else str(root)
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

    def _label(self, path: Path) -> str:
        try:
            return path.relative_to(self.data_root).as_posix()
        except ValueError:
            return path.name

    def _sha256(self, path: Path) -> str:
        """SHA-256 of a file, or of all files of a folder, remembered by (path, size, modification time) so that it is
        read only once."""
        try:
            stat = path.stat()
            listing = folder_state(path) if path.is_dir() else None
        except OSError:
            raise self.missing(f"{path.name} is not there") from None
        name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:24]
        memo = self.cache_dir / "hashes" / f"{name}.json"
        state = [stat.st_size, stat.st_mtime_ns, listing]
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(memo.read_text())
            if known["state"] == state:
                return known["sha256"]
        digest = file_sha256(path) if listing is None else folder_sha256(path)
        with contextlib.suppress(OSError), atomic(memo) as temporary:
            temporary.write_text(json.dumps({"path": str(path), "state": state, "sha256": digest}))
        return digest

    @cached_property
    def image_root(self) -> Path | None:
        """The image folder: as given, else the first usual place that exists; None if there is none.

        Raises:
            UserError: if one was given and does not exist.
        """
        if self._image_root is not None:
            if not self._image_root.is_dir() and not (self._image_root.suffix == ".tar" and self._image_root.is_file()):
                raise UserError(f"{self.name}: {self._image_root}: no such folder; set image_root=FOLDER")
            return self._image_root
        if self._data_root is None:
            return None
        for base in (self._data_root, *list(self._data_root.resolve().parents)[:2]):
            for folder in self.image_folders:
                if (base / folder).is_dir():
                    return base / folder
        return None

    @cached_property
    def shards(self) -> Shards | None:
        """The images, if :attr:`image_root` is a tar file or a folder of them (:mod:`vgbench.data.shards`)."""
        return None if self.image_root is None else Shards.below(self.image_root, self.cache_dir)

    def find_image(self, image: str) -> Path | None:
        """The file of ``image`` (a value of the table's image column), or None if it is not on disk."""
        root = self.image_root
        if root is None:
            return None
        for name in self._names(image):
            path = root / name if self.shards is None else self.shards.find(name)
            if path is not None and path.is_file():
                return path
        return None

    def _names(self, image: str) -> Iterator[str]:
        """File names that ``image`` may have on disk, likeliest first."""
        digits = re.findall(r"\d+", PurePosixPath(image).stem)
        number = int(digits[-1]) if digits else None
        if self.image_template is not None:
            if number is None:
                raise UserError(f"{self.name}: image_template={self.image_template!r}, but {image!r} has no number")
            try:
                yield self.image_template.format(number)
            except (IndexError, KeyError, ValueError) as error:
                raise UserError(
                    f"{self.name}: image_template={self.image_template!r} is no template ({error})"
                ) from None
            return
        yield image
        if number is not None:
            for template in self.image_names:
                yield template.format(number)

    def image_path(self, image: str) -> Path:
        """Where the file of ``image`` is; if it is not on disk, where it is expected.

        Raises:
            UserError: if there is no image folder at all.
        """
        root = self.image_root
        if root is None:
            places = ", ".join(self.image_folders)
            raise UserError(f"{self.name}: no image folder found ({places}); set image_root=FOLDER")
        return self.find_image(image) or root / next(self._names(image))

    def image_size(self, image: str) -> tuple[int, int]:
        """(width, height) from the header of the image file, for layouts that do not tell.

        Raises:
            BadImage: if the file is missing or no image.
        """
        path = self.find_image(image)
        if path is None:
            place = f"{image} in {self.image_root or 'no image folder'}; set image_root=FOLDER"
            raise BadImage("image file is missing and the annotations do not tell its size", place)
        try:
            with path.open("rb") as file, Image.open(file) as opened:
                return check_size(*opened.size)
        except (*IMAGE_ERRORS, BadSample) as error:
            raise BadImage("image file that is no image", f"{path}: {error}") from None


@dataclass(frozen=True)
class Counts:
    """Published size of a split; None: not published, or publications disagree."""

    images: int | None = None
    refs: int | None = None
    expressions: int | None = None
