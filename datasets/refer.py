"""Referring-expression datasets of the RefCOCO kind, read from whichever layout is on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from vgbench.core.errors import UserError
from vgbench.data.dataset import Counts
from vgbench.data.layouts.base import Layout, LayoutDataset
from vgbench.data.layouts.flat import MiniGPTLayout, QwenLayout, VLMR1Layout
from vgbench.data.layouts.hub import BenchmarkLayout, HubLayout
from vgbench.data.layouts.lmms import LmmsLayout
from vgbench.data.layouts.mdetr import MDETRLayout
from vgbench.data.layouts.refer import ReferLayout
from vgbench.data.layouts.seqtr import SeqTRLayout
from vgbench.data.layouts.tfds import TFDSLayout
from vgbench.data.layouts.transvg import TransVGLayout
from vgbench.datasets.vglaw_layout import VGLawLayout

__all__ = ["COCO_FOLDERS", "ReferDataset", "Variants"]

Variants = Mapping[str, tuple[Mapping[str, Counts], Mapping[str, Any]]]
"""split_by -> (splits with their published counts, what the dataset is called in each layout); the first is the usual
one."""

COCO_FOLDERS = (
    "images/mscoco/train2014",
    "images/mscoco/images/train2014",
    "mscoco/images/train2014",
    "mscoco/train2014",
    "other/images/mscoco/images/train2014",
    "ln_data/other/images/mscoco/images/train2014",
    "images/train2014",
    "coco/train2014",
    "coco/images/train2014",
    "train2014",
    "images/mscoco/train2017",
    "images/train2017",
    "coco/train2017",
    "train2017",
)


class ReferDataset(LayoutDataset):
    """A dataset with refs (one object, several sentences) whose split and files depend on who made the splits.

    A subclass gives ``variants`` (:data:`Variants`). ``multi_target``: several targets or none (gRefCOCO).

    Args:
        split_by: author of the split, e.g. "unc" or "google".
        options: see :class:`~vgbench.data.dataset.GroundingData` and :class:`~vgbench.data.layouts.base.LayoutDataset`.
    """

    tasks = ("rec", "res")
    layouts: tuple[type[Layout], ...] = (
        ReferLayout,
        SeqTRLayout,
        HubLayout,
        BenchmarkLayout,
        TFDSLayout,
        LmmsLayout,
        VGLawLayout,
        MDETRLayout,
        TransVGLayout,
        VLMR1Layout,
        MiniGPTLayout,
        QwenLayout,
    )
    image_folders: ClassVar[tuple[str, ...]] = COCO_FOLDERS
    variants: ClassVar[Variants]
    shared_images: ClassVar[tuple[str, ...]] = ()  # split_by whose splits share images

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.usual_split_by, (cls.splits, cls.layout_names) = next(iter(cls.variants.items()))

    def __init__(self, data_root: str | Path | None = None, *, split_by: str | None = None, **options: Any) -> None:
        split_by = next(iter(self.variants)) if split_by is None else split_by
        if split_by not in self.variants:
            raise UserError(f"{self.name}: no split_by={split_by!r}; there are: {', '.join(self.variants)}")
        self.split_by = split_by
        self.splits, self.layout_names = self.variants[split_by]
        self.disjoint = split_by not in self.shared_images
        super().__init__(data_root, **options)

    @classmethod
    def all_layout_names(cls) -> Iterator[Mapping[str, Any]]:
        return (names for _, names in cls.variants.values())

    def options(self) -> dict[str, Any]:
        return {**super().options(), "split_by": self.split_by}
