"""RefCOCO, RefCOCO+ and RefCOCOg: expressions for single objects in COCO train2014 images (lichengunc/refer)."""

from __future__ import annotations

from typing import ClassVar

from vgbench.data.dataset import Counts
from vgbench.data.layouts.lmms import LmmsNames
from vgbench.data.layouts.mdetr import MDETRNames
from vgbench.data.layouts.refer import ReferNames
from vgbench.datasets.refer import ReferDataset, Variants

__all__ = ["RefCOCO", "RefCOCOPlus", "RefCOCOg"]

_LICENCE = "annotations of COCO: CC BY 4.0; images: Flickr terms; expressions: see the authors' page"
_HOMEPAGE = "https://github.com/lichengunc/refer"
_LMMS_REFCOCO = {"val": "3,811 rows of unc, 5,000 of google"}
_LMMS_REFCOCOG = {"val": "2,573 rows of umd, 5,000 of google"}


class RefCOCO(ReferDataset):
    """Short expressions typed in the two-player ReferItGame; location words allowed (Yu et al., ECCV 2016)."""

    name = "refcoco"
    title = "RefCOCO"
    disagreements = ("papers give 142,209 expressions for the unc splits together; the files hold 142,210",)
    licence = _LICENCE
    homepage = _HOMEPAGE
    published_split_by = "unc"
    variants: ClassVar[Variants] = {
        "unc": (
            {
                "train": Counts(16_994, 42_404, 120_624),
                "val": Counts(1_500, 3_811, 10_834),
                "testA": Counts(750, 1_975, 5_657),
                "testB": Counts(750, 1_810, 5_095),
            },
            {
                "refer": ReferNames(("refcoco",), ("refs(unc).p", "refs(unc).json")),
                "seqtr": ("refcoco-unc",),
                "transvg": ("unc",),
                "mdetr": MDETRNames(("finetune_refcoco",), "refcoco"),
                "hub": ("refcoco", "jxu124/refcoco"),
                "lmms": LmmsNames(("RefCOCO", "lmms-lab/RefCOCO"), _LMMS_REFCOCO),
                "benchmark": "refcoco_unc",
                "tfds": "refcoco_unc",
                "vglaw": ("refcoco(unc)",),
                "vlm-r1": ("refcoco",),
                "minigpt": ("refcoco",),
                "qwen": ("refcoco",),
            },
        ),
        "google": (
            {
                "train": Counts(19_213, 40_000, None),
                "val": Counts(4_559, 5_000, None),
                "test": Counts(4_527, 5_000, None),
            },
            {
                "refer": ReferNames(("refcoco",), ("refs(google).p", "refs(google).json")),
                "seqtr": ("refcoco-google",),
                "lmms": LmmsNames(("RefCOCO", "lmms-lab/RefCOCO"), _LMMS_REFCOCO),
                "benchmark": "refcoco_google",
                "tfds": "refcoco_google",
                "vglaw": ("refcoco(google)",),
            },
        ),
    }
    shared_images = ("google",)


class RefCOCOPlus(ReferDataset):
    """As RefCOCO, but the players were not allowed to use location words."""

    name = "refcoco+"
    title = "RefCOCO+"
    licence = _LICENCE
    homepage = _HOMEPAGE
    published_split_by = "unc"
    variants: ClassVar[Variants] = {
        "unc": (
            {
                "train": Counts(16_992, 42_278, 120_191),
                "val": Counts(1_500, 3_805, 10_758),
                "testA": Counts(750, 1_975, 5_726),
                "testB": Counts(750, 1_798, 4_889),
            },
            {
                "refer": ReferNames(("refcoco+",), ("refs(unc).p", "refs(unc).json")),
                "seqtr": ("refcocoplus-unc",),
                "transvg": ("unc+",),
                "mdetr": MDETRNames(("finetune_refcoco+",), "refcoco+"),
                "hub": ("refcocoplus", "jxu124/refcocoplus"),
                "lmms": LmmsNames(("RefCOCOplus", "lmms-lab/RefCOCOplus")),
                "benchmark": "refcoco_plus_unc",
                "tfds": "refcocoplus_unc",
                "vglaw": ("refcoco+(unc)",),
                "vlm-r1": ("refcocop",),
                "minigpt": ("refcoco+",),
                "qwen": ("refcoco+",),
            },
        )
    }


class RefCOCOg(ReferDataset):
    """Long expressions from Mechanical Turk; "umd" splits by image, "google" by object (Mao et al., CVPR 2016)."""

    name = "refcocog"
    title = "RefCOCOg"
    disagreements = (
        "85,474 expressions are quoted for the whole set, with 54,822 objects and 26,711 images; the files hold 95,010 "
        "(umd), and 85,474 is the training split of google alone",
    )
    licence = _LICENCE
    homepage = _HOMEPAGE
    file_suffix_is_ann_id = True
    variants: ClassVar[Variants] = {
        "umd": (
            {
                "train": Counts(21_899, 42_226, 80_512),
                "val": Counts(1_300, 2_573, 4_896),
                "test": Counts(2_600, 5_023, 9_602),
            },
            {
                "refer": ReferNames(("refcocog",), ("refs(umd).p", "refs(umd).json")),
                "seqtr": ("refcocog-umd",),
                "transvg": ("gref_umd",),
                "mdetr": MDETRNames(("finetune_refcocog",), "refcocog"),
                "hub": ("refcocog", "jxu124/refcocog"),
                "lmms": LmmsNames(("RefCOCOg", "lmms-lab/RefCOCOg"), _LMMS_REFCOCOG),
                "benchmark": "refcocog_umd",
                "tfds": "refcocog_umd",
                "vglaw": ("refcocog(umd)",),
                "vlm-r1": ("refcocog",),
                "minigpt": ("refcocog",),
                "qwen": ("refcocog",),
            },
        ),
        "google": (
            {"train": Counts(24_698, 44_822, 85_474), "val": Counts(4_650, 5_000, 9_536)},
            {
                "refer": ReferNames(("refcocog",), ("refs(google).p", "refs(google).json")),
                "seqtr": ("refcocog-google",),
                "transvg": ("gref",),
                "lmms": LmmsNames(("RefCOCOg", "lmms-lab/RefCOCOg"), _LMMS_REFCOCOG),
                "benchmark": "refcocog_google",
                "tfds": "refcocog_google",
                "vglaw": ("refcocog(google)",),
            },
        ),
    }
    shared_images = ("google",)
