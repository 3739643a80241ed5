"""Writing annotation tables in the layouts of other code: every loader of the field can then read every dataset.

Boxes, texts and masks come back unchanged when the result is read again. Masks become RLE, because the table holds no
polygons; ids that the original layout did not have are numbered from 1.
"""

from __future__ import annotations

import json
from pathlib import Path

from vgbench.core.errors import UserError
from vgbench.data.dataset import GroundingData
from vgbench.data.layouts.coco import COCO
from vgbench.data.layouts.hub import HUB
from vgbench.data.layouts.mdetr import MDETR
from vgbench.data.layouts.refer import REFER, REFER_JSON
from vgbench.data.layouts.seqtr import SEQTR
from vgbench.data.layouts.writing import Contents, DatasetNames, Tables, Writer, write_file


def write_parquet(tables: Tables, names: DatasetNames) -> Contents:
    """The annotation table itself."""
    for split, table in tables.items():
        info = {"vgbench": json.dumps({**table.info, "hash": table.hash})}
        yield f"{names.name}_{split}.parquet", table.arrow.replace_schema_metadata(info)


USUAL_AUTHOR = "unc"  # whom the loaders of the field expect in file names where a dataset has no split author
PARQUET = Writer("parquet", write_parquet)
WRITERS = {writer.key: writer for writer in (PARQUET, REFER, REFER_JSON, SEQTR, MDETR, COCO, HUB)}


def convert(tables: Tables, layout: str, folder: Path, name: str, data: GroundingData | None = None) -> list[Path]:
    """Write the splits of one dataset.

    Args:
        tables: split -> table.
        layout: a key of :data:`WRITERS`.
        folder: where to write; the names below it are those of the layout.
        name: what the dataset is called in file and folder names, e.g. "refcoco".
        data: the dataset that the tables are of: gives the author of the split and what it is called in the layouts
            that know it, both made from ``name`` otherwise; the files that it is read from are not written over.

    Returns:
        The files written (atomically each).

    Raises:
        UserError: if the layout is not known or cannot hold the dataset, or a file would replace one of the dataset's.
    """
    if layout not in WRITERS:
        raise UserError(f"convert: no layout {layout!r}; there are: {', '.join(WRITERS)}")
    writer = WRITERS[layout]
    if writer.single_box:
        for split, table in tables.items():
            if table.info["task"] != "grec" and any(len(row.boxes) > 1 for row in table):
                raise UserError(
                    f"convert: {name} {split} has expressions with several boxes, any of which is right; the {layout} "
                    "layout holds one; use layout=mdetr, coco or parquet"
                )
    multi = any(table.info["task"] == "grec" for table in tables.values())
    whole = data is not None and data.name == type(data).name  # a filtered one must not be taken for the whole
    layout_names = data.layout_names if data is not None and whole else {}
    names = DatasetNames(name, (data and data.split_by) or USUAL_AUTHOR, multi, layout_names)
    originals = set() if data is None else {path.resolve() for split in tables for path in data.sources(split)}
    paths = []
    for path, content in writer.contents(tables, names):
        target = folder / path
        if target.resolve() in originals:
            raise UserError(f"{target}: is a file of the dataset that is read; set out= to another folder")
        paths.append(write_file(target, content))
    return paths
