"""gRefCOCO: expressions for no, one or several objects (Liu, Ding and Jiang, "GRES", CVPR 2023)."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar

from vgbench.data.dataset import Counts
from vgbench.data.layouts.hub import HubLayout
from vgbench.data.layouts.mdetr import MDETRLayout, MDETRNames
from vgbench.data.layouts.refer import ReferLayout, ReferNames
from vgbench.data.layouts.seqtr import SeqTRLayout
from vgbench.datasets.refer import ReferDataset, Variants

__all__ = ["GRefCOCO"]


class GRefCOCO(ReferDataset):
    """278,232 expressions on the images of RefCOCO, 80,022 with several targets and 32,202 without any (paper); the
    released file has 259,859.

    Counts per split were never published, so :meth:`verify` prints them beside those of the whole. ``train``, ``val``,
    ``testA`` and ``testB`` hold single-target expressions too: nothing has to be joined with RefCOCO.
    """

    name = "grefcoco"
    title = "gRefCOCO"
    disagreements = (
        "published for all splits together only: the paper has 278,232 expressions (80,022 with several targets, "
        "32,202 with none), 60,287 objects, 19,994 images; the released file has 259,859 expressions, because some 6 % "
        "are held back for a challenge (https://github.com/henghuiding/gRefCOCO/issues/6)",
    )
    whole = MappingProxyType({"the released file": 259_859, "the paper": 278_232})
    tasks = ("grec", "gres")
    licence = "see the authors' page; images: Flickr terms"
    homepage = "https://github.com/henghuiding/gRefCOCO"
    layouts = (ReferLayout, SeqTRLayout, MDETRLayout, HubLayout)
    multi_target = True
    published_split_by = "unc"
    variants: ClassVar[Variants] = {
        "unc": (
            {"train": Counts(), "val": Counts(), "testA": Counts(), "testB": Counts()},
            {
                "refer": ReferNames(("grefcoco",), ("grefs(unc).json", "grefs(unc).p")),
                "seqtr": ("grefcoco", "grefs", "grefs_grec"),
                "mdetr": MDETRNames(("finetune_grefcoco",)),
                "hub": ("grefcoco",),
            },
        )
    }
