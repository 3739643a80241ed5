"""Named filters: evaluation sets without the expressions that somebody found to be wrong, over the same files.

Lists stay where their authors publish them; a filtered dataset has a name of its own (``<dataset>@<filter>``), so that
its results never stand in one column with those of the whole set.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vgbench.core.errors import UserError
from vgbench.core.registry import datasets
from vgbench.data.checks import BadSample, read_json, take
from vgbench.data.table import AnnotationTable


class Filter(ABC):
    """Which expressions of a split to leave out."""

    name: str

    @abstractmethod
    def covers(self, split: str) -> bool:
        """False: the split stays whole."""

    @abstractmethod
    def file(self, split: str) -> Path:
        """The file that tells what to leave out of ``split``.

        Raises:
            UserError: if it is not there.
        """

    @abstractmethod
    def left_out(self, table: AnnotationTable, split: str) -> np.ndarray:
        """Boolean per row: leave it out.

        Raises:
            UserError: if the list is damaged, or names expressions that the table does not have.
        """

    def apply(self, table: AnnotationTable, split: str) -> AnnotationTable:
        """``table`` without them; ``info["filter"]`` says which filter and how many expressions it took."""
        out = self.left_out(table, split)
        rest = table.take(np.flatnonzero(~out))
        rest.info = {**table.info, "filter": {"name": self.name, "left_out": int(out.sum())}}
        return rest


class NamedFilter(Filter):
    """A filter that was published for some datasets and is opened by its name (``filters`` of a dataset class).

    Args:
        dataset: name of the dataset to filter.
        root: its data_root, where the lists are looked for.

    Raises:
        UserError: if the filter is not for this dataset, or its lists are not there.
    """

    name: str

    @abstractmethod
    def __init__(self, dataset: str, root: Path | None) -> None: ...


def named_filters() -> dict[str, type[NamedFilter]]:
    """The filters that registered datasets bring along."""
    return {kind.name: kind for data in datasets.classes() for kind in data.filters}


def open_filter(spec: str, dataset: str, splits: Collection[str], root: Path | None) -> Filter:
    """
    Args:
        spec: the name of a published filter (:class:`NamedFilter`), or a JSON file (:class:`ListFilter`).
        dataset: name of the dataset.
        splits: its splits.
        root: data_root, where the lists of named filters are looked for.

    Raises:
        UserError: if there is no such filter or file, or the file names a split that there is not.
    """
    published = named_filters()
    if spec in published:
        return published[spec](dataset, root)
    path = Path(spec).expanduser()
    if path.suffix != ".json" or not path.is_file():
        names = ", ".join(published)
        raise UserError(f"dataset.filter={spec}: neither a JSON file that is there nor the name of a filter ({names})")
    list_filter = ListFilter(path)
    unknown = sorted(list_filter.exclude.keys() - set(splits))
    if unknown:
        raise UserError(f"{path}: exclude: {dataset} has no split {unknown[0]!r}; there are: {', '.join(splits)}")
    return list_filter


class ListFilter(Filter):
    """A list of one's own: ``{"name": ..., "by": "sent_id", "exclude": {"val": [17, 23]}}``.

    ``by``: what the numbers (or keys) are: key, sent_id, ref_id, image_id or ann_id. Splits that are not under
    ``exclude`` stay whole.
    """

    COLUMNS: ClassVar = {"key": "key", "sent_id": "sent_id", "ref_id": "ref_id", "image_id": "image_id"}

    def __init__(self, path: Path) -> None:
        self.path = path
        content = read_json(path)
        try:
            self.name, self.by = take(content, "name", str), take(content, "by", str)
            self.exclude = {
                split: frozenset(take(content["exclude"], split, list)) for split in take(content, "exclude", dict)
            }
        except (BadSample, TypeError) as error:
            raise UserError(f"{path}: {error}; a filter has name, by and exclude (split -> list of ids)") from None
        if self.by not in (*self.COLUMNS, "ann_id"):
            raise UserError(f"{path}: by={self.by!r} is not known; use {', '.join(self.COLUMNS)} or ann_id")
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", self.name):
            raise UserError(f"{path}: name {self.name!r}: use lower-case letters, digits, dots and dashes")
        if self.name in named_filters():
            raise UserError(f"{path}: name {self.name!r} is that of a published review; choose another")

    def covers(self, split: str) -> bool:
        return split in self.exclude

    def file(self, split: str) -> Path:
        return self.path

    def left_out(self, table: AnnotationTable, split: str) -> np.ndarray:
        excluded = self.exclude[split]
        if self.by == "ann_id":
            ids: list[Any] = table.arrow.column("ann_ids").to_pylist()
            all_ids = {number for row in ids for number in row}
            out = [not excluded.isdisjoint(row) for row in ids]
        else:
            ids = table.arrow.column(self.COLUMNS[self.by]).to_pylist()
            all_ids = set(ids)
            out = [number in excluded for number in ids]
        unknown = excluded - all_ids
        if unknown:
            first = ", ".join(map(repr, sorted(unknown, key=str)[:3]))
            raise UserError(
                f"{self.path}: {len(unknown):,} of {len(excluded):,} {self.by} of {split} are not in the data "
                f"({first}); does the list belong to this dataset, split author and layout?"
            )
        return np.array(out, dtype=bool)
