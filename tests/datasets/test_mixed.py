"""The merged pre-training sets: which entries count, and which are left out."""

import pytest

from tests.data.samples import dump, image_name, merged_content, mixed_seg_content, open_set, write_refer, write_seqtr
from vgbench.datasets.mixed import CocoAll, Mixed, MixedSeg
from vgbench.datasets.refcoco import RefCOCO
from vgbench.datasets.vg import evaluation_images


@pytest.mark.parametrize("name", ["instances.json", "instances_nogoogle.json", "instances_nogoogle_withid.json"])
def test_merged_set_with_masks(tmp_path, name):
    ids = name.endswith("_withid.json")
    dump(tmp_path / "b" / "annotations" / "mixed-seg" / name, mixed_seg_content(ids))
    refer = open_set(RefCOCO, write_refer(tmp_path / "a")).load("val")
    found = open_set(MixedSeg, tmp_path / "b").load("val_refcoco_unc")
    assert list(MixedSeg.splits)[:2] == ["train", "val_refcoco_unc"] and len(MixedSeg.splits) == 9
    assert [(r.expression, r.boxes.tolist(), r.masks, r.source) for r in found] == [
        (r.expression, r.boxes.tolist(), r.masks, r.source) for r in refer
    ]
    assert found.row(0).image == f"mscoco/train2014/{image_name(102)}"
    assert [row.ann_ids for row in found] == ([row.ann_ids for row in refer] if ids else [()] * len(refer))
    train = open_set(MixedSeg, tmp_path / "b").load("train")
    assert len(train) == 9 and train.info["entries"]["kept"] == {"coco": 6}  # no image of an evaluation split in it
    written = mixed_seg_content(ids)
    written["testB_refcoco_unc"] = written["train"][:1]  # image 101, the only one of train
    dump(tmp_path / "b" / "annotations" / "mixed-seg" / name, written)
    train = open_set(MixedSeg, tmp_path / "b").load("train")
    assert len(train) == 0 and train.info["excluded_images"] == 1
    assert len(open_set(MixedSeg, tmp_path / "b", exclude_eval_images=False).load("train")) == 9


def test_merged_sets(tmp_path):
    root = write_seqtr(tmp_path, "mixed", merged_content())
    images = dump(tmp_path / "image_data.json", [{"image_id": 6, "coco_id": min(evaluation_images())}])
    table = open_set(Mixed, root).load("train")
    assert sorted(set(table.column("image"))) == [
        "mscoco/train2014/COCO_train2014_000000000101.jpg",
        "saiaprtc12/8.jpg",
        "visual-genome/5.jpg",
        "visual-genome/6.jpg",
    ]
    assert len(table) == 8 and table.info["entries"]["excluded"] == {"coco": 1, "flickr": 1}
    assert "vg_image_data" in table.info["warnings"][0]
    table = open_set(Mixed, root, vg_image_data=images).load("train")
    assert table.info["entries"]["excluded"] == {"coco": 1, "flickr": 1, "vg": 1}
    assert len(open_set(Mixed, root, exclude_eval_images=False).load("train")) == 12
    table = open_set(CocoAll, root).load("train")
    assert set(table.column("source")) == {"coco"} and table.info["entries"]["of another source"]["vg"] == 2
    assert open_set(Mixed, root).load("val_flickr30k").row(0).image == "flickr30k/9.jpg"
