"""Layouts: the forms in which one and the same dataset lies on people's disks, each recognised by its files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from vgbench.core.errors import UserError
from vgbench.core.registry import datasets
from vgbench.data.builder import TableBuilder
from vgbench.data.dataset import GroundingData
from vgbench.data.scene import Scenes
from vgbench.data.table import AnnotationTable


class Layout(ABC):
    """One layout of one dataset, found on disk.

    What a dataset is called in a layout stands in its :attr:`~GroundingData.layout_names` under the layout's ``key``;
    in what form, the layout says.
    """

    key: ClassVar[str]

    def __init__(self, data: LayoutDataset, files: dict[str, Path]) -> None:
        self.data = data
        self.files = files

    @classmethod
    def folder_names(cls, names: Any) -> tuple[str, ...]:
        """Those of a dataset's names that are folders of its own: no other dataset is looked for in them."""
        return ()

    @classmethod
    @abstractmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        """The layout if its files are below ``data.data_root``, else None."""

    @classmethod
    @abstractmethod
    def expects(cls, data: LayoutDataset) -> str:
        """The files of this layout in words; empty if the dataset does not exist in it."""

    @abstractmethod
    def sources(self, split: str) -> list[Path]:
        """Annotation files of ``split``; empty if this layout does not have the split."""

    @abstractmethod
    def read(self, split: str) -> AnnotationTable:
        """Parse ``split``."""

    def scenes(self, split: str) -> Scenes | None:
        """All annotated objects of the images of ``split``; None: this layout has only those that are referred to."""
        return None


def folders(root: Path, names: Sequence[str]) -> Iterator[Path]:
    """Existing folders called ``names`` in the usual places; also ``root``, unless it is called as another dataset."""
    for name in names:
        for place in (
            root / name,
            root / "annotations" / name,
            root / "data" / name,
            root / "data" / "annotations" / name,
            root / "seqtr_type" / "annotations" / name,
            root / "data" / "seqtr_type" / "annotations" / name,
        ):
            if place.is_dir():
                yield place
    if root.resolve().name in names or root.resolve().name not in dataset_folders():
        yield root


@cache
def dataset_folders() -> frozenset[str]:
    """What the folders of registered datasets are called."""
    names: set[str] = set()
    for data in datasets.classes():
        if issubclass(data, LayoutDataset):
            names |= data.folder_names()
    return frozenset(names)


class LayoutDataset(GroundingData):
    """A dataset that may lie on disk in several layouts.

    Args:
        layout: take this layout only (:attr:`Layout.key`); None: the first whose files are there and hold the split.
    """

    layouts: tuple[type[Layout], ...]
    source: ClassVar[str] = "coco"  # value of the table's source column
    canonical_name: ClassVar[str] = "COCO_train2014_{:012d}.jpg"  # image name where annotations give the id only
    multi_target: ClassVar[bool] = False
    phrases: ClassVar[bool] = False  # expressions are noun phrases of longer sentences (Flickr30k)
    separate_boxes: bool = False  # a phrase keeps all its boxes instead of the one around them
    corner_boxes: ClassVar[bool] = False  # the TransVG lists have xyxy instead of xywh
    file_suffix_is_ann_id: ClassVar[bool] = False  # what the number after the image id in ref file names is

    def __init__(self, data_root: str | Path | None = None, *, layout: str | None = None, **options: Any) -> None:
        super().__init__(data_root, **options)
        if layout is not None and layout not in [kind.key for kind in self.layouts]:
            keys = ", ".join(kind.key for kind in self.layouts)
            raise UserError(f"{self.name}: no layout {layout!r}; there are: {keys}")
        self._layout = layout

    @classmethod
    def all_layout_names(cls) -> Iterator[Mapping[str, Any]]:
        """:attr:`layout_names` for each of the dataset's options."""
        yield cls.layout_names

    @classmethod
    def folder_names(cls) -> set[str]:
        """What the dataset's own folders are called in its layouts."""
        return {
            folder.rpartition("/")[2]
            for names in cls.all_layout_names()
            for layout in cls.layouts
            if layout.key in names
            for folder in layout.folder_names(names[layout.key])
        }

    @property
    def task(self) -> Literal["rec", "grec", "phrase"]:
        """What the expressions of the table ask for; a column of its description."""
        return "grec" if self.multi_target else "phrase" if self.separate_boxes else "rec"

    def expected_files(self) -> list[str]:
        return [text for kind in self.layouts if (text := kind.expects(self))]

    @cached_property
    def found_layouts(self) -> list[Layout]:
        """All layouts whose files are on disk.

        Raises:
            UserError: if there are none.
        """
        self.data_root  # noqa: B018 (raises if it is not there)
        kinds = [kind for kind in self.layouts if self._layout in (None, kind.key)]
        layouts = [layout for kind in kinds if (layout := kind.find(self)) is not None]
        if not layouts:
            raise self.missing()
        return layouts

    def layout_of(self, split: str) -> Layout:
        """The layout that ``split`` is read from.

        Raises:
            UserError: if no layout on disk holds it.
        """
        for layout in self.found_layouts:
            if layout.sources(split):
                return layout
        kinds = ", ".join(layout.key for layout in self.found_layouts)
        raise self.missing(f"no annotations of split {split!r} (found the {kinds} layout)")

    def sources(self, split: str) -> list[Path]:
        return self.layout_of(self.check_split(split)).sources(split)

    def read(self, split: str) -> AnnotationTable:
        """Parse ``split`` from the first layout on disk that holds it; raises UserError if none does."""
        return self.layout_of(self.check_split(split)).read(split)

    def scenes(self, split: str) -> Scenes | None:
        return self.layout_of(self.check_split(split)).scenes(split)

    def options(self) -> dict[str, Any]:
        return {"layout": self._layout}

    def builder(self, split: str, layout: Layout, group_unit: str = "ref") -> TableBuilder:
        """An empty table of ``split`` that says which layout it is read from."""
        builder = TableBuilder(self.name, split, self.task, group_unit)
        builder.info["layout"] = layout.key
        return builder
