"""The contract between a dataset and the suite: original files on disk -> annotation table.

A dataset is a class that names its splits and files and turns them into an :class:`~vgbench.table.AnnotationTable`.
This module does for all of them what is the same everywhere: the cache (an Arrow file under a key of the source
files' SHA-256), the check of every single sample, finding the image files, and :meth:`GroundingData.verify`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

from vgbench.errors import UserError
from vgbench.table import SCHEMA, AnnotationTable

__all__ = [
    "BadSample",
    "Counts",
    "GroundingData",
    "Report",
    "SplitReport",
    "TableBuilder",
    "check_box",
    "check_mask",
    "check_name",
    "check_size",
    "check_text",
    "read_json",
    "take",
]

log = logging.getLogger(__name__)

MAX_SIDE = 65_535  # pixels; no photograph is larger, and mask code allocates by these numbers
MISSING_IMAGE = "image file is missing and the annotations do not tell its size"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Counts:
    """Published size of a split; None: not published, or publications disagree."""

    images: int | None = None
    refs: int | None = None
    expressions: int | None = None


class BadSample(Exception):
    """One sample that cannot be used: ``reason`` is what it is counted under, ``detail`` names key and value."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason


# --------------------------------------------------------------------------------------------- reading untrusted files


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: if it cannot be read, is not UTF-8 or is not JSON (truncated: with line and column).
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); download it again") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); the file is damaged or truncated") from None


def take(record: Any, key: str, kind: type[_T] | tuple[type, ...]) -> Any:
    """``record[key]`` if it has the right type; bools are not numbers, and floats without fraction count as int.

    Raises:
        BadSample: if ``record`` is no object, has no such key, or the value has another type or is not finite.
    """
    if not isinstance(record, Mapping):
        raise BadSample("not an object", f"{type(record).__name__} instead of an object with {key!r}")
    if key not in record:
        raise BadSample(f"no key {key!r}", f"there are {', '.join(map(str, list(record)[:12]))}")
    value = record[key]
    if kind is int:
        return _integer(value, key)
    if isinstance(value, bool) or not isinstance(value, kind):
        wanted = kind.__name__ if isinstance(kind, type) else " or ".join(item.__name__ for item in kind)
        raise BadSample(f"wrong type of {key!r}", f"{type(value).__name__} instead of {wanted}")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadSample(f"{key!r} is not finite", str(value))
    return value


def _integer(value: Any, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1 or abs(value) >= 2**63:
        raise BadSample(f"{key!r} is not an integer", repr(value)[:40])
    return int(value)


def check_box(
    box: Any, width: int, height: int, form: Literal["xywh", "xyxy"] = "xywh", key: str = "bbox"
) -> list[float]:
    """Four finite numbers -> xyxy pixels as annotated (unclipped).

    Raises:
        BadSample: if it is no box, has no area, or lies entirely outside the image.
    """
    if isinstance(box, np.ndarray):
        box = box.tolist()
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        raise BadSample(f"{key!r} is not a list of four numbers", repr(box)[:80])
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) or not math.isfinite(v) for v in box):
        raise BadSample(f"{key!r} has a value that is not a finite number", repr(box)[:80])
    x1, y1, x2, y2 = (float(v) for v in box)
    if form == "xywh":
        x2, y2 = x1 + x2, y1 + y2
    if x2 <= x1 or y2 <= y1:
        raise BadSample("box without area", f"{key} {list(box)}")
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        raise BadSample("box outside the image", f"{key} {list(box)}, image {width} x {height}")
    return [x1, y1, x2, y2]


def check_size(width: int, height: int) -> tuple[int, int]:
    """Raises BadSample unless both are in 1..65535."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise BadSample("impossible image size", f"width {width}, height {height}")
    return width, height


def check_name(name: str) -> str:
    """A relative path that stays below the image root.

    Raises:
        BadSample: if it is empty, absolute, climbs with ``..`` or holds characters that no file name has.
    """
    if not name or "\0" in name or "\\" in name or name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise BadSample("image name leaves the image folder", repr(name)[:80])
    return check_text(name)


def check_text(text: str) -> str:
    """Raises BadSample if the text cannot be written as UTF-8 (lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadSample("text that is not valid Unicode", ascii(text)[:80]) from None
    return text


def check_mask(segmentation: Any, width: int, height: int) -> tuple[str, int] | None:
    """COCO segmentation -> (compressed RLE counts, number of polygons; 0 = it was an RLE), None if there is none.

    Polygons of fewer than three points are left out; the others are united (the original ``getMask`` adds them).
    RLE dictionaries may be compressed or not; a list of RLEs is united as well.

    Raises:
        BadSample: if it is neither, has wrong numbers, or is of another size than the image.
    """
    if segmentation is None or segmentation == []:
        return None
    if isinstance(segmentation, Mapping):
        return _check_rle(segmentation, width, height), 0
    if not isinstance(segmentation, list):
        raise BadSample("segmentation is neither polygons nor RLE", type(segmentation).__name__)
    if all(isinstance(part, Mapping) for part in segmentation):
        parts: list[Any] = [
            {"size": [height, width], "counts": _check_rle(part, width, height)} for part in segmentation
        ]
        return _text(coco_mask.merge(parts)["counts"]), 0
    limit = 16 * max(width, height)  # the rasteriser allocates by edge length
    if any(not isinstance(polygon, list) or len(polygon) % 2 for polygon in segmentation):
        raise BadSample("polygon that is no list of x, y pairs", repr(segmentation)[:80])
    segmentation = [polygon for polygon in segmentation if len(polygon) >= 6]  # fewer than three points: no area
    if not segmentation:
        return None
    for polygon in segmentation:
        for value in polygon:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not -limit <= value <= limit:
                raise BadSample("polygon with an impossible coordinate", repr(value)[:40])
    united = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    return _text(united["counts"]), len(segmentation)


def _text(counts: Any) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts


def _check_rle(rle: Mapping[str, Any], width: int, height: int) -> str:
    size, counts = rle.get("size"), rle.get("counts")
    if isinstance(size, tuple):
        size = list(size)
    if size != [height, width]:
        raise BadSample("RLE of another size than the image", f"{size!r}, image [{height}, {width}]")
    runs: Any = _runs(counts) if isinstance(counts, (str, bytes)) else counts
    if (
        not isinstance(runs, list)
        or any(isinstance(run, bool) or not isinstance(run, int) or run < 0 for run in runs)
        or sum(runs) != width * height
    ):
        raise BadSample("RLE whose runs do not fill the image")
    if isinstance(counts, (str, bytes)):
        return _text(counts)
    return _text(coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"])


def _runs(counts: str | bytes) -> list[int]:
    """Decode COCO's compressed counts in Python: the C decoder trusts its input, and files are not trusted."""
    data = counts.encode("latin-1", "replace") if isinstance(counts, str) else counts
    runs: list[int] = []
    value = shift = 0
    for byte in data:
        chunk = byte - 48
        if not 0 <= chunk < 64 or shift > 60:
            raise BadSample("RLE with a character that no RLE has", repr(chr(byte)))
        value |= (chunk & 31) << shift
        shift += 5
        if not chunk & 32:
            if chunk & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    if shift:
        raise BadSample("RLE that ends in the middle of a number")
    return runs


# ------------------------------------------------------------------------------------------------------------- building


class TableBuilder:
    """Collects the rows of one split; :meth:`skip` counts what cannot be used.

    Attributes:
        notes: remarks about the split (logged when the table is loaded).
        warnings: remarks that change how results are to be read (logged as warnings).
        volatile: the table depends on more than its sources (a missing image) and must not be cached.
        group_unit: what ``group`` stands for: "ref" (all expressions of one referred object), "image", "expression".
    """

    def __init__(self, dataset: str, split: str, task: str, group_unit: str = "ref") -> None:
        self.info: dict[str, Any] = {"dataset": dataset, "split": split, "task": task}
        self.split = split
        self.group_unit = group_unit
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.volatile = False
        self.skipped: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self._rows: list[dict[str, Any]] = []
        self._batches: list[pa.Table] = []
        self._keys: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._rows) + sum(batch.num_rows for batch in self._batches)

    def add(
        self,
        *,
        key: str,
        image_id: int,
        image: str,
        width: int,
        height: int,
        expression: str,
        boxes: Sequence[Sequence[float]],
        group: int,
        source: str,
        masks: Sequence[str] = (),
        polygons: Sequence[int] = (),
        ann_ids: Sequence[int] = (),
        categories: Sequence[str] = (),
        ref_id: int | None = None,
        sent_id: int | None = None,
    ) -> None:
        """Add one expression (columns of :data:`vgbench.table.SCHEMA`; ``boxes`` xyxy). A key that is already there
        gets a suffix ``#2``, ``#3``, ... and is counted."""
        self._keys[key] += 1
        if self._keys[key] > 1:
            key = f"{key}#{self._keys[key]}"
        self._rows.append(
            {
                "key": key,
                "image_id": image_id,
                "image": image,
                "width": width,
                "height": height,
                "expression": expression,
                "boxes": boxes,
                "masks": masks,
                "polygons": polygons,
                "ann_ids": ann_ids,
                "categories": categories,
                "ref_id": ref_id,
                "sent_id": sent_id,
                "group": group,
                "source": source,
                "split": self.split,
            }
        )
        if len(self._rows) >= 250_000:  # millions of expressions as Python objects would not fit into memory
            self._flush()

    def _flush(self) -> None:
        self._batches.append(AnnotationTable.from_rows(self._rows, {}).arrow)
        self._rows = []

    def skip(self, where: str, error: BadSample, count: int = 1) -> None:
        """Leave out ``count`` expressions because of ``error`` at ``where`` (file and entry)."""
        self.skipped[error.reason] += count
        self.volatile |= error.reason == MISSING_IMAGE
        self.examples.setdefault(error.reason, f"{where}: {error}")

    def table(self) -> AnnotationTable:
        """The finished table. ``info`` gets ``skipped``, ``skipped_examples``, ``notes``, ``warnings``,
        ``volatile``, ``group_unit`` and ``duplicate_keys``."""
        self._flush()
        info = {
            **self.info,
            "skipped": dict(self.skipped),
            "skipped_examples": self.examples,
            "notes": self.notes,
            "warnings": self.warnings,
            "group_unit": self.group_unit,
            "volatile": self.volatile,
            "duplicate_keys": sum(count - 1 for count in self._keys.values()),
        }
        return AnnotationTable(pa.concat_tables(self._batches).combine_chunks(), info)


# ------------------------------------------------------------------------------------------------------------- contract


class GroundingData(ABC):
    """Base class of all datasets.

    Args:
        data_root: folder with the annotation files (:meth:`expected_files` says which).
        image_root: folder of the images; None: looked for in the usual places below and beside ``data_root``.
        image_template: how image files are called, e.g. ``"train2017/{:012d}.jpg"`` (formatted with the image id);
            None: COCO 2014 and 2017 names and the name in the annotations are tried.
        cache_dir: where annotation tables are kept; None: ``$VGBENCH_CACHE`` or ``~/.cache/vgbench``.
        on_bad_sample: "error" raises on the first sample that cannot be used, "skip" leaves it out and counts it in
            ``table.info["skipped"]``.

    Raises:
        UserError: from every method, if a file is missing, damaged or of the wrong kind.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    tasks: ClassVar[tuple[str, ...]]  # "rec", "res", or "grec", "gres"
    splits: ClassVar[Mapping[str, Counts]]
    licence: ClassVar[str]
    homepage: ClassVar[str]
    embedded: ClassVar[bool] = False  # rendered test bench: never in one table with real data
    version: ClassVar[int] = 1  # of the reader; a change makes cached tables stale
    disjoint: bool = True  # no image is in two splits
    image_folders: ClassVar[tuple[str, ...]] = ()  # usual image roots, below data_root or up to two folders above
    image_names: ClassVar[tuple[str, ...]] = ("{:012d}.jpg", "COCO_train2014_{:012d}.jpg", "COCO_val2014_{:012d}.jpg")

    def __init__(
        self,
        data_root: str | Path | None = None,
        image_root: str | Path | None = None,
        image_template: str | None = None,
        cache_dir: str | Path | None = None,
        on_bad_sample: Literal["error", "skip"] = "error",
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

    # ---- what a dataset defines

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

    # ---- what all datasets share

    @property
    def data_root(self) -> Path:
        """The folder with the annotation files.

        Raises:
            UserError: if it was not given or does not exist.
        """
        if self._data_root is None or not self._data_root.is_dir():
            raise self.missing()
        return self._data_root

    def missing(self, what: str = "") -> UserError:
        """The error for missing files: says what is expected where, and which key to set."""
        if self._data_root is None:
            what = "no data_root given"
        elif not self._data_root.is_dir():
            what = f"{self._data_root}: no such folder"
        else:
            what = f"{self._data_root}: {what or 'none of the expected annotation files'}"
        expected = "; or ".join(self.expected_files())
        return UserError(f"{self.name}: {what}; set data_root=FOLDER to a folder that holds {expected}")

    def check_split(self, split: str) -> str:
        """Raises UserError unless the dataset has this split."""
        if split not in self.splits:
            raise UserError(f"{self.name} has no split {split!r}; there are: {', '.join(self.splits)}")
        return split

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

    def load(self, split: str) -> AnnotationTable:
        """The annotation table of ``split``, memory-mapped from the cache; built on first use or when a source changed.

        Raises:
            UserError: if files are missing or damaged, or (``on_bad_sample="error"``) if a sample cannot be used.
        """
        self.check_split(split)
        sums = {self._label(path): self._sha256(path) for path in self.sources(split)}
        identity = [type(self).__qualname__, self.name, self.version, SCHEMA.to_string(), split, self.options(), sums]
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        path = self.cache_dir / "tables" / f"{re.sub(r'[^a-z0-9]+', '-', self.name)}-{split}-{key[:24]}.arrow"
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
            if self.on_bad_sample == "error":
                raise UserError(f"{first}; set on_bad_sample=skip to leave out {total} such expression(s) of {split}")
            log.warning("%s %s: %d expression(s) left out: %s", self.name, split, total, skipped)
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
        with contextlib.suppress(OSError):
            memo.parent.mkdir(parents=True, exist_ok=True)
            temporary = memo.with_name(f".{memo.name}.{uuid.uuid4().hex}")
            temporary.write_text(json.dumps({"path": str(path), "state": state, "sha256": digest}))
            temporary.replace(memo)
        return digest

    # ---- images

    @cached_property
    def image_root(self) -> Path | None:
        """The image folder: as given, else the first usual place that exists; None if there is none.

        Raises:
            UserError: if one was given and does not exist.
        """
        if self._image_root is not None:
            if not self._image_root.is_dir():
                raise UserError(f"{self.name}: {self._image_root}: no such folder; set image_root=FOLDER")
            return self._image_root
        if self._data_root is None:
            return None
        for base in (self._data_root, *list(self._data_root.resolve().parents)[:2]):
            for folder in self.image_folders:
                if (base / folder).is_dir():
                    return base / folder
        return None

    def find_image(self, image: str) -> Path | None:
        """The file of ``image`` (a value of the table's image column), or None if it is not on disk."""
        root = self.image_root
        if root is None:
            return None
        for name in self._names(image):
            path = root / name
            if path.is_file():
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
            BadSample: if the file is missing or no image.
        """
        from PIL import Image

        path = self.find_image(image)
        if path is None:
            raise BadSample(MISSING_IMAGE, f"{image} in {self.image_root or 'no image folder'}; set image_root=FOLDER")
        try:
            with Image.open(path) as opened:
                return check_size(*opened.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise BadSample("image file that is no image", f"{path}: {error}") from None

    # ---- verification

    def verify(
        self,
        decode: bool = False,
        splits: str | Sequence[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Report:
        """Compare what is on disk with what was published, and check every sample, image and mask.

        Args:
            decode: decode every image instead of reading its header only.
            splits: see :meth:`parse_splits`; splits without files are reported, not raised.
            progress: called with (images looked at, all images) now and then.
        """
        report = Report(self.name, self.title, str(self.data_root), str(self.image_root or "none found"))
        images: dict[str, dict[str, tuple[int, int]]] = {}
        checker = type(self).__new__(type(self))
        checker.__dict__.update(self.__dict__, on_bad_sample="skip")
        with checker.one_pass():
            for split in self.parse_splits(splits):
                try:
                    table = checker.load(split)
                except UserError as error:
                    report.problems.append(f"{split}: {error}")
                    continue
                report.splits.append(_count(self, split, table))
                report.sources.update(table.info["sources"])
                report.notes.extend(f"{split}: {note}" for key in ("warnings", "notes") for note in table.info[key])
                report.problems.extend(_check_table(split, table))
                sizes = zip(table.column("width").tolist(), table.column("height").tolist(), strict=True)
                images[split] = dict(zip(table.column("image").tolist(), sizes, strict=True))
        _check_shared(report, images, self.disjoint)
        sizes_of_all = {name: size for part in images.values() for name, size in part.items()}
        _check_images(report, self, sizes_of_all, decode, progress)
        return report


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def folder_state(path: Path) -> str:
    """Digest of names, sizes and modification times of the files directly in a folder."""
    with os.scandir(path) as entries:
        found = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries)
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def folder_sha256(path: Path) -> str:
    """SHA-256 over names and contents of the files directly in a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        digest.update(f"{file.name}\0{file_sha256(file)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


@dataclass(frozen=True)
class SplitReport:
    """Counts of one split beside the published ones; ``refs`` is None where the files do not tell."""

    split: str
    images: int
    refs: int | None
    expressions: int
    no_target: int
    published: Counts
    duplicates: int  # expressions that repeat (image, boxes, text) of an earlier one; they count
    masks: int  # expressions with a mask

    def differences(self) -> list[str]:
        pairs = [
            ("images", self.images, self.published.images),
            ("refs", self.refs, self.published.refs),
            ("expressions", self.expressions, self.published.expressions),
        ]
        return [
            f"{self.split}: {found:,} {what}, published {wanted:,} ({found - wanted:+,})"
            for what, found, wanted in pairs
            if found is not None and wanted is not None and found != wanted
        ]


@dataclass
class Report:
    """Result of :meth:`GroundingData.verify`.

    Attributes:
        splits: counts per split that could be read.
        problems: what is wrong, one line each.
        notes: what is worth knowing but not wrong.
        missing_images: names of images that are not on disk.
        checked_images: how many image files were opened.
        sources: annotation file -> SHA-256.
    """

    name: str
    title: str
    data_root: str
    image_root: str
    splits: list[SplitReport] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing_images: list[str] = field(default_factory=list)
    checked_images: int = 0
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def differences(self) -> list[str]:
        """Where counts are not the published ones."""
        return [line for split in self.splits for line in split.differences()]

    @property
    def ok(self) -> bool:
        """True if nothing is missing, nothing is wrong, and all counts are the published ones."""
        return bool(self.splits) and not (self.problems or self.missing_images or self.differences)

    def lines(self) -> list[str]:
        """The report as text."""

        def against(found: int | None, published: int | None) -> str:
            text = "-" if found is None else f"{found:,}"
            if published is None:
                return text
            return f"{text} (= published)" if found == published else f"{text} (published {published:,})"

        lines = [f"{self.title} ({self.name})", f"annotations: {self.data_root}", f"images: {self.image_root}"]
        header = ["split", "images", "refs", "expressions", "no target", "with mask", "duplicates"]
        body = [
            [
                part.split,
                against(part.images, part.published.images),
                against(part.refs, part.published.refs),
                against(part.expressions, part.published.expressions),
                f"{part.no_target:,}",
                f"{part.masks:,}",
                f"{part.duplicates:,}",
            ]
            for part in self.splits
        ]
        widths = [max(len(row[i]) for row in [header, *body]) for i in range(len(header))]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [header, *body]
        ]
        lines += [f"PROBLEM {line}" for line in self.problems]
        lines += [f"COUNT {line}" for line in self.differences]
        lines += [f"note: {line}" for line in self.notes]
        if self.missing_images:
            first = ", ".join(self.missing_images[:5])
            more = ", ..." if len(self.missing_images) > 5 else ""
            lines.append(f"MISSING {len(self.missing_images):,} image files: {first}{more}")
        lines.append(f"images opened: {self.checked_images:,}")
        lines += [f"sha256 {digest}  {name}" for name, digest in self.sources.items()]
        counts = "counts differ from the published ones" if self.differences else "all counts are the published ones"
        rest = f"{len(self.problems):,} problem(s), {len(self.missing_images):,} image(s) missing"
        lines.append(f"{'OK' if self.ok else 'NOT OK'}: {counts}, {rest}")
        return lines


def _count(data: GroundingData, split: str, table: AnnotationTable) -> SplitReport:
    columns = [table.arrow.column(name).to_pylist() for name in ("image_id", "boxes", "expression")]
    seen = {(image, tuple(boxes), text) for image, boxes, text in zip(*columns, strict=True)}
    refs = None
    if table.info["group_unit"] == "ref":
        refs = len(np.unique(table.column("group")))
    elif table.arrow.column("ref_id").null_count == 0 and len(table):
        refs = len(np.unique(table.column("ref_id")))
    return SplitReport(
        split=split,
        images=len(np.unique(table.column("image"))),
        refs=refs,
        expressions=len(table),
        no_target=sum(not boxes for boxes in columns[1]),
        published=data.splits[split],
        duplicates=len(table) - len(seen),
        masks=sum(bool(masks) for masks in table.arrow.column("masks").to_pylist()),
    )


def _check_table(split: str, table: AnnotationTable) -> list[str]:
    """Boxes against the image and against their masks; what was skipped or has a double id."""
    problems = [
        f"{split}: {count:,} expression(s) cannot be used: {table.info['skipped_examples'][reason]}"
        for reason, count in table.info["skipped"].items()
    ]
    if table.info["duplicate_keys"]:
        problems.append(f"{split}: {table.info['duplicate_keys']:,} expression(s) have an id that another one has")
    leaving, apart, worst = 0, 0, ""
    checked: set[tuple[int, tuple[float, ...]]] = set()
    for row in table:
        identity = (row.image_id, tuple(row.boxes.reshape(-1).tolist()))
        if identity in checked or row.no_target:
            continue
        checked.add(identity)
        size = np.array([row.width, row.height, row.width, row.height])
        leaving += bool((row.boxes[:, :2] < -0.5).any() or (row.boxes > size + 0.5).any())  # two decimals are rounded
        if row.masks:
            around = coco_mask.toBbox(list(row.masks)).reshape(-1, 4)
            around = np.concatenate([around[:, :2], around[:, :2] + around[:, 2:]], 1)
            empty = np.array([polygons == 0 for polygons in row.polygons]) & (around[:, 2] <= around[:, 0])
            low, high = np.maximum(around[:, :2], row.boxes[:, :2]), np.minimum(around[:, 2:], row.boxes[:, 2:])
            inter = np.prod(np.maximum(high - low, 0), 1)
            areas = [np.prod(b[:, 2:] - b[:, :2], 1) for b in (around, row.boxes)]
            iou = inter / np.maximum(areas[0] + areas[1] - inter, 1e-9)
            if bool(((iou <= 0.5) & ~empty).any()):
                apart += 1
                worst = worst or f"{row.key}, box IoU {float(iou.min()):.2f}"
    if leaving:
        problems.append(f"{split}: {leaving:,} target(s) have a box that leaves the image by more than half a pixel")
    if apart:
        problems.append(f"{split}: {apart:,} target(s) have a mask that does not fit the box (first: {worst})")
    return problems


def _check_shared(report: Report, images: dict[str, dict[str, tuple[int, int]]], disjoint: bool) -> None:
    names = list(images)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            shared = len(images[first].keys() & images[second].keys())
            if shared:
                line = f"{first} and {second} share {shared:,} images"
                (report.problems if disjoint else report.notes).append(line)


def _check_images(
    report: Report,
    data: GroundingData,
    sizes: dict[str, tuple[int, int]],
    decode: bool,
    progress: Callable[[int, int], None] | None,
) -> None:
    from PIL import Image

    def check(item: tuple[str, tuple[int, int]]) -> tuple[str, str | None]:
        name, size = item
        path = data.find_image(name)
        if path is None:
            return name, None
        try:
            with Image.open(path) as image:
                if image.size != size:
                    return name, f"{path}: {image.width} x {image.height}, annotations say {size[0]} x {size[1]}"
                if decode:
                    image.load()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return name, f"{path}: not a readable image ({error})"
        return name, ""

    results: list[tuple[str, str | None]] = []
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:  # PIL decodes without the GIL
        for result in pool.map(check, sorted(sizes.items())):
            results.append(result)
            if progress is not None and (len(results) % 100 == 0 or len(results) == len(sizes)):
                progress(len(results), len(sizes))
    report.missing_images = [name for name, problem in results if problem is None]
    report.checked_images = sum(problem is not None for _, problem in results)
    wrong = [problem for _, problem in results if problem]
    report.problems.extend(wrong[:10])
    if len(wrong) > 10:
        report.problems.append(f"... and {len(wrong) - 10:,} more images")
