"""ReferItGame: expressions for objects and stuff regions of SAIAPR TC-12."""

from __future__ import annotations

from typing import ClassVar

from vgbench.data.dataset import Counts
from vgbench.data.layouts.hub import BenchmarkLayout
from vgbench.data.layouts.refer import ReferLayout, ReferNames
from vgbench.data.layouts.seqtr import SeqTRLayout
from vgbench.data.layouts.transvg import TransVGLayout
from vgbench.datasets.refer import ReferDataset, Variants

__all__ = ["ReferIt"]


class ReferIt(ReferDataset):
    """ReferItGame expressions on SAIAPR TC-12 (Kazemzadeh et al., EMNLP 2014); objects and stuff regions."""

    name = "referit"
    title = "ReferItGame"
    disagreements = ("the berkeley split lacks 2 training images and 1 test image, say its authors",)
    licence = "see the authors' page"
    homepage = "https://github.com/lichengunc/refer"
    source = "saiaprtc12"
    canonical_name = "{:d}.jpg"
    layouts = (ReferLayout, SeqTRLayout, BenchmarkLayout, TransVGLayout)
    corner_boxes = True
    image_folders = (
        *("images/saiaprtc12", "images/saiapr_tc-12", "saiaprtc12", "saiapr_tc-12", "referit/images"),
        *("ln_data/referit/images", "images/referit"),
    )
    image_names = ("{:d}.jpg",)
    published_split_by = "berkeley"
    published_names = ("refclef",)
    variants: ClassVar[Variants] = {
        "berkeley": (
            {
                "train": Counts(8_994, None, 54_127),
                "val": Counts(None, None, 5_842),
                "test": Counts(None, None, 60_103),
            },
            {
                "refer": ReferNames(("refclef",), ("refs(berkeley).p", "refs(berkeley).json")),
                "seqtr": ("referitgame-berkeley",),
                "transvg": ("referit",),
                "benchmark": "refclef_berkeley",
            },
        ),
        "unc": (
            {
                "train": Counts(),
                "val": Counts(2_000),
                "testA": Counts(485),
                "testB": Counts(490),
                "testC": Counts(465),
            },
            {
                "refer": ReferNames(("refclef",), ("refs(unc).p", "refs(unc).json")),
                "benchmark": "refclef_unc",
            },
        ),
    }
