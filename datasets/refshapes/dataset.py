"""RefShapes: the embedded dataset. Generated on first use, then read by the very loaders of the RefCOCO family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vgbench.data.checks import read_json
from vgbench.data.dataset import Counts
from vgbench.data.layouts.base import Layout
from vgbench.data.layouts.refer import ReferLayout, ReferNames
from vgbench.data.scene import CATEGORY, Scenes
from vgbench.data.sketch import Sketcher
from vgbench.datasets.refer import ReferDataset, Variants
from vgbench.datasets.refshapes.build import IMAGE_FOLDER, IMAGES, POOLS, REFS_FILES, Options, ensure
from vgbench.datasets.refshapes.language import ADJECTIVES, AFTERWARDS, NOUNS
from vgbench.datasets.refshapes.scene import ATTRIBUTES

__all__ = ["GRefShapes", "RefShapes", "RefShapesG", "RefShapesPlus"]


# Exact counts of what the default options generate: images, refs, expressions (pretrain: images).
PUBLISHED = {
    "refshapes": {
        "train": Counts(3_600, 10_599, 28_221),
        "val": Counts(400, 1_178, 3_151),
        "testA": Counts(300, 782, 2_065),
        "testB": Counts(300, 817, 2_146),
        "pretrain": Counts(IMAGES["pretrain"]),
    },
    "refshapes+": {
        "train": Counts(3_600, 10_123, 27_025),
        "val": Counts(400, 1_097, 2_913),
        "testA": Counts(300, 773, 2_060),
        "testB": Counts(300, 793, 2_104),
        "pretrain": Counts(IMAGES["pretrain"]),
    },
    "refshapesg": {
        "train": Counts(3_600, 10_581, 20_993),
        "val": Counts(400, 1_163, 2_306),
        "testA": Counts(300, 768, 1_532),
        "testB": Counts(300, 814, 1_618),
        "pretrain": Counts(IMAGES["pretrain"]),
    },
    "grefshapes": {
        "train": Counts(3_600, 15_607, 34_739),
        "val": Counts(400, 1_741, 3_859),
        "testA": Counts(300, 1_242, 2_792),
        "testB": Counts(300, 1_254, 2_794),
        "pretrain": Counts(IMAGES["pretrain"]),
    },
}


def _variants(flavour: str, split_by: str) -> Variants:
    return {
        split_by: (
            PUBLISHED[flavour],
            {
                "refer": ReferNames((flavour,), (REFS_FILES[flavour],)),
            },
        )
    }


class RefShapes(ReferDataset):
    """Short expressions with attributes and absolute locations, one target each.

    Besides ``train``, ``val``, ``testA`` and ``testB`` there is a larger split ``pretrain`` of other scenes. It is
    generated only when it is asked for by name.

    Args:
        data_root: where the generated folders are kept; None: the cache folder.
        seed: seed of all scenes.
        side: width and height of the images in pixels.
        images: number of images per split, for the splits that shall differ from the default.
        options: see :class:`~vgbench.datasets.refer.ReferDataset`.

    Raises:
        UserError: if an option makes no sense.
    """

    name = "refshapes"
    title = "RefShapes"
    licence = "CC0 1.0 (generated)"
    homepage = "datasets/refshapes/README.md"
    embedded = True
    smoke_options = MappingProxyType({"images": {"train": 8, "val": 4, "testA": 3, "testB": 3}})
    source = "refshapes"
    layouts = (ReferLayout,)
    variants = _variants("refshapes", "unc")

    def __init__(
        self,
        data_root: str | Path | None = None,
        *,
        seed: int = 0,
        side: int = 128,
        images: Mapping[str, int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(data_root, **options)
        self.generator = Options.of(seed, side, images)
        if self.generator != Options.of():
            filtered = [split for split in IMAGES if self._filter is not None and self._filter.covers(split)]
            self.splits = {
                split: Counts() if split in filtered else Counts(count) for split, count in self.generator.images
            }
        self._layouts: dict[str, Layout] = {}

    @property
    def data_root(self) -> Path:
        """The folder of the generated pools; need not exist yet."""
        return (self._data_root or self.cache_dir) / self.generator.folder

    def pool(self, split: str) -> Path:
        """The folder that ``split`` lies in, generated on first use."""
        pool = next(name for name, splits in POOLS.items() if split in splits)
        return ensure(self.data_root.parent, self.generator, pool)

    def layout_of(self, split: str) -> Layout:
        if split not in self._layouts:
            names = self.layout_names[ReferLayout.key]
            folder = self.pool(self.check_split(split)) / names.folders[0]
            files = {"refs": folder / names.refs[0], "instances": folder / "instances.json"}
            self._layouts[split] = ReferLayout(self, files)
        return self._layouts[split]

    def scenes(self, split: str) -> Scenes | None:
        """As in every layout of its kind, with the attributes that ``scenes.json`` has."""
        plain = super().scenes(split)
        if plain is None:
            return None
        attributes = {
            item["ann_id"]: {name: item[name] for name in ATTRIBUTES if name != "shape"}
            for scene in read_json(self.pool(split) / "scenes.json").values()
            for item in scene["objects"]
        }
        return {
            image: tuple(replace(item, attributes={**item.attributes, **attributes[item.id]}) for item in objects)
            for image, objects in plain.items()
        }

    @classmethod
    def attribute_words(cls) -> Mapping[str, tuple[str, str]]:
        """Every noun and adjective of :mod:`~vgbench.datasets.refshapes.language`."""
        words = {word: (CATEGORY, shape) for shape, forms in NOUNS.items() if shape for pair in forms for word in pair}
        names = {value: name for name, values in ATTRIBUTES.items() for value in values}
        for table in (ADJECTIVES, AFTERWARDS):
            for value, phrases in table.items():
                words |= {phrase.split()[-1]: (names[value], value) for phrase in phrases}
        return words

    @classmethod
    def sentencepiece_model(cls) -> Path:
        from vgbench.datasets.refshapes import tokenizers

        return tokenizers.SENTENCEPIECE_MODEL

    @classmethod
    def wordpiece_vocabulary(cls) -> list[str]:
        from vgbench.datasets.refshapes import tokenizers

        return tokenizers.wordpiece_vocabulary()

    @classmethod
    def sketcher(cls) -> Sketcher:
        from vgbench.datasets.refshapes.sketch import sketch

        return Sketcher(RefShapes.title, frozenset({RefShapes.source}), sketch)

    def parse_splits(self, splits: str | Sequence[str] | None) -> tuple[str, ...]:
        """As for all datasets, but "all" leaves out ``pretrain``."""
        return POOLS["base"] if splits is None or splits == "all" else super().parse_splits(splits)

    @cached_property
    def image_root(self) -> Path:
        return self.data_root

    def find_image(self, image: str) -> Path | None:
        """The file of ``image`` in whichever pool it is, or None."""
        places = (self.data_root / pool / IMAGE_FOLDER / image for pool in POOLS)
        return next((path for path in places if path.is_file()), None)


class RefShapesPlus(RefShapes):
    """As RefShapes, without any word of location."""

    name = "refshapes+"
    title = "RefShapes+"
    variants = _variants("refshapes+", "unc")


class RefShapesG(RefShapes):
    """Long expressions, most of them by the relation to another object."""

    name = "refshapesg"
    title = "RefShapesg"
    variants = _variants("refshapesg", "umd")


class GRefShapes(RefShapes):
    """Expressions for no, one or several objects."""

    name = "grefshapes"
    title = "gRefShapes"
    tasks = ("grec", "gres")
    multi_target = True
    variants = _variants("grefshapes", "unc")
