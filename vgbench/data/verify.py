"""What is on disk against what was published: counts, boxes, masks, images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco_mask

from vgbench.core.errors import UserError
from vgbench.core.processes import usable_cores
from vgbench.data.boxes import iou
from vgbench.data.dataset import Counts, GroundingData
from vgbench.data.images import open_image_file
from vgbench.data.pixels import IMAGE_ERRORS
from vgbench.data.table import AnnotationTable


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
            f"{self.split}: {count:,} {what}, published {published:,} ({count - published:+,})"
            for what, count, published in pairs
            if count is not None and published is not None and count != published
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
        uncompared: splits whose counts are published, and that could not be read.
        whole: whether counts are published for all splits together.
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
    uncompared: list[str] = field(default_factory=list)
    whole: bool = False

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

        def against(count: int | None, published: int | None) -> str:
            text = "-" if count is None else f"{count:,}"
            if published is None:
                return text
            return f"{text} (= published)" if count == published else f"{text} (published {published:,})"

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
        counts = self._verdict()
        rest = f"{len(self.problems):,} problem(s), {len(self.missing_images):,} image(s) missing"
        lines.append(f"{'OK' if self.ok else 'NOT OK'}: {counts}, {rest}")
        return lines

    def _verdict(self) -> str:
        """What came of the comparison with published counts, in words."""
        if self.differences:
            return "counts differ from the published ones"
        if self.uncompared:
            return f"the published counts of {', '.join(self.uncompared)} could not be compared: they were not read"
        if any(part.published != Counts() for part in self.splits):
            return "all counts are the published ones"
        if self.whole:
            return "counts are published for all splits together only, see the notes"
        return "no counts are published to compare with"


def verify(
    data: GroundingData,
    decode: bool = False,
    splits: str | Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Compare what is on disk with what was published, and check every sample, image and mask.

    Args:
        data: the dataset.
        decode: decode every image instead of reading its header only.
        splits: see :meth:`GroundingData.parse_splits`; splits without files are reported, not raised.
        progress: called with (images looked at, all images) now and then.
    """
    report = Report(data.name, data.title, str(data.data_root), str(data.image_root or "none found"))
    images: dict[str, dict[str, tuple[int, int]]] = {}
    with data.one_pass():
        for split in data.parse_splits(splits):
            try:
                table = data.load(split, on_bad_sample="skip")
            except UserError as error:
                report.problems.append(f"{split}: {error}")
                if data.splits[split] != Counts():
                    report.uncompared.append(split)
                continue
            report.splits.append(count_split(data.splits[split], split, table))
            report.sources.update(table.info["sources"])
            report.notes.extend(f"{split}: {note}" for key in ("warnings", "notes") for note in table.info[key])
            report.problems.extend(check_table(split, table))
            sizes = zip(table.column("width").tolist(), table.column("height").tolist(), strict=True)
            images[split] = dict(zip(table.column("image").tolist(), sizes, strict=True))
    report.notes.extend(data.disagreements)
    compare_whole(report, data)
    check_shared(report, images, data.disjoint)
    sizes_of_all = {name: size for part in images.values() for name, size in part.items()}
    check_images(report, data, sizes_of_all, decode, progress)
    return report


def compare_whole(report: Report, data: GroundingData) -> None:
    """The sum over all splits beside the counts of the whole, where there are some."""
    report.whole = bool(data.whole)
    if not data.whole or {part.split for part in report.splits} != set(data.splits):
        return
    total = sum(part.expressions for part in report.splits)
    same = [who for who, count in data.whole.items() if count == total]
    others = ", ".join(f"{who} {count:,} ({total - count:+,})" for who, count in data.whole.items() if count != total)
    beside = f", as {' and '.join(same)} has" if same else ""
    report.notes.append(f"all splits together: {total:,} expressions{beside}{f'; {others}' if others else ''}")


def count_split(published: Counts, split: str, table: AnnotationTable) -> SplitReport:
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
        published=published,
        duplicates=len(table) - len(seen),
        masks=sum(bool(masks) for masks in table.arrow.column("masks").to_pylist()),
    )


def check_table(split: str, table: AnnotationTable) -> list[str]:
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
            overlaps = iou(around, row.boxes)
            if bool(((overlaps <= 0.5) & ~empty).any()):
                apart += 1
                worst = worst or f"{row.key}, box IoU {float(overlaps.min()):.2f}"
    if leaving:
        problems.append(f"{split}: {leaving:,} target(s) have a box that leaves the image by more than half a pixel")
    if apart:
        problems.append(f"{split}: {apart:,} target(s) have a mask that does not fit the box (first: {worst})")
    return problems


def check_shared(report: Report, images: dict[str, dict[str, tuple[int, int]]], disjoint: bool) -> None:
    names = list(images)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            shared = len(images[first].keys() & images[second].keys())
            if shared:
                line = f"{first} and {second} share {shared:,} images"
                (report.problems if disjoint else report.notes).append(line)


def check_images(
    report: Report,
    data: GroundingData,
    sizes: dict[str, tuple[int, int]],
    decode: bool,
    progress: Callable[[int, int], None] | None,
) -> None:
    def check(item: tuple[str, tuple[int, int]]) -> tuple[str, str | None]:
        name, size = item
        path = data.find_image(name)
        if path is None:
            return name, None
        try:
            with open_image_file(path) as image:
                if image.size != size:
                    return name, f"{path}: {image.width} x {image.height}, annotations say {size[0]} x {size[1]}"
                if decode:
                    image.load()
        except IMAGE_ERRORS as error:
            return name, f"{path}: not a readable image ({error})"
        return name, ""

    # Threads: PIL decodes without the GIL, only a photograph's header (0.06 of 1.5 ms) holds it. Processes took a fifth
    # more CPU time and half a second to start.
    results: list[tuple[str, str | None]] = []
    with ThreadPoolExecutor(max_workers=min(16, usable_cores())) as pool:
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
