"""What a metric sees of an annotation table, whichever layout it was read from.

The hash of a table covers annotation, ref and sentence ids too, which layouts have or lack. The same expressions about
the same objects of the same images are the same question all the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from vgbench.data.leakage import image_keys
from vgbench.data.table import AnnotationTable

#: From the images to what metrics of masks see: each holds all that the one before it does.
LEVELS = ("images", "expressions", "boxes", "masks")


def content_hashes(table: AnnotationTable) -> dict[str, str]:
    """SHA-256 (16 hex digits) of each of :data:`LEVELS`, whatever the order of the rows.

    Images by collection and number, with their sizes; boxes to a hundredth of a pixel, in any order; texts as written.
    """
    keys = image_keys(table)
    sizes = zip(table.column("width").tolist(), table.column("height").tolist(), strict=True)
    images = [f"{key} {width}x{height}" for key, (width, height) in zip(keys, sizes, strict=True)]
    texts = [
        f"{image}\0{text}" for image, text in zip(images, table.arrow.column("expression").to_pylist(), strict=True)
    ]
    boxes = [_boxes(values) for values in table.arrow.column("boxes").to_pylist()]
    masks = table.arrow.column("masks").to_pylist()
    seen = [f"{text}\0{' '.join(sorted(box))}" for text, box in zip(texts, boxes, strict=True)]
    targets = [_with_masks(box, mask) for box, mask in zip(boxes, masks, strict=True)]
    whole = [f"{text}\0{' '.join(target)}" for text, target in zip(texts, targets, strict=True)]
    return dict(zip(LEVELS, map(_digest, (set(images), texts, seen, whole)), strict=True))


def _boxes(values: Sequence[float]) -> list[str]:
    numbers = np.round(np.asarray(values, dtype=np.float64).reshape(-1, 4), 2) + 0.0  # never -0
    return [",".join(f"{value:.2f}" for value in box) for box in numbers]


def _with_masks(boxes: Sequence[str], masks: Sequence[str]) -> list[str]:
    if len(masks) != len(boxes):
        return [*sorted(boxes), "no masks"]
    return sorted(f"{box}:{mask}" for box, mask in zip(boxes, masks, strict=True))


def _digest(entries: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for entry in sorted(entries):
        digest.update(hashlib.sha256(entry.encode(errors="surrogatepass")).digest())
    return digest.hexdigest()[:16]
