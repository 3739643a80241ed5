"""Further training data in a folder of its own: an annotation table with its images, beside any dataset.

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
from vgbench.data.table import AnnotationTable

__all__ = ["Extra", "joined"]

TABLE = "annotations.arrow"
IMAGES = "images"


@dataclass(frozen=True)
class Extra:
    """What lies in such a folder: ``annotations.arrow`` and ``images/``. No image of it may be of a dataset's split."""

    folder: Path
    table: AnnotationTable

    @classmethod
    def open(cls, folder: Path) -> Extra:
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
    def write(cls, folder: Path, table: AnnotationTable) -> Extra:
        """Write the table (last, when its images are there): only then is the folder complete."""
        table.save(folder / TABLE)
        return cls.open(folder)

    def image_path(self, name: str) -> Path:
        return self.folder / IMAGES / name


def joined(
    table: AnnotationTable, image_path: Callable[[str], Path], extras: Sequence[Extra]
) -> tuple[AnnotationTable, Callable[[str], Path]]:
    """Training data with that of ``extras`` behind it: the table of all, and where its images are.

    Raises:
        UserError: if an expression's key is there twice (the same folder, or one made with the same seed, twice).
    """
    parts = [table, *(extra.table for extra in extras)]
    keys = pa.concat_arrays([chunk for part in parts[1:] for chunk in part.arrow.column("key").chunks])
    if len(pc.unique(keys)) < len(keys):
        folders = ", ".join(str(extra.folder) for extra in extras)
        raise UserError(f"recipe.extra_train: {folders} share expressions; give every folder a seed of its own")
    where = {name: extra for extra in extras for name in pc.unique(extra.table.arrow.column("image")).to_pylist()}
    sources = [source for part in parts for source in part.info.get("painted_from", [])]

    def path(name: str) -> Path:
        return where[name].image_path(name) if name in where else image_path(name)

    info = {**table.info, "painted_from": sources}
    return AnnotationTable(pa.concat_tables([part.arrow for part in parts]), info), path
