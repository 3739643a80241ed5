"""Relation-sensitive data augmentation: scenes with several instances of one category, and queries on their relations.

The paper has a text-to-image model draw such scenes and a detector find the objects; its code ships neither, only the
list of samples that the authors made. Here a scene comes from a :class:`~.painters.Painter`: by default
:class:`~.painters.CopyPaste`, which needs no generator (segmented instances of the training images, harmonised with a
new background), or :class:`~.painters.LayoutToImage`. The queries (:mod:`.queries`) follow the specification's
recommendation (section 5.1).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage
from pycocotools import mask as rle

from vgbench.core.errors import UserError
from vgbench.data.additional import IMAGES, TABLE, AdditionalData
from vgbench.data.table import AnnotationTable
from vgbench.methods.resvg.painters import Painter, Scene
from vgbench.methods.resvg.queries import pseudo_queries

__all__ = ["SEEDS_APART", "augment"]

SOURCE = "resvg-augmentation"  # of the rows; also the folder of the images, so that no name is a dataset's
SEEDS_APART = 1_000_000  # more scenes than one folder holds: numbers of folders with different seeds do not meet


def augment(
    painter: Painter,
    folder: Path,
    scenes: int,
    *,
    seed: int = 0,
    counts: tuple[int, int] = (2, 5),
    tries: int = 50,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> AnnotationTable:
    """Paint ``scenes`` scenes and ask about them: JPEG images and an annotation table in ``folder``.

    Scene i depends on ``seed`` and i alone, so a longer list begins with the shorter one. The table is written last;
    all of its rows are of split "train".

    Args:
        painter: where scenes come from.
        folder: new or empty of tables.
        scenes: number of images.
        counts: fewest and most instances per scene.
        tries: attempts per scene (instances that find no place, no unambiguous query).
        progress: called with (done, total) after each scene.

    Raises:
        UserError: if the folder already holds a table, or no scene can be painted.
    """
    if (folder / TABLE).exists():
        raise UserError(f"{folder / TABLE}: exists; give another folder for the augmentation, or delete this one")
    if not 2 <= counts[0] <= counts[1]:
        raise UserError(f"counts={counts[0]}-{counts[1]}: a relation needs at least two instances, e.g. counts=2-5")
    rows: list[dict[str, Any]] = []
    painted_from: set[str] = set()
    for number in range(scenes):
        scene, queries = _scene(painter, random.Random(f"{seed}:{number}"), counts, tries)
        name = f"{SOURCE}/{seed}-{number:06d}.jpg"
        file = folder / IMAGES / name
        file.parent.mkdir(parents=True, exist_ok=True)
        PILImage.fromarray(scene.image).save(file, quality=95)
        rows += _rows(scene, queries, seed * SEEDS_APART + number, name)
        painted_from.update(scene.painted_from)
        progress(number + 1, scenes)
    info: dict[str, Any] = {
        "dataset": SOURCE,
        "split": "train",
        "task": "rec",
        "sources": {},
        "image_root": None,
        "painter": painter.name,
        "seed": seed,
        "scenes": scenes,
        "painted_from": sorted(painted_from),
    }
    return AdditionalData.write(folder, AnnotationTable.from_rows(rows, info)).table


def _scene(
    painter: Painter, rng: random.Random, counts: tuple[int, int], tries: int
) -> tuple[Scene, list[tuple[int, str]]]:
    """The first of ``tries`` scenes that something unambiguous can be asked about, and the queries."""
    for _ in range(tries):
        scene = painter(rng.randint(*counts), rng)
        if scene is None:
            continue
        height, width = scene.image.shape[:2]
        queries = pseudo_queries(scene.boxes, (width, height), scene.category)
        if queries:
            return scene, queries
    raise UserError(
        f"{painter.name}: no scene with an unambiguous query in {tries} attempts; widen area or max_overlap"
    )


def _rows(scene: Scene, queries: Sequence[tuple[int, str]], number: int, name: str) -> Iterable[dict[str, Any]]:
    height, width = scene.image.shape[:2]
    for index, text in queries:
        masks = []
        if scene.masks is not None:
            masks = [rle.encode(np.asfortranarray(scene.masks[index].astype(np.uint8)))["counts"].decode()]
        yield {
            "key": f"{name.removesuffix('.jpg')}/{text}",
            "image_id": -1 - number,  # no image of a dataset has a negative number
            "image": name,
            "width": width,
            "height": height,
            "expression": text,
            "boxes": scene.boxes[index : index + 1],
            "masks": masks,
            "polygons": [0] * len(masks),
            "ann_ids": [],
            "categories": [scene.category],
            "ref_id": None,
            "sent_id": None,
            "group": -1 - (number * 64 + index),
            "source": SOURCE,
            "split": "train",
        }
