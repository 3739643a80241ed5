"""Writing annotation tables in the layouts of other code: every loader of the field can then read every dataset.

Boxes, texts and masks come back unchanged when the result is read again. Masks become RLE, because the table holds no
polygons; ids that the original layout did not have are numbered from 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

from vgbench.core.errors import UserError
from vgbench.data.layouts.base import Files
from vgbench.data.layouts.coco import write_coco
from vgbench.data.layouts.hub import write_hub
from vgbench.data.layouts.mdetr import write_mdetr
from vgbench.data.layouts.refer import write_refer, write_refer_json
from vgbench.data.layouts.seqtr import write_seqtr
from vgbench.data.layouts.writing import Contents, DatasetNames, Tables, write_file


def convert(
    tables: Tables,
    layout: str,
    folder: Path,
    name: str,
    split_by: str = "unc",
    files: Files | None = None,
    sources: Collection[Path] = (),
) -> list[Path]:
    """Write the splits of one dataset.

    Args:
        tables: split -> table.
        layout: a key of :data:`WRITERS`.
        folder: where to write; the names below it are those of the layout.
        name: what the dataset is called in file and folder names, e.g. "refcoco".
        split_by: the author of the split, where the layout's file names have it.
        files: what the dataset is called in the layouts that know it; None or empty there: made from ``name``.
        sources: files that must not be written over, those that the tables were read from.

    Returns:
        The files written (atomically each).

    Raises:
        UserError: if the layout is not known or cannot hold the dataset, or a file would replace one of ``sources``.
    """
    if layout not in WRITERS:
        raise UserError(f"convert: no layout {layout!r}; there are: {', '.join(WRITERS)}")
    if layout in ("refer", "refer_json", "seqtr", "hub"):
        for split, table in tables.items():
            if table.info["task"] != "grec" and any(len(row.boxes) > 1 for row in table):
                raise UserError(
                    f"convert: {name} {split} has expressions with several boxes, any of which is right; the {layout} "
                    "layout holds one; use layout=mdetr, coco or parquet"
                )
    multi = any(table.info["task"] == "grec" for table in tables.values())
    known = files or Files()
    refer = known.refer or (name,)
    seqtr = known.seqtr or (name if multi else f"{name.replace('+', 'plus')}-{split_by}",)
    names = DatasetNames(name, split_by, multi, refer[0], seqtr[0])
    originals = {path.resolve() for path in sources}
    written = []
    for path, content in WRITERS[layout](tables, names):
        target = folder / path
        if target.resolve() in originals:
            raise UserError(f"{target}: is a file of the dataset that is read; set out= to another folder")
        written.append(write_file(target, content))
    return written


def write_parquet(tables: Tables, names: DatasetNames) -> Contents:
    for split, table in tables.items():
        info = {"vgbench": json.dumps({**table.info, "hash": table.hash})}
        yield f"{names.name}_{split}.parquet", table.arrow.replace_schema_metadata(info)


WRITERS: dict[str, Callable[[Tables, DatasetNames], Contents]] = {
    "parquet": write_parquet,
    "refer": write_refer,
    "refer_json": write_refer_json,
    "seqtr": write_seqtr,
    "mdetr": write_mdetr,
    "coco": write_coco,
    "hub": write_hub,
}
