"""Data sets whose parquet files hold the images too."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from vgbench.core.errors import UserError
from vgbench.core.files import write_atomically
from vgbench.data.dataset import GroundingData
from vgbench.data.images import ImageFile
from vgbench.data.layouts.parquet import iterate_rows, parquet_columns


class ContainedImages(GroundingData):
    """Images are in a column "image" ({bytes, path}) of the files of a split; all are written into the cache folder
    when the first is asked for. An ``image_root`` that was given is used instead."""

    image_names = ()
    image_key: ClassVar[str]  # the column that names of images are made of

    @abstractmethod
    def image_name(self, row: dict[str, Any]) -> str | None:
        """What the image of a row ({``image_key``: ...}) is called, below the image root; None: it is left out."""

    @cached_property
    def image_root(self) -> Path:
        """The image folder: as given, else the one in the cache folder, which may be empty yet.

        Raises:
            UserError: if one was given and does not exist.
        """
        return (self._image_root and super().image_root) or self.cache_dir / "images" / self.name

    def find_image(self, image: str) -> ImageFile | None:
        """The file of ``image``, or None if it is nowhere.

        Raises:
            UserError: if the files are not there, or damaged.
        """
        if self._image_root is not None:
            return super().find_image(image)
        path = self.image_root / image
        return path if path.is_file() or (self._unpacked and path.is_file()) else None

    def image_path(self, image: str) -> ImageFile:
        """Where the file of ``image`` is.

        Raises:
            UserError: if there is no such image.
        """
        file = self.find_image(image)
        if file is None:
            place = self._image_root or ", ".join(str(path) for path in self._all_sources())
            raise UserError(f"{place}: holds no image {image}; fetch the files of {self.name} again")
        return file

    def _all_sources(self) -> list[Path]:
        return [path for split in self.splits for path in self.sources(split)]

    @cached_property
    def _unpacked(self) -> bool:
        """True; what it takes is done once, because an image that is missing stays missing."""
        for path in self._all_sources():
            if "image" not in parquet_columns(path):
                continue  # annotations alone: the images lie elsewhere
            for row in iterate_rows(path, [self.image_key, "image"]):
                name = self.image_name(row)
                content = row["image"].get("bytes") if isinstance(row["image"], dict) else None
                if name is not None and isinstance(content, bytes) and not (self.image_root / name).is_file():
                    (self.image_root / name).parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(self.image_root / name, content)
        return True
