"""Our datasets in Detectron2's ``DatasetCatalog``, for anybody who trains a detector of theirs on grounding data.

One dictionary per expression, in Detectron2's standard format, with the expression in ``"expression"``:

    import vgbench.bridges.detectron2
    vgbench.bridges.detectron2.register(data)            # refcoco_train, refcoco_val, ...

``vgbench data register-detectron2 dataset=refcoco data_root=... out=register_refcoco.py`` writes a module that does
this when it is imported, with the dataset's configuration in it.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError
from vgbench.core.files import write_atomically
from vgbench.data.dataset import GroundingData

XYXY_ABS = 0  # detectron2.structures.BoxMode


def dicts(data: GroundingData, split: str) -> list[dict[str, Any]]:
    """The rows of a split in Detectron2's standard format.

    Returns:
        One dictionary per expression: ``file_name``, ``height``, ``width``, ``image_id`` (the unique key),
        ``expression`` and ``annotations``: per target ``bbox`` xyxy in pixels, ``bbox_mode``, ``category_id`` 0 and a
        mask, where there is one, as a COCO RLE in ``segmentation`` (``INPUT.MASK_FORMAT = "bitmask"`` in Detectron2).
        A no-target expression has no annotations.
    """
    entries = []
    for row in data.load(split):
        annotations = []
        for number, box in enumerate(row.boxes.tolist()):
            annotation = {"bbox": box, "bbox_mode": XYXY_ABS, "category_id": 0}
            if number < len(row.masks) and row.masks[number]:
                annotation["segmentation"] = row.masks[number]
            annotations.append(annotation)
        entries.append(
            {
                "file_name": str(data.image_path(row.image)),
                "height": row.height,
                "width": row.width,
                "image_id": row.key,
                "expression": row.expression,
                "annotations": annotations,
            }
        )
    return entries


def register(data: GroundingData, splits: str | Sequence[str] | None = None) -> list[str]:
    """Register splits as ``NAME_SPLIT`` (``refcocog_umd_val`` where the data set says who split it).

    Nothing is read before Detectron2 asks for it.

    Raises:
        UserError: if Detectron2 is not installed or there is no such split.
    """
    try:
        catalogs = importlib.import_module("detectron2.data")
    except ImportError as error:
        raise UserError(f"Detectron2 cannot be imported ({error}); its INSTALL.md says how to build it") from error
    author = None if data.embedded else data.split_by
    names = []
    for split in data.parse_splits(splits):
        name = "_".join(part for part in (data.name, author, split) if part)
        catalogs.DatasetCatalog.register(name, partial(dicts, data, split))
        catalogs.MetadataCatalog.get(name).set(thing_classes=["target"], evaluator_type="coco", licence=data.licence)
        names.append(name)
    return names


def write_module(node: Mapping[str, Any], out: Path) -> Path:
    """Write a Python module that registers the dataset of a configuration node when it is imported.

    Args:
        node: the resolved ``dataset`` node.
    """
    stored = json.dumps(json.dumps(dict(node)))
    text = (
        f'"""Registers {node["_target_"]} with Detectron2; written by `vgbench data register-detectron2`."""\n\n'
        "import json\n\nfrom hydra.utils import instantiate\n\nfrom vgbench.bridges.detectron2 import register\n\n"
        f"NAMES = register(instantiate(json.loads({stored})))\n"
    )
    write_atomically(out, text.encode())
    return out
