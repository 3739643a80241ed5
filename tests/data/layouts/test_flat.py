"""Lists with one entry per expression give the expressions of the refer layout."""

import json
import pickle

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.data.samples import (
    ANNOTATIONS,
    IMAGES,
    REFS,
    dump,
    image_name,
    minigpt_rows,
    open_set,
    write_refer,
    write_transvg,
)
from vgbench.core.errors import UserError
from vgbench.datasets.refcoco import RefCOCO, RefCOCOg


def test_minigpt_evaluation_files(tmp_path):
    dump(tmp_path / "refcocog_val.json", minigpt_rows())
    table = open_set(RefCOCOg, tmp_path).load("val")
    assert [row.expression for row in table] == ["one", "two", "three", "four"]
    assert table.row(0).boxes.tolist() == [[1.5, 2, 11.5, 12.25]] and not table.has_masks
    assert table.row(0).ann_ids == (5,) and table.row(0).image == image_name(101)
    assert len(np.unique(table.column("group"))) == 2
    with pytest.raises(UserError, match="no annotations of split 'train'"):
        open_set(RefCOCOg, tmp_path).load("train")


def boxes_of(table):
    return sorted((row.image_id, row.image, row.expression, row.boxes.tolist(), row.split) for row in table)


def write_qwen(root):
    for split, (ann,), sentences in REFS:
        record = ANNOTATIONS[ann]
        width, height = IMAGES[record["image_id"]]
        x, y, w, h = record["bbox"]
        with (root / f"refcoco_{split}.jsonl").open("a") as file:
            for text in sentences:
                line = {"image": f"data/coco2014/train2014/{image_name(record['image_id'])}", "sent": text}
                file.write(json.dumps({**line, "bbox": [x, y, x + w, y + h], "width": width, "height": height}) + "\n")
    return root


def write_vlmr1(root):
    folder, entries = root / "rec_jsons_processed", {}
    folder.mkdir()
    for split, (ann,), sentences in REFS:
        record = ANNOTATIONS[ann]
        width, height = IMAGES[record["image_id"]]
        x, y, w, h = record["bbox"]
        entry = {"image": f"train2014/{image_name(record['image_id'])}", "width": width, "height": height}
        entry |= {"solution": [x, y, x + w, y + h], "problem": "Where?"}
        entries.setdefault(split, []).extend({**entry, "normal_caption": text} for text in sentences)
    for split, items in entries.items():
        (folder / f"refcoco_{split}.json").write_text(json.dumps(items))
    return root


def write_vglaw(root):
    items = {}
    masks = root / "masks" / "refcoco(unc)"
    masks.mkdir(parents=True)
    for number, (split, (ann,), sentences) in enumerate(REFS):
        record = ANNOTATIONS[ann]
        width, height = IMAGES[record["image_id"]]
        x1, y1, w, h = (max(int(v), 0) for v in record["bbox"])
        mask = np.zeros((height, width), np.uint8)
        mask[y1 : y1 + h, x1 : x1 + w] = 1
        np.save(masks / f"{number}.npy", mask)
        entry = {"image_id": record["image_id"], "bbox": record["bbox"], "ref_id": number}
        items.setdefault(split, []).extend({**entry, "phrase": text} for text in sentences)
    (root / "refcoco(unc).pkl").write_bytes(pickle.dumps({"index": 0, "items": items}))
    return root


@pytest.mark.parametrize("write", [write_transvg, write_qwen, write_vlmr1, write_vglaw])
@pytest.mark.parametrize("split", ["train", "val", "testA"])
def test_flat_layouts_give_the_same_expressions(tmp_path, write, split):
    (tmp_path / "b").mkdir()
    expected = open_set(RefCOCO, write_refer(tmp_path / "a")).load(split)
    found = open_set(RefCOCO, write(tmp_path / "b")).load(split)
    assert boxes_of(found) == boxes_of(expected)
    assert len(np.unique(found.column("group"))) == len(np.unique(expected.column("group")))
    assert [(r.width, r.height) for r in found] == [(r.width, r.height) for r in expected]
    if write is write_vglaw and split == "val":
        assert coco_mask.area(found.row(0).masks[0]) == 20 * 60
