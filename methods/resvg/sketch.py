"""Priors without any downloaded model: a sketch of the object that the expression names.

Stands in for text-to-image model and image encoder where neither is at hand; the interfaces are those of
:mod:`.priors`. Who can sketch is a dataset that knows its words (:meth:`GroundingData.sketcher`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from vgbench.core.errors import UserError
from vgbench.core.registry import datasets
from vgbench.data.sketch import Sketcher
from vgbench.data.table import AnnotationTable
from vgbench.methods.resvg.prompts import prompt, prompt_seed

__all__ = ["SketchGenerator", "ThumbnailEncoder", "sketch_priors", "sketchers"]

NO_DATASET = {"resvg-augmentation", "predict"}  # sources of texts that are made here, or typed by the user


class SketchGenerator:
    """Sketches of what the expressions name.

    Args:
        sketcher: who draws.
        side: width and height of the picture in pixels.
    """

    def __init__(self, sketcher: Sketcher, side: int = 64) -> None:
        self.sketcher = sketcher
        self.side = side
        self.name = f"sketch side={side}"

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[PILImage.Image]:
        return [
            PILImage.fromarray(self.sketcher.draw(text, self.side, seed))
            for text, seed in zip(prompts, seeds, strict=True)
        ]


class ThumbnailEncoder:
    """Mean colours of a grid of cells, from -1 to 1: 3 ``grid``^2 numbers."""

    def __init__(self, grid: int = 4) -> None:
        self.grid = grid
        self.name = f"thumbnail grid={grid}"

    def __call__(self, images: Sequence[PILImage.Image]) -> Tensor:
        small = [image.resize((self.grid, self.grid), PILImage.Resampling.BOX) for image in images]
        return torch.stack([torch.from_numpy(np.asarray(image).reshape(-1) / 127.5 - 1).float() for image in small])


@cache
def _sketched(sketcher: Sketcher, text: str, side: int, grid: int) -> Tensor:
    return ThumbnailEncoder(grid)(SketchGenerator(sketcher, side)([text], [prompt_seed(text)]))[0]


def sketchers() -> list[Sketcher]:
    """Who can sketch, of all datasets that are installed."""
    return list(dict.fromkeys(sketcher for cls in datasets.classes() if (sketcher := cls.sketcher()) is not None))


def sketch_priors(table: AnnotationTable, side: int = 64, grid: int = 4) -> dict[str, Tensor]:
    """The prior of every expression of ``table``, by its key, painted now: what a file of sketches would hold.

    Raises:
        UserError: if the table holds expressions of a dataset whose words nobody can sketch.
    """
    sources = set(table.arrow.column("source").unique().to_pylist()) - NO_DATASET
    sketcher = next((one for one in sketchers() if sources <= one.sources), None)
    if sketcher is None:
        titles = ", ".join(one.title for one in sketchers())
        strangers = sources - {source for one in sketchers() for source in one.sources} or sources
        raise UserError(
            f"method.priors=sketch knows the words of {titles} only, not of {', '.join(sorted(strangers))}; "
            "make priors with `vgbench data priors generator=FOLDER encoder=FOLDER`"
        )
    keys, texts = (table.arrow.column(name).to_pylist() for name in ("key", "expression"))
    return {key: _sketched(sketcher, prompt(text), side, grid) for key, text in zip(keys, texts, strict=True)}
