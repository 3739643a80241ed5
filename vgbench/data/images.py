"""Image files of a dataset: finding them, decoding them, and what may be wrong with one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Literal, Protocol

import numpy as np
from PIL import Image

from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file
from vgbench.data.checks import BadSample, check_size
from vgbench.data.pixels import IMAGE_ERRORS, as_rgb, as_shown, open_image
from vgbench.data.shards import Shards

if TYPE_CHECKING:
    from torch import Tensor

_TEMPLATE = re.compile(r"([^{}]|\{\{|\}\})*(\{0?(:0?\d{0,2}d?)?\}([^{}]|\{\{|\}\})*)+")


class BadImage(BadSample):
    """An image file that is wanted for its size is missing or damaged: may be mended without any change of sources."""


class ImageFile(Protocol):
    """An image on disk: a :class:`~pathlib.Path`, or a member of a tar file. ``str`` of it says where it is."""

    @property
    def name(self) -> str: ...

    def open(self, mode: Literal["rb"]) -> BinaryIO: ...


@contextmanager
def open_image_file(file: ImageFile) -> Iterator[Image.Image]:
    """A picture, its header read and its pixels not yet (:func:`~vgbench.data.pixels.open_image`).

    Raises:
        IMAGE_ERRORS: also if it is missing, or a device or a pipe.
    """
    if isinstance(file, Path):
        ordinary_file(file)
    with file.open("rb") as content, open_image(content) as image:
        yield image


def decode_array(file: ImageFile, upright: bool = False) -> np.ndarray:
    """Decode to uint8 RGB [H, W, 3].

    Args:
        file: the image file.
        upright: as viewers show it, turned by its EXIF tag (:func:`~vgbench.data.pixels.as_shown`); False: as it is
            stored, which is what annotations refer to (:func:`~vgbench.data.pixels.as_rgb`).

    Raises:
        BadSample: if the file is missing or no readable image.
    """
    try:
        with open_image_file(file) as image:
            return np.array(as_shown(image) if upright else as_rgb(image))
    except FileNotFoundError:
        raise BadSample(f"{file}: image is missing") from None
    except IMAGE_ERRORS as error:
        raise BadSample(f"{file}: image cannot be decoded ({error})") from None


def decode_image(file: ImageFile, upright: bool = False) -> Tensor:
    """As :func:`decode_array`, as a tensor [3, H, W]."""
    from torch import from_numpy

    return from_numpy(decode_array(file, upright)).permute(2, 0, 1)  # not copied: resizing wants it as it lies


class ImageFinder:
    """The part of a dataset that finds its images, under the names and in the folders that people give them.

    Args:
        data_root: folder of the annotations.
        image_root: folder of the images, or of tar files with images; None: the first of ``image_folders`` that exists.
        image_template: how image files are called, formatted with the image id; None: the name in the annotations and
            ``image_names`` are tried.
        cache_dir: where indices of tar files are kept.
    """

    name: str  # of the dataset
    image_folders: ClassVar[tuple[str, ...]] = ()  # usual image roots, below data_root or up to two folders above
    image_names: ClassVar[tuple[str, ...]] = ("{:012d}.jpg", "COCO_train2014_{:012d}.jpg", "COCO_val2014_{:012d}.jpg")

    def __init__(
        self, data_root: Path | None, image_root: Path | None, image_template: str | None, cache_dir: Path
    ) -> None:
        self._data_root = data_root
        self._image_root = image_root
        self.image_template = image_template
        self.cache_dir = cache_dir

    @cached_property
    def image_root(self) -> Path | None:
        """The image folder: as given, else the first usual place that exists; None if there is none.

        Raises:
            UserError: if one was given and does not exist.
        """
        if self._image_root is not None:
            if not self._image_root.is_dir() and not (self._image_root.suffix == ".tar" and self._image_root.is_file()):
                raise UserError(f"{self.name}: {self._image_root}: no such folder; set image_root=FOLDER")
            return self._image_root
        if self._data_root is None:
            return None
        for base in (self._data_root, *list(self._data_root.resolve().parents)[:2]):
            for folder in self.image_folders:
                if (base / folder).is_dir():
                    return base / folder
        return None

    @cached_property
    def shards(self) -> Shards | None:
        """The images, if :attr:`image_root` is a tar file or a folder of them (:mod:`vgbench.data.shards`)."""
        return None if self.image_root is None else Shards.below(self.image_root, self.cache_dir)

    def find_image(self, image: str) -> ImageFile | None:
        """The file of ``image`` (a value of the table's image column), or None if it is not on disk."""
        root = self.image_root
        if root is None:
            return None
        for name in self.image_file_names(image):
            if self.shards is not None:
                member = self.shards.find(name)
                if member is not None:
                    return member
            elif (root / name).is_file():
                return root / name
        return None

    def image_file_names(self, image: str) -> Iterator[str]:
        """Names below :attr:`image_root` that the file of ``image`` may have, likeliest first.

        Raises:
            UserError: if ``image_template`` cannot be formatted with the image's number.
        """
        digits = re.findall(r"\d+", PurePosixPath(image).stem)
        number = int(digits[-1]) if digits else None
        if self.image_template is not None:
            if number is None:
                raise UserError(f"{self.name}: image_template={self.image_template!r}, but {image!r} has no number")
            if not _TEMPLATE.fullmatch(self.image_template):
                raise UserError(
                    f"{self.name}: image_template={self.image_template[:80]!r} is no template; write {{}} or {{:012d}} "
                    "where the number stands"
                )
            yield self.image_template.format(number)
            return
        yield image
        if number is not None:
            for template in self.image_names:
                yield template.format(number)

    def image_path(self, image: str) -> ImageFile:
        """Where the file of ``image`` is; if it is not on disk, where it is expected.

        Raises:
            UserError: if there is no image folder at all.
        """
        root = self.image_root
        if root is None:
            places = ", ".join(self.image_folders)
            raise UserError(f"{self.name}: no image folder found ({places}); set image_root=FOLDER")
        return self.find_image(image) or root / next(self.image_file_names(image))

    def image_size(self, image: str) -> tuple[int, int]:
        """(width, height) from the header of the image file, for layouts that do not tell.

        Raises:
            BadImage: if the file is missing or no image.
        """
        file = self.find_image(image)
        if file is None:
            place = f"{image} in {self.image_root or 'no image folder'}; set image_root=FOLDER"
            raise BadImage("image file is missing and the annotations do not tell its size", place)
        try:
            with open_image_file(file) as opened:
                return check_size(*opened.size)
        except (*IMAGE_ERRORS, BadSample) as error:
            raise BadImage("image file that is no image", f"{file}: {error}") from None
