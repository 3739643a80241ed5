"""The SeqTR layout and its variants give the expressions of the refer layout; unusable entries are named."""

import json

import numpy as np
import pytest

from tests.data.samples import (
    REFS,
    content,
    dump,
    open_set,
    seqtr_content,
    seqtr_flat,
    seqtr_grouped,
    with_ids,
    write_grefs,
    write_refer,
    write_seqtr,
)
from vgbench.core.errors import UserError
from vgbench.datasets.grefcoco import GRefCOCO
from vgbench.datasets.mixed import Flickr30k
from vgbench.datasets.refcoco import RefCOCO

BAD = [
    (lambda c: c["train"][0].update(bbox=[10, 10, 0, 5]), "box without area"),
    (lambda c: c["train"][0].update(bbox=[10, 10, -3, 5]), "box without area"),
    (lambda c: c["train"][0].update(bbox=[float("nan"), 10, 3, 5]), "not a finite number"),
    (lambda c: c["train"][0].update(bbox=[100, 10, 3, 5]), "box outside the image"),
    (lambda c: c["train"][0].update(bbox=[1, 2, 3]), "'bbox' is not a list of four numbers"),
    (lambda c: c["train"][0].pop("bbox"), "no key 'bbox'"),
    (lambda c: c["train"][0].update(width="64"), "'width' is not an integer"),
    (lambda c: c["train"][0].update(height=0), "impossible image size"),
    (lambda c: c["train"][0].update(image_id=1e300), "'image_id' is not an integer"),
    (lambda c: c["train"][0].update(expressions="mug"), "wrong type of 'expressions'"),
    (lambda c: c["train"][0].update(expressions=["", "  "]), "expression without text"),
    (lambda c: c["train"][0].update(expressions=["\ud800", "\udfff"]), "not valid Unicode"),
    (lambda c: c["train"][0].update(mask={"size": [64, 48], "counts": [3072]}), "RLE of another size"),
    (lambda c: c["train"][0].update(mask={"size": [48, 64], "counts": [5, 5]}), "runs do not fill the image"),
    (lambda c: c["train"][0].update(mask={"size": [48, 64], "counts": "\u00ff!"}), "a character that no RLE has"),
    (lambda c: c["train"][0].update(mask={"size": [48, 64], "counts": "PPPPPPPPPPPPPPPPP"}), "RLE"),
    (lambda c: c["train"][0].update(mask=[[1, 2, 3, 4, 1e12, 6]]), "impossible coordinate"),
    (lambda c: c["train"][0].update(mask=[[1, 2, 3, 4, float("nan"), 6]]), "impossible coordinate"),
    (lambda c: c["train"][0].update(mask="polygon"), "neither polygons nor RLE"),
    (lambda c: c["train"].__setitem__(0, None), "not an object"),
]


@pytest.mark.parametrize("split", ["train", "val", "testA", "testB"])
def test_refer_and_seqtr_give_the_same_expressions(tmp_path, split):
    refer = open_set(RefCOCO, write_refer(tmp_path / "a")).load(split)
    seqtr = open_set(RefCOCO, write_seqtr(tmp_path / "b")).load(split)
    assert content(refer) == content(seqtr)
    assert [row.expression for row in refer] == [s for name, _, texts in REFS if name == split for s in texts]


@pytest.mark.parametrize("split", ["train", "val"])
def test_propvg_files_give_the_same_expressions(tmp_path, split):
    refer = open_set(RefCOCO, write_refer(tmp_path / "a")).load(split)
    path = tmp_path / "b" / "seqtr_type" / "annotations" / "refcoco-unc" / "instances_withid.json"
    dump(path, with_ids(seqtr_content()))
    found = open_set(RefCOCO, tmp_path / "b").load(split)
    assert content(found) == content(refer) and found.info["layout"] == "seqtr"
    assert sorted(row.ann_ids for row in found) == sorted(row.ann_ids for row in refer)
    written = with_ids(seqtr_content())
    del written[split][0]["id"]
    dump(path, written)
    with pytest.raises(UserError, match=rf"instances_withid\.json: {split}\[0\]: no key 'id'"):
        open_set(RefCOCO, tmp_path / "b").load(split)


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("name", ["instance.json", "instances_withid.json"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_propvg_grefcoco_gives_the_same_expressions(tmp_path, split, name, as_list):
    refer = open_set(GRefCOCO, write_grefs(tmp_path / "a")).load(split)
    dump(tmp_path / "b" / "annotations" / "grefs" / name, seqtr_flat(as_list))
    found = open_set(GRefCOCO, tmp_path / "b").load(split)
    assert content(found) == content(refer)
    assert sorted(row.ann_ids for row in found) == sorted(row.ann_ids for row in refer)
    if split == "train":  # drawn per image, as in the other forms
        assert len(np.unique(found.column("group"))) == len(np.unique(found.column("image_id")))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda e: e.update(expressions={"sent": "x"}), "no key 'raw'"),
        (lambda e: e.update(expressions={"raw": 3}), "wrong type of 'raw'"),
        (lambda e: e.pop("annotations"), "no key 'annotations'"),
        (lambda e: e["annotations"].append({"bbox": None}), "annotations with and without a box .2 of 3"),
        (lambda e: e["annotations"].append("x"), "not an object"),
        (lambda e: e["annotations"][0].update(bbox=[1, 2, 0, 0]), "box without area"),
    ],
)
def test_propvg_entries_that_cannot_be_used(tmp_path, damage, message):
    written = json.loads(json.dumps(seqtr_flat()))  # nothing shared
    damage(written["train"][0])
    dump(tmp_path / "annotations" / "grefs" / "instance.json", written)
    with pytest.raises(UserError, match=rf"instance\.json: train\[0\].*{message}"):
        open_set(GRefCOCO, tmp_path).load("train")
    assert len(open_set(GRefCOCO, tmp_path, on_bad_sample="skip").load("train")) == 3


@pytest.mark.parametrize("group_all", [False, True])
@pytest.mark.parametrize("split", ["train", "val"])
def test_grefcoco_layouts_agree(tmp_path, split, group_all, caplog):
    refer = open_set(GRefCOCO, write_grefs(tmp_path / "a")).load(split)
    content_of_file = seqtr_grouped(group_all)
    seqtr = open_set(GRefCOCO, write_seqtr(tmp_path / "b", "grefs", content_of_file)).load(split)
    assert content(refer) == content(seqtr)
    assert sorted(row.no_target for row in seqtr).count(True) == 1
    assert sorted(row.ann_ids for row in seqtr) == sorted(row.ann_ids for row in refer)
    several = sum(len(entry["expressions"]) > 1 for entry in content_of_file["val"])
    assert ("several expressions" in caplog.text) == (split == "val" and several > 0)
    if split == "train":  # one training unit per image, as the official recipe draws
        for table in (refer, seqtr):
            assert len(np.unique(table.column("group"))) == len(np.unique(table.column("image_id"))) == 3


def test_flickr_in_seqtr_layout(tmp_path):
    entry = {"image_id": 36979, "width": 64, "height": 48, "bbox": [1, 2, 10, 10], "expressions": ["a dog"]}
    row = open_set(Flickr30k, write_seqtr(tmp_path, "flickr30k", {"val": [entry]})).load("val").row(0)
    assert (row.image, row.source, row.masks) == ("36979.jpg", "flickr", ())


@pytest.mark.parametrize(("damage", "message"), BAD)
def test_unusable_samples_are_named_or_counted(tmp_path, damage, message):
    damaged = seqtr_content()
    damage(damaged)
    write_seqtr(tmp_path, content=damaged)
    with pytest.raises(UserError, match=message) as error:
        open_set(RefCOCO, tmp_path).load("train")
    assert "instances.json: train[0]" in str(error.value) and "\n" not in str(error.value)
    table = open_set(RefCOCO, tmp_path, on_bad_sample="skip").load("train")
    assert [row.expression for row in table] == ["right one"]
    entry = damaged["train"][0]
    known = isinstance(entry, dict) and isinstance(entry["expressions"], list)  # else nobody knows how many are lost
    assert sum(table.info["skipped"].values()) == (2 if known else 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"train": [{"ima', "not valid JSON.*truncated"),
        ("[1, 2]", "holds a list, expected an object whose keys are splits"),
        ('{"val": []}', "no split 'train'; splits in the file: val"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_damaged_files(tmp_path, text, message):
    write_seqtr(tmp_path)
    (tmp_path / "annotations" / "refcoco-unc" / "instances.json").write_text(text)
    with pytest.raises(UserError, match=message):
        open_set(RefCOCO, tmp_path).load("train")


def test_text_in_another_encoding(tmp_path):
    write_seqtr(tmp_path)
    (tmp_path / "annotations" / "refcoco-unc" / "instances.json").write_bytes('{"train": ["é"]}'.encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        open_set(RefCOCO, tmp_path).load("train")
