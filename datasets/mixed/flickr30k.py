"""Flickr30k Entities: the noun phrases of image captions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError
from vgbench.data.dataset import Counts
from vgbench.data.layouts.base import Layout, LayoutDataset
from vgbench.data.layouts.entities import EntitiesLayout, InfoGroundLayout
from vgbench.data.layouts.mdetr import MDETRLayout, MDETRNames
from vgbench.data.layouts.seqtr import SeqTRLayout
from vgbench.data.layouts.transvg import TransVGLayout

__all__ = ["Flickr30k"]


class Flickr30k(LayoutDataset):
    """Noun phrases of Flickr30k Entities (Plummer et al., ICCV 2015).

    Args:
        boxes: "merged": one box per phrase, around all that belong to it (TransVG's, SeqTR's and SimVG's protocol, task
            rec); "separate": all of them, any of which is right (MDETR's, task phrase; AMC's pointing game).
        options: see :class:`~vgbench.data.layouts.base.LayoutDataset`.
    """

    name = "flickr30k"
    title = "Flickr30k Entities"
    tasks: tuple[str, ...] = ("rec",)
    licence = "see the authors' page; images: Flickr terms"
    homepage = "https://github.com/BryanPlummer/flickr30k_entities"
    source = "flickr"
    canonical_name = "{:d}.jpg"
    layouts: tuple[type[Layout], ...] = (
        *(SeqTRLayout, TransVGLayout, MDETRLayout),
        *(EntitiesLayout, InfoGroundLayout),
    )
    corner_boxes = True
    phrases = True
    version = 3
    image_folders = (
        *("images/flickr30k", "flickr30k", "flickr30k_images", "flickr30k-images", "Flickr30k/flickr30k_images"),
        *("ln_data/Flickr30k/flickr30k_images", "images/flickr30k_images", "images/flickr30k-images"),
    )
    image_names = ("{:d}.jpg",)
    layout_names: Mapping[str, Any] = {
        "seqtr": ("flickr30k",),
        "transvg": ("flickr",),
        "mdetr": MDETRNames(("final_flickr_separateGT", "final_flickr_mergedGT")),
        "entities": ("flickr30k_entities", "Flickr30kEntities", "flickr30k"),
        "infoground": ("flickr30k", "flickr", "proc", "info-ground"),
    }
    splits: Mapping[str, Counts] = {
        "train": Counts(29_779, None, 427_193),
        "val": Counts(None, None, 14_433),
        "test": Counts(None, None, 14_481),
    }

    def __init__(self, data_root: str | Path | None = None, *, boxes: str = "merged", **options: Any) -> None:
        if boxes not in ("merged", "separate"):
            raise UserError(f"{self.name}: boxes={boxes!r} is not known; use merged or separate")
        self.separate_boxes = boxes == "separate"
        if self.separate_boxes:  # the other layouts hold one box per phrase
            self.layouts = (EntitiesLayout, InfoGroundLayout, MDETRLayout)
            self.layout_names = {**self.layout_names, "mdetr": MDETRNames(("final_flickr_separateGT",))}
            self.tasks = ("phrase", "pointing")
            self.splits = dict.fromkeys(self.splits, Counts())  # published ones are of the lists
        super().__init__(data_root, **options)

    def options(self) -> dict[str, Any]:
        return {**super().options(), "separate_boxes": self.separate_boxes}
