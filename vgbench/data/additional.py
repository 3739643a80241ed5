"""Additional training data in a folder of its own: an annotation table with its images, beside any dataset.

``vgbench data augment`` writes such folders, ``recipe.extra_train=FOLDER`` joins them with a run's training split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vgbench.core.errors import UserError
from vgbench.data.checks import BadSample, check_name
from vgbench.data.images import ImageFile
from vgbench.data.table import AnnotationTable

__all__ = ["AdditionalData", "joined"]

TABLE = "annotations.arrow"
IMAGES = "images"


@dataclass(frozen=True)
class AdditionalData:
    """What lies in such a folder: ``annotations.arrow`` and ``images/``. No image of it may be of a dataset's split."""

    folder: Path
    table: AnnotationTable

    @classmethod
    def open(cls, folder: Path) -> AdditionalData:
        """
        Raises:
            UserError: if the folder holds no such data.
        """
        file = folder / TABLE
        if not file.is_file():
            raise UserError(f"{folder}: holds no {TABLE}; make training data with `vgbench data augment out={folder}`")
        try:
            table = AnnotationTable.open(file)
            for name in pc.unique(table.arrow.column("image")).to_pylist():
                check_name(name)
        except (ValueError, BadSample) as error:
            raise UserError(f"{file}: not an annotation table of this version ({error}); make it again") from None
        return cls(folder, table)

    @classmethod
    def write(cls, folder: Path, table: AnnotationTable) -> AdditionalData:
        """Write the table (last, when its images are there): only then is the folder complete."""
        table.save(folder / TABLE)
        return cls.open(folder)

    def image_path(self, name: str) -> Path:
        return self.folder / IMAGES / name


def joined(
    table: AnnotationTable, image_path: Callable[[str], ImageFile], additional: Sequence[AdditionalData]
) -> tuple[AnnotationTable, Callable[[str], ImageFile]]:
    """Training data with that of ``additional`` behind it: the table of all, and where its images are.

    Raises:
        UserError: if an expression's key is there twice (the same folder, or one made with the same seed, twice).
    """
    tables = [table, *(data.table for data in additional)]
    keys = pa.concat_arrays([chunk for part in tables[1:] for chunk in part.arrow.column("key").chunks])
    if len(pc.unique(keys)) < len(keys):
        folders = ", ".join(str(data.folder) for data in additional)
        raise UserError(f"recipe.extra_train: {folders} share expressions; give every folder a seed of its own")
    owners = {name: data for data in additional for name in pc.unique(data.table.arrow.column("image")).to_pylist()}
    painted_from = [source for part in tables for source in part.info.get("painted_from", [])]

    def path(name: str) -> ImageFile:
        return owners[name].image_path(name) if name in owners else image_path(name)

    info = {**table.info, "painted_from": painted_from}
    return AnnotationTable(pa.concat_tables([part.arrow for part in tables]), info), path
