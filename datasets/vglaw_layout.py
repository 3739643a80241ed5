"""The pickles of VG-LAW, with a file per mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file
from vgbench.data.checks import BadSample, take
from vgbench.data.layouts.base import Layout, LayoutDataset, folders
from vgbench.data.layouts.flat import FlatLayout
from vgbench.data.layouts.refer import read_pickle


class VGLawLayout(FlatLayout):
    """VG-LAW's ``<set>(<split_by>).pkl``: {items: {split: [{image_id, bbox xywh, phrase, ref_id}]}}, masks as
    ``masks/<set>(<split_by>)/<ref_id>.npy``. Sizes come from the masks, else from the image files.
    Names: ``<set>(<split_by>)``."""

    key = "vglaw"

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        for stem in data.layout_names.get(cls.key, ()):
            for folder in folders(data.data_root, ("vglaw", "refcoco")):
                path = folder / f"{stem}.pkl"
                if path.is_file():
                    return cls(data, dict.fromkeys(data.splits, path))
        return None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        names = data.layout_names.get(cls.key)
        return f"{names[0]}.pkl with masks/{names[0]}/REF_ID.npy" if names else ""

    def entries(self, split: str) -> list[Any]:
        path = self.files[split]
        content = self.data.parse_file(path, read_pickle)
        items = content.get("items") if isinstance(content, dict) else None
        if not isinstance(items, dict):
            raise UserError(f"{path}: no object under the key 'items'")
        if split not in items:
            raise UserError(f"{path}: no split {split!r}; splits in the file: {', '.join(map(str, items)) or 'none'}")
        return items[split]

    def entry(self, entry: Any) -> dict[str, Any]:
        ref_id = take(entry, "ref_id", int)
        image = self.data.canonical_name.format(take(entry, "image_id", int))
        path = self.files[next(iter(self.files))]
        mask_path = path.parent / "masks" / path.stem / f"{ref_id}.npy"
        segmentation = None
        if mask_path.is_file():
            try:
                mask = np.load(ordinary_file(mask_path), allow_pickle=False)
            except (OSError, ValueError, EOFError, MemoryError) as error:
                raise BadSample("mask file that is no array", f"{mask_path}: {error}") from None
            if mask.ndim != 2 or mask.dtype.kind not in "biuf":
                raise BadSample("mask that is no [height, width] array", f"{mask_path}: {mask.shape} {mask.dtype}")
            height, width = mask.shape
            segmentation = coco_mask.encode(np.asfortranarray(mask > 0, dtype=np.uint8))
        else:
            width, height = self.data.image_size(image)
        return {
            "image": image,
            "width": width,
            "height": height,
            "box": take(entry, "bbox", (list, tuple)),
            "texts": [take(entry, "phrase", str)],
            "object": ("ref", ref_id),
            "ref_id": ref_id,
            "segmentation": segmentation,
        }
