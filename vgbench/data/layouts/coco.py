"""COCO detection JSON plus a list ``expressions`` of {id, image_id, caption, annotation_ids}, for other code."""

from __future__ import annotations

from typing import Any

from vgbench.data.layouts.writing import Contents, DatasetNames, Ids, Tables, Writer, add_image


def write_coco(tables: Tables, names: DatasetNames) -> Contents:
    """A COCO detection file per split, with its expressions."""
    for split, table in tables.items():
        ids, expressions = Ids(tables), []
        images: dict[int, dict[str, Any]] = {}
        for index, row in enumerate(table):
            add_image(images, row)
            expressions.append(
                {"id": index, "image_id": row.image_id, "caption": row.expression, "annotation_ids": ids.of(row)}
            )
        yield (
            f"{names.name}_{split}.json",
            {
                "info": {"description": f"{names.name} {split}"},
                "licenses": [],
                "images": list(images.values()),
                "annotations": list(ids.annotations.values()),
                "categories": ids.category_records(),
                "expressions": expressions,
            },
        )


COCO = Writer("coco", write_coco)
