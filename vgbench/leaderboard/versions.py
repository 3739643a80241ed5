"""Which results were scored on the same questions, whichever layout these were read from, and how others differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vgbench.leaderboard.columns import Column, Split
from vgbench.metrics.tasks import SUITE, task_of
from vgbench.records.record import Record

# what two versions of a split differ in, by the first level at which they do
_DIFFERENCES = {
    "images": "other images",
    "expressions": "other expressions on the same images",
    "boxes": "other boxes for the same expressions",
    "masks": "other masks for the same boxes",
}


class _Version(NamedTuple):
    split: Split
    data_hash: str


class Versions:
    """The versions of the splits that records were scored on.

    Two data hashes are one version if the metrics of the task see the same: images, expressions and boxes, and masks
    where they look at these. Records without that information (``Result.content``) go by their data hash alone.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._content: dict[_Version, Mapping[str, str]] = {}
        for record in records:
            for result in record.results:
                if result.content:
                    split = Split(result.embedded, result.task, result.dataset, result.split_by, result.split)
                    self._content[_Version(split, result.data_hash)] = result.content
        self._hashes: dict[_Version, list[str]] = {}  # split and content -> data hashes
        for version, content in self._content.items():
            seen = _seen(version.split.task, content)
            self._hashes.setdefault(_Version(version.split, seen), []).append(version.data_hash)

    def layouts(self, column: Column) -> list[str]:
        """The data hashes that are the same question as a column's, sorted."""
        content = self._content.get(_Version(column.named_split, column.data_hash))
        if content is None:
            return [column.data_hash]
        return sorted(self._hashes[_Version(column.named_split, _seen(column.task, content))])

    def joined(self, column: Column) -> Column:
        """The column for all layouts of the same questions: under the first of their data hashes."""
        return column._replace(data_hash=self.layouts(column)[0])

    def difference(self, first: Column, second: Column) -> str | None:
        """How the questions of two columns of one split differ, in words; None where nobody knows."""
        contents = [self._content.get(_Version(column.named_split, column.data_hash)) for column in (first, second)]
        if contents[0] is None or contents[1] is None:
            return None
        levels = (level for level in _DIFFERENCES if contents[0].get(level) != contents[1].get(level))
        return next((_DIFFERENCES[level] for level in levels), None)


def _seen(task: str, content: Mapping[str, str]) -> str:
    """Hash of what a task's metrics look at; of a plug-in's metric nobody knows."""
    boxes_alone = task in SUITE and task_of(task).answer == "boxes"
    return content.get("boxes" if boxes_alone else "masks", "")
