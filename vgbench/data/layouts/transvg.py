"""The lists of TransVG and what is built on it: tuples in PyTorch files, boxes but no masks."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from vgbench.core.errors import UserError
from vgbench.core.torch_files import load_torch
from vgbench.data.checks import BadSample, check_name, shown
from vgbench.data.layouts.base import Layout, LayoutDataset
from vgbench.data.layouts.flat import FlatLayout, files_by_split


class TransVGLayout(FlatLayout):
    """``<set>/<set>_<split>.pth`` of TransVG, VLTVG, QRNet, HiVG and ResVG: a list of (image file, mask file, box,
    phrase, attributes) or, for Flickr30k, (image file, box, phrase). Sizes come from the image files.
    Names: the set's."""

    key = "transvg"

    @classmethod
    def folder_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return names

    def __init__(self, data: LayoutDataset, files: dict[str, Path]) -> None:
        super().__init__(data, files)
        self.form = "xyxy" if data.corner_boxes else "xywh"
        self._sizes: dict[str, tuple[int, int]] = {}

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        paths = files_by_split(data, data.layout_names.get(cls.key, ()), (), ".pth")
        return cls(data, paths) if paths else None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        names = data.layout_names.get(cls.key)
        if not names:
            return ""
        return f"data/{names[0]}/{names[0]}_SPLIT.pth (boxes only; image sizes are read from the images)"

    def entries(self, split: str) -> list[Any]:
        return self.data.parse_file(self.files[split], read_torch_list)

    def entry(self, entry: Any) -> dict[str, Any]:
        if not isinstance(entry, (tuple, list)) or len(entry) not in (3, 5):
            raise BadSample("not a tuple of 5 (image, mask, box, phrase, attributes) or 3 (image, box, phrase)")
        image, box, phrase = entry if len(entry) == 3 else (entry[0], entry[2], entry[3])
        if not isinstance(image, str):
            raise BadSample("image name is no text", shown(image))
        image = check_name(image)
        if image not in self._sizes:
            self._sizes[image] = self.data.image_size(image)
        width, height = self._sizes[image]
        box = box.tolist() if hasattr(box, "tolist") else box
        return {"image": image, "width": width, "height": height, "box": box, "texts": [phrase]}


def read_torch_list(path: Path) -> Any:
    """A list saved with ``torch.save``; only plain containers, tensors and NumPy arrays are accepted.

    Raises:
        UserError: if the file is damaged or refers to anything else (named in the message).
    """
    reconstruct: Any = np.zeros(1).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    allowed: list[Any] = [np.ndarray, np.dtype]
    allowed += [type(np.dtype(name)) for name in ("float32", "float64", "int32", "int64", "uint8")]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # NumPy 1 and 2
        allowed += [(reconstruct, f"{module}._reconstruct"), (scalar, f"{module}.scalar")]
    try:
        return load_torch(path, allowed)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: not read ({error}); expected a list of tuples saved with torch.save") from None
