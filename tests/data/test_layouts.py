"""The same expressions come out of every layout, with the values that were written in; damaged files get one line."""

import copy
import io
import json
import pickle
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from vgbench.cli.main import main
from vgbench.core.errors import UserError
from vgbench.data.builder import TableBuilder
from vgbench.data.convert import convert
from vgbench.data.describe import figure, statistics
from vgbench.data.describe import text as statistics_text
from vgbench.data.leakage import Leakage, leakage, without_images
from vgbench.data.table import AnnotationTable
from vgbench.data.verify import verify
from vgbench.datasets.arpgrounding import ARPGrounding
from vgbench.datasets.grefcoco import GRefCOCO
from vgbench.datasets.mixed import CocoAll, Flickr30k, Mixed, MixedSeg, ReferIt
from vgbench.datasets.refadv import RefAdv
from vgbench.datasets.refcoco import RefCOCO, RefCOCOg, RefCOCOPlus
from vgbench.datasets.refcocos import RefCOCOS
from vgbench.datasets.vg import VisualGenome, evaluation_images

REAL = Path(__file__).parents[3] / "shared" / "data" / "real"

IMAGES = {101: (64, 48), 102: (50, 60), 103: (40, 40)}  # id -> width, height
OVERLAPPING = [[10, 10, 30, 10, 30, 30, 10, 30], [20, 20, 40, 20, 40, 40, 20, 40]]  # two squares of 20, sharing 10 x 10
SQUARE = [0, 0, 20, 0, 20, 10, 0, 10]
RLE = {"size": [60, 50], "counts": [600, 1200, 1200]}  # columns 10 to 29 of image 102
ANNOTATIONS = {
    11: {"image_id": 101, "bbox": [10, 10, 30, 30], "segmentation": OVERLAPPING, "category_id": 1},
    12: {"image_id": 101, "bbox": [50.25, 5.5, 13.75, 20], "segmentation": [[50, 5, 64, 5, 64, 25]], "category_id": 2},
    21: {"image_id": 102, "bbox": [10, 0, 20, 60], "segmentation": RLE, "category_id": 1},
    31: {
        "image_id": 103,
        "bbox": [-1.5, 0, 21.5, 10],
        "segmentation": [[0, 0, 20, 0, 20, 10, 0, 10]],
        "category_id": 2,
    },
}
# split, annotation ids, sentences
REFS = [
    ("train", [11], ["The MUG, left!", "mug"]),
    ("train", [12], ["right one"]),
    ("val", [21], ["Caf\u00e9 sign", "sign"]),
    ("testA", [31], ["top"]),
    ("testB", [31], ["corner"]),
]
GREFS = [
    ("train", [11, 12], ["both", "mug & the other"]),
    ("train", [], ["a giraffe"]),
    ("train", [21], ["stripe"]),
    ("val", [12, 11], ["two things"]),
    ("val", [], ["no such thing"]),
    ("val", [31], ["top"]),
    ("testA", [31], ["top"]),
    ("testB", [31], ["top"]),
]


def image_name(image_id):
    return f"COCO_train2014_{image_id:012d}.jpg"


def refs_as_dicts(refs, ann_id=lambda anns: anns[0]):
    sent_id = 100
    out = []
    for number, (split, anns, sentences) in enumerate(refs):
        image_id = ANNOTATIONS[anns[0]]["image_id"] if anns else 103
        dicts = []
        for raw in sentences:
            sent = "".join(c for c in raw.lower() if c.isalnum() or c == " ")
            dicts.append({"sent_id": sent_id, "sent": sent, "raw": raw, "tokens": sent.split()})
            sent_id += 1
        out.append(
            {
                "ref_id": 7 + number,
                "ann_id": ann_id(anns),
                "image_id": image_id,
                "category_id": 1,
                "split": split,
                "file_name": f"COCO_train2014_{image_id:012d}_{number}.jpg",
                "sent_ids": [d["sent_id"] for d in dicts],
                "sentences": dicts,
            }
        )
    return out


def instances():
    return {
        "info": {"year": 2014},
        "licenses": [],
        "images": [
            {"id": i, "file_name": image_name(i), "width": w, "height": h, "license": 1} for i, (w, h) in IMAGES.items()
        ],
        "annotations": [{"id": k, "area": 1.0, "iscrowd": 0, **a} for k, a in ANNOTATIONS.items()],
        "categories": [{"id": 1, "name": "cup", "supercategory": "x"}, {"id": 2, "name": "vase", "supercategory": "x"}],
    }


def python2_pickle(value):
    """Protocol 0 as Python 2 wrote it: byte strings for ASCII text, unicode for the rest."""

    def write(value):
        if isinstance(value, dict):
            return b"(d" + b"".join(write(k) + write(v) + b"s" for k, v in value.items())
        if isinstance(value, list):
            return b"(l" + b"".join(write(v) + b"a" for v in value)
        if isinstance(value, int):
            return b"I%d\n" % value
        if value.isascii():
            return b"S" + repr(value).encode() + b"\n"
        return b"V" + value.encode("raw-unicode-escape") + b"\n"

    return write(value) + b"."


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_refer(root, refs=REFS, folder="refcoco", name="refs(unc).p"):
    dump(root / folder / "instances.json", instances())
    (root / folder / name).write_bytes(python2_pickle(refs_as_dicts(refs)))
    return root


def write_grefs(root, ann_id=lambda anns: anns or [-1]):
    dump(root / "grefcoco" / "instances.json", instances())
    dump(root / "grefcoco" / "grefs(unc).json", refs_as_dicts(GREFS, ann_id))
    return root


def seqtr_head(image_id):
    width, height = IMAGES[image_id]
    return {"image_id": image_id, "width": width, "height": height}


def seqtr_content(refs=REFS):
    content = {"info": {"made": "by hand"}}
    for split, (ann,), sentences in refs:
        record = ANNOTATIONS[ann]
        head = {**seqtr_head(record["image_id"]), "bbox": record["bbox"], "mask": record["segmentation"]}
        groups = [sentences] if split == "train" else [[s] for s in sentences]
        content.setdefault(split, []).extend({**head, "expressions": group} for group in groups)
    return content


def write_seqtr(root, folder="refcoco-unc", content=None):
    dump(root / "annotations" / folder / "instances.json", content or seqtr_content())
    return root


def seqtr_grouped(group_all):
    """gRefCOCO entries: training grouped by image, evaluation by image or one per expression."""
    content = {}
    for split, anns, sentences in GREFS:
        image_id = ANNOTATIONS[anns[0]]["image_id"] if anns else 103
        entries = content.setdefault(split, [])
        for text in sentences:
            known = next((e for e in entries if e["image_id"] == image_id), None)
            if known is None or not (group_all or split == "train"):
                known = {**seqtr_head(image_id), "expressions": [], "bbox": [], "annotations": [], "segmentation": []}
                entries.append(known)
            known["expressions"].append(text)
            if anns:
                known["bbox"].append([ANNOTATIONS[a]["bbox"] for a in anns])
                known["annotations"].append([{"original_id": a, "category_id": 1, "empty": False} for a in anns])
                known["segmentation"].append([ANNOTATIONS[a]["segmentation"] for a in anns])
            else:
                known["bbox"].append([[0, 0, 0, 0]])
                known["annotations"].append([{"category_id": -1, "area": -1, "empty": True}])
                known["segmentation"].append([])
    return content


def with_ids(content):
    """As PropVG and InstanceVG write it: every entry has the id of its annotation."""
    known = {(record["image_id"], *record["bbox"]): ann for ann, record in ANNOTATIONS.items()}
    for entries in content.values():
        for entry in entries if isinstance(entries, list) else []:
            entry["id"] = known[(entry["image_id"], *entry["bbox"])]
    return content


def seqtr_flat(as_list=False):
    """gRefCOCO as PropVG and InstanceVG write it: an entry per expression, all of its annotations are targets."""
    content = {}
    for split, anns, sentences in GREFS:
        image_id = ANNOTATIONS[anns[0]]["image_id"] if anns else 103
        targets = [{**ANNOTATIONS[ann], "id": ann} for ann in anns] or [{"bbox": None, "segmentation": None}]
        head = {**seqtr_head(image_id), "file_name": image_name(image_id), "annotations": targets}
        for raw in [sentences] if as_list else sentences:
            content.setdefault(split, []).append({**head, "expressions": {"raw": raw, "sent": "x"}})
    return content


def mixed_seg_content(ids=True):
    """The merge of three SeqTR files: ``train`` of all, the other splits with the name of their dataset."""
    content = {"train": []}
    for name, splits in (("refcoco_unc", "val testA testB"), ("refcoco_plus", ""), ("refcocog_umd", "val test")):
        part = seqtr_content()
        part["test"] = part["testA"]
        part = with_ids(part) if ids else part
        content["train"] += part["train"]
        content.update({f"{split}_{name}": part[split] for split in splits.split()})
    return content


def open_set(kind, root, **options):
    return kind(root, cache_dir=root / "cache", **options)


def content(table):
    """What an expression is, whichever file it came from."""
    return sorted(
        (
            row.image_id,
            row.image,
            row.width,
            row.height,
            row.expression,
            row.boxes.tolist(),
            [mask["counts"] for mask in row.masks],
            row.polygons,
            row.source,
            row.split,
        )
        for row in table
    )


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


def test_refer_rows_have_what_was_written(tmp_path):
    table = open_set(RefCOCO, write_refer(tmp_path)).load("train")
    first, second, third = table
    assert (first.expression, second.expression) == ("The MUG, left!", "mug")  # raw, not sent
    assert first.boxes.tolist() == [[10, 10, 40, 40]] and third.boxes.tolist() == [[50.25, 5.5, 64.0, 25.5]]
    assert (first.ref_id, first.sent_id, first.ann_ids, first.categories) == (7, 100, (11,), ("cup",))
    assert first.image == image_name(101)  # not the ref's own file_name, which has a suffix
    assert first.group == second.group != third.group
    assert len({row.key for row in table}) == 3
    mask = coco_mask.decode(first.masks[0])
    assert first.polygons == (2,) and mask.max() == 1 and mask.sum() == 2 * 400 - 100  # united, not added
    assert table.info["task"] == "rec" and set(table.info["sources"]) == {
        "refcoco/instances.json",
        "refcoco/refs(unc).p",
    }


def test_uncompressed_rle(tmp_path):
    row = open_set(RefCOCO, write_refer(tmp_path)).load("val").row(0)
    mask = coco_mask.decode(row.masks[0])
    expected = np.zeros((60, 50), np.uint8)
    expected[:, 10:30] = 1
    assert (mask == expected).all() and row.polygons == (0,)
    assert row.expression == "Caf\u00e9 sign"


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


@pytest.mark.parametrize("none", [[-1], -1, None, []])
def test_no_target_marks(tmp_path, none):
    single = {1: lambda anns: anns[0]}
    write_grefs(tmp_path, lambda anns: none if not anns else single.get(len(anns), list)(anns))
    rows = list(open_set(GRefCOCO, tmp_path).load("val"))
    assert [len(row.boxes) for row in rows] == [2, 0, 1]
    assert rows[0].ann_ids == (12, 11) and rows[1].masks == () and rows[2].ann_ids == (31,)


def test_refclef_ids_and_masks(tmp_path):
    """ReferIt objects have text ids ("8756_2") and lists of RLEs."""
    record = {"id": "101_2", "image_id": 101, "bbox": [0, 0, 64, 10], "category_id": 1, "iscrowd": 0}
    counts = [10, 38] * 64  # the upper ten rows
    counts = [0, *counts]
    content = {
        "images": [{"id": 101, "file_name": "101.jpg", "width": 64, "height": 48}],
        "annotations": [{**record, "segmentation": [{"size": [48, 64], "counts": counts}]}],
        "categories": [{"id": 1, "name": "sky"}],
    }
    dump(tmp_path / "refclef" / "instances.json", content)
    refs = refs_as_dicts([("test", [11], ["sky"])], lambda anns: "101_2")
    (tmp_path / "refclef" / "refs(berkeley).p").write_bytes(python2_pickle(refs))
    row = open_set(ReferIt, tmp_path).load("test").row(0)
    assert (row.image, row.source, row.ann_ids, row.categories) == ("101.jpg", "saiaprtc12", (), ("sky",))
    mask = coco_mask.decode(row.masks[0])
    assert mask[:10].all() and not mask[10:].any()


def test_splits_are_matched_exactly(tmp_path):
    write_refer(tmp_path, [("testA", [11], ["a"]), ("train", [12], ["b"])], name="refs(google).p")
    data = open_set(RefCOCO, tmp_path, split_by="google")
    with pytest.raises(UserError, match=r"no ref of split 'test'; splits in the file: testA, train"):
        data.load("test")
    with pytest.raises(UserError, match="no split 'testA'; there are: train, val, test"):
        data.load("testA")
    with pytest.raises(UserError, match="split_by='umd'"):
        RefCOCO(tmp_path, split_by="umd")


def test_folder_of_another_dataset_is_not_taken(tmp_path):
    write_refer(tmp_path)
    assert len(open_set(RefCOCO, tmp_path / "refcoco").load("train")) == 3
    with pytest.raises(UserError, match=r"refcoco\+/"):
        open_set(RefCOCOPlus, tmp_path / "refcoco").load("train")


def test_missing_files_say_what_is_expected(tmp_path):
    for root, why in ((None, "no data_root given"), (tmp_path / "x", "no such folder"), (tmp_path, "none of the")):
        with pytest.raises(UserError) as error:
            RefCOCO(root, cache_dir=tmp_path / "cache").load("val")
        text = str(error.value)
        assert why in text and "data_root=" in text and "\n" not in text
        assert "refcoco/{refs(unc).p" in text and "annotations/refcoco-unc/instances.json" in text
    with pytest.raises(UserError, match="image_root="):
        open_set(RefCOCO, write_refer(tmp_path)).image_path(image_name(101))


# ------------------------------------------------------------------------------------------------------ other layouts


def minigpt_rows():
    return [
        {
            "img_id": f"COCO_train2014_{image_id:012d}_{suffix}",
            "sents": text,
            "bbox": [1.5, 2, 10, 10.25],
            "height": 48,
            "width": 64,
        }
        for image_id, suffix, text in [(101, 5, "one"), (101, 5, ["two", "three"]), (101, 6, "four")]
    ]


def test_minigpt_evaluation_files(tmp_path):
    dump(tmp_path / "refcocog_val.json", minigpt_rows())
    table = open_set(RefCOCOg, tmp_path).load("val")
    assert [row.expression for row in table] == ["one", "two", "three", "four"]
    assert table.row(0).boxes.tolist() == [[1.5, 2, 11.5, 12.25]] and not table.has_masks
    assert table.row(0).ann_ids == (5,) and table.row(0).image == image_name(101)
    assert len(np.unique(table.column("group"))) == 2
    with pytest.raises(UserError, match="no annotations of split 'train'"):
        open_set(RefCOCOg, tmp_path).load("train")


def refcocos_rows():
    row = {"image": "val2017/000000000139.jpg", "height": 48, "width": 64, "normal_caption": "cup"}
    return [{**row, "solution": [1, 2, 3, 4]}, {**row, "solution": None}]


def test_refcocos(tmp_path):
    dump(tmp_path / "refcocos_test.json", refcocos_rows())
    first, second = open_set(RefCOCOS, tmp_path).load("test")
    assert first.boxes.tolist() == [[1, 2, 3, 4]] and second.no_target and first.image == "000000000139.jpg"


def merged_content():
    leaked = min(evaluation_images())
    box = {"width": 64, "height": 48, "bbox": [1, 2, 10, 10]}
    entries = [(101, "coco"), (leaked, "coco"), (5, "vg"), (6, "visual-genome"), (8, "saiaprtc12"), (9, "flickr")]
    return {
        "train": [{**box, "image_id": i, "data_source": s, "expressions": ["a", "b"]} for i, s in entries],
        "val_flickr30k": [{**box, "image_id": 9, "expressions": ["c"]}],
        "val_refcoco_unc": [{**box, "image_id": leaked, "expressions": ["d"]}],
    }


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


def test_flickr_in_seqtr_layout(tmp_path):
    entry = {"image_id": 36979, "width": 64, "height": 48, "bbox": [1, 2, 10, 10], "expressions": ["a dog"]}
    row = open_set(Flickr30k, write_seqtr(tmp_path, "flickr30k", {"val": [entry]})).load("val").row(0)
    assert (row.image, row.source, row.masks) == ("36979.jpg", "flickr", ())


# --------------------------------------------------------------------------------------------------- damaged, hostile


def test_pickle_with_code_is_refused_by_name_and_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return (marker.touch, ())

    class Call:
        def __reduce__(self):
            return (eval, (f"open({str(marker)!r}, 'w')",))

    write_refer(tmp_path)
    for payload, name in ((Hostile(), "getattr|pathlib"), (Call(), "builtins.eval"), (np.float64(1), "numpy")):
        (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([{"ref_id": payload}]))
        with pytest.raises(UserError, match=name):
            open_set(RefCOCO, tmp_path).load("train")
    assert not marker.exists()


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


def test_references_that_lead_nowhere(tmp_path):
    write_refer(tmp_path)
    for damage, message in [
        (lambda c: c["annotations"].pop(0), "ann_id without an annotation"),
        (lambda c: c["images"].pop(0), "image_id without an image"),
        (lambda c: c["annotations"][0].update(image_id=102), "annotation of another image"),
        (lambda c: c["images"][0].update(file_name="../../etc/passwd"), "leaves the image folder"),
        (lambda c: c["images"][0].update(file_name="/etc/passwd"), "leaves the image folder"),
    ]:
        damaged = instances()
        damage(damaged)
        dump(tmp_path / "refcoco" / "instances.json", damaged)
        with pytest.raises(UserError, match=message):
            open_set(RefCOCO, tmp_path).load("train")


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


JUNK = [
    None,
    -1,
    0,
    1e308,
    float("nan"),
    True,
    "",
    "x",
    "\ud800",
    [],
    [[]],
    [None],
    {},
    {"size": 3},
    2**70,
    [1, 2, 3, 4],
]


@pytest.mark.parametrize(
    "kind",
    [
        *("refer", "refs", "seqtr", "grefs", "grouped", "minigpt", "refcocos", "mixed", "mdetr", "vglaw"),
        *("withid", "flat", "mixed-seg"),
    ],
)
def test_fuzzed_files_never_give_a_traceback(tmp_path, kind, mutate):
    refs = write_refer(tmp_path) / "refcoco" / "refs(unc).json"
    (tmp_path / "refcoco" / "refs(unc).p").unlink()
    dump(refs, refs_as_dicts(REFS))
    write_grefs(tmp_path)
    target, make, dataset, split = {
        "refer": (tmp_path / "refcoco" / "instances.json", instances, RefCOCO, "train"),
        "refs": (refs, lambda: refs_as_dicts(REFS), RefCOCO, "train"),
        "seqtr": (tmp_path / "refcocoplus-unc" / "instances.json", seqtr_content, RefCOCOPlus, "train"),
        "grefs": (
            tmp_path / "grefcoco" / "grefs(unc).json",
            lambda: refs_as_dicts(GREFS, lambda a: a or [-1]),
            GRefCOCO,
            "val",
        ),
        "grouped": (tmp_path / "g" / "grefs" / "instances.json", lambda: seqtr_grouped(True), GRefCOCO, "val"),
        "minigpt": (tmp_path / "refcocog_val.json", minigpt_rows, RefCOCOg, "val"),
        "refcocos": (
            tmp_path / "refcocos_test.json",
            lambda: [
                {"image": "val2017/1.jpg", "height": 9, "width": 9, "normal_caption": "a", "solution": [1, 2, 3, 4]}
            ],
            RefCOCOS,
            "test",
        ),
        "mixed": (tmp_path / "mixed" / "instances.json", merged_content, Mixed, "train"),
        "withid": (
            tmp_path / "refcocoplus-unc" / "instances_withid.json",
            lambda: with_ids(seqtr_content()),
            RefCOCOPlus,
            "train",
        ),
        "flat": (tmp_path / "g" / "grefs" / "instance.json", seqtr_flat, GRefCOCO, "val"),
        "mixed-seg": (tmp_path / "mixed-seg" / "instances_nogoogle_withid.json", mixed_seg_content, MixedSeg, "train"),
        "mdetr": (tmp_path / "final_flickr_separateGT_val.json", mdetr_phrases, Flickr30k, "val"),
        "vglaw": (tmp_path / "refcoco(google).pkl", vglaw_items, RefCOCO, "val"),
    }[kind]
    generator = random.Random(kind)
    outcomes = set()
    for _ in range(60):
        damaged = mutate(copy.deepcopy(make()), generator, JUNK)
        if target.suffix == ".pkl":
            target.write_bytes(pickle.dumps(damaged))
        else:
            dump(target, damaged)
        options = {"split_by": "google"} if kind == "vglaw" else {}
        data = open_set(dataset, target.parents[1] if kind in ("grouped", "flat") else tmp_path, **options)
        try:
            table = data.read(split)
            outcomes.add("skipped" if table.info["skipped"] else "read")
            for row in table:
                coco_mask.decode(list(row.masks))
        except UserError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert len(outcomes) >= 2


@pytest.mark.parametrize("kind", ["pickle", "torch", "parquet"])
def test_damaged_bytes_never_give_a_traceback(tmp_path, kind):
    root = tmp_path / "set"
    if kind == "parquet":
        source = open_set(RefCOCO, write_refer(tmp_path / "a"))
        (target,) = convert({"train": source.load("train")}, "hub", root, "refcoco")
    else:
        (write_refer if kind == "pickle" else write_transvg)(root)
        target = root / ("refcoco/refs(unc).p" if kind == "pickle" else "data/unc/unc_train.pth")
    whole = target.read_bytes()
    generator = random.Random(kind)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        if generator.random() < 0.3:
            del damaged[generator.randrange(len(damaged)) :]
        else:
            for _ in range(generator.randrange(1, 4)):
                damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        target.write_bytes(damaged)
        try:
            open_set(RefCOCO, root).read("train")
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 10


# ------------------------------------------------------------------------------------------------------ cache, verify


def test_second_opening_reads_no_source(tmp_path, monkeypatch):
    write_refer(tmp_path)
    first = open_set(RefCOCO, tmp_path).load("train")

    def forbidden(*arguments):
        raise AssertionError("a source was read")

    monkeypatch.setattr("vgbench.core.files.file_sha256", forbidden)
    monkeypatch.setattr(RefCOCO, "read", forbidden)
    again = open_set(RefCOCO, tmp_path).load("train")
    assert again.hash == first.hash and content(again) == content(first)


def test_cache_follows_sources_and_survives_damage(tmp_path):
    write_refer(tmp_path)
    data = open_set(RefCOCO, tmp_path)
    assert data.load("val").row(0).expression == "Caf\u00e9 sign"
    write_refer(tmp_path, [*REFS[:2], ("val", [21], ["other"]), *REFS[3:]])
    assert data.load("val").row(0).expression == "other"
    for file in (tmp_path / "cache" / "tables").iterdir():
        file.write_bytes(b"ARROW1 but not really")
    assert open_set(RefCOCO, tmp_path).load("val").row(0).expression == "other"


def test_same_cache_serves_error_and_skip(tmp_path):
    damaged = seqtr_content()
    damaged["train"][0]["bbox"] = [0, 0, 0, 0]
    write_seqtr(tmp_path, content=damaged)
    assert len(open_set(RefCOCO, tmp_path, on_bad_sample="skip").load("train")) == 1
    with pytest.raises(UserError, match="on_bad_sample=skip to leave out 2"):
        open_set(RefCOCO, tmp_path).load("train")


def put_images(folder, name=image_name, sizes=IMAGES):
    folder.mkdir(parents=True, exist_ok=True)
    for image_id, size in sizes.items():
        Image.new("RGB", size).save(folder / name(image_id))


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("images/mscoco/train2014", image_name),
        ("mscoco/images/train2014", image_name),
        ("images/train2017", lambda image_id: f"{image_id:012d}.jpg"),
    ],
)
def test_images_are_found_under_either_name(tmp_path, folder, name):
    write_refer(tmp_path)
    put_images(tmp_path / folder, name)
    data = open_set(RefCOCO, tmp_path / "refcoco")
    row = data.load("train").row(0)
    assert data.image_path(row.image) == (tmp_path / folder).resolve() / name(101)


def test_image_template(tmp_path):
    write_refer(tmp_path)
    put_images(tmp_path / "pictures", lambda image_id: f"p{image_id}.jpg")
    data = open_set(RefCOCO, tmp_path, image_root=tmp_path / "pictures", image_template="p{:d}.jpg")
    assert data.image_path(image_name(102)) == tmp_path / "pictures" / "p102.jpg"
    assert not open_set(RefCOCO, tmp_path, image_root=tmp_path / "pictures").image_path(image_name(102)).exists()


def test_verify_finds_what_is_wrong(tmp_path):
    write_refer(tmp_path)
    folder = tmp_path / "images" / "train2014"
    put_images(folder)
    Image.new("RGB", (9, 9)).save(folder / image_name(101))
    whole = (folder / image_name(102)).read_bytes()
    (folder / image_name(102)).write_bytes(whole[: len(whole) // 2])
    (folder / image_name(103)).unlink()
    report = verify(open_set(RefCOCO, tmp_path), decode=True)
    text = "\n".join(report.lines())
    assert not report.ok
    assert report.missing_images == [image_name(103)] and "MISSING 1 image files" in text
    assert "9 x 9, annotations say 64 x 48" in text and f"{image_name(102)}: not a readable image" in text
    assert "testA and testB share 1 images" in text
    assert "testA: 1 target(s) have a box that leaves the image" in text
    train = report.splits[0]
    assert (train.images, train.refs, train.expressions, train.masks) == (1, 2, 3, 3)
    assert "train: 3 expressions, published 120,624 (-120,621)" in text
    assert "note: papers give 142,209 expressions" in text


def test_verify_decodes_what_is_called_jpg_and_is_not(tmp_path):
    """Damaged AVIF is a RuntimeError in Pillow."""
    write_refer(tmp_path)
    put_images(tmp_path / "images" / "train2014")
    whole = io.BytesIO()
    Image.new("RGB", IMAGES[102]).save(whole, "AVIF")
    content = whole.getvalue()
    start = content.find(b"mdat") + 4
    path = tmp_path / "images" / "train2014" / image_name(102)
    path.write_bytes(content[:start] + b"\xff" * (len(content) - start))
    report = verify(open_set(RefCOCO, tmp_path), decode=True, splits="val")
    assert [line.split(" (")[0] for line in report.problems] == [f"{path}: not a readable image"]


def test_verify_compares_masks_with_boxes_and_lists_skipped(tmp_path):
    damaged = instances()
    damaged["annotations"][0]["bbox"] = [40, 30, 5, 5]
    damaged["annotations"][1]["bbox"] = [0, 0, 0, 0]
    write_refer(tmp_path)
    dump(tmp_path / "refcoco" / "instances.json", damaged)
    problems = "\n".join(verify(open_set(RefCOCO, tmp_path), splits="train").problems)
    assert "1 target(s) have a mask that does not fit the box" in problems
    assert "1 expression(s) cannot be used" in problems and "box without area" in problems


def test_verify_accepts_what_is_as_published(tmp_path):
    rows = [
        {"image": f"val2017/{i:012d}.jpg", "height": 4, "width": 4, "normal_caption": "a", "solution": None}
        for i in range(506)
    ]
    dump(tmp_path / "refcocos_test.json", rows)
    put_images(tmp_path / "val2017", lambda i: f"{i:012d}.jpg", dict.fromkeys(range(506), (4, 4)))
    steps = []
    report = verify(open_set(RefCOCOS, tmp_path), progress=lambda done, total: steps.append((done, total)))
    assert report.ok, report.lines()
    assert report.checked_images == 506 and steps[-1] == (506, 506)


def table_of(rows, source="coco"):
    """(image id, expression) pairs as a table."""
    builder = TableBuilder("made", "train", "rec")
    for index, (image_id, expression) in enumerate(rows):
        builder.add(
            key=str(index),
            image_id=image_id,
            image=f"{image_id}.jpg",
            width=10,
            height=10,
            expression=expression,
            boxes=[[0, 0, 5, 2]],
            categories=["cup"],
            group=index,
            source=source,
        )
    return builder.table()


def test_leakage_counts_images_across_sources():
    evaluation = table_of([(1, "a"), (2, "b"), (2, "c"), (3, "d")])
    train = table_of([(2, "x"), (2, "y"), (9, "z")])
    assert leakage(train, evaluation) == Leakage(images=1, evaluation_images=3, training_expressions=2)
    genome = table_of([(2, "x"), (50, "y"), (51, "z")], source="vg")
    assert leakage(genome, evaluation).images == 0  # Visual Genome counts its images on its own
    assert leakage(genome, evaluation, {("vg", 50): ("coco", 3), ("vg", 2): ("coco", 77)}) == Leakage(1, 3, 1)
    clean = without_images(train, [evaluation])
    assert [row.expression for row in clean] == ["z"] and clean.info["excluded_images"] == 1
    assert leakage(clean, evaluation).images == 0


def test_statistics():
    found = statistics(table_of([(1, "The left cup"), (1, "the left cup"), (1, "the left cup"), (2, "bowl")]))
    assert (found.images, found.expressions, found.words, found.vocabulary) == (2, 4, 2.5, 4)
    assert found.location == 0.75 and found.targets == {1: 4} and found.length == {1: 1, 3: 3}
    assert found.duplicates == 1 and found.ambiguous == 0 and found.same_category == 0
    assert found.area == (0.1,) * 5 and found.common[0] == ("the", 3)
    assert found.growth == ((1, 3), (2, 3), (3, 3), (4, 4)) and found.others == {0: 2}


def test_statistics_as_a_picture(tmp_path):
    found = {"train": statistics(table_of([(1, "The left cup"), (2, "bowl")]))}
    figure(found, tmp_path / "new" / "words.png")
    with Image.open(tmp_path / "new" / "words.png") as picture:
        assert picture.width > picture.height > 100
    with pytest.raises(UserError, match=r"words\.doc: not a kind of picture"):
        figure(found, tmp_path / "words.doc")


@pytest.mark.skipif(not REAL.is_dir(), reason="no real annotation files here")
def test_real_statistics(tmp_path):
    data = RefCOCO(REAL / "minigpt4_refcoco_eval", cache_dir=tmp_path)
    found = {split: statistics(data.load(split)) for split in ("val", "testA", "testB")}
    assert [round(s.words, 2) for s in found.values()] == [3.57, 3.43, 3.63]
    assert [s.duplicates for s in found.values()] == [566, 308, 301]
    assert [s.ambiguous for s in found.values()] == [3, 1, 9]
    assert "10,834" in statistics_text(found)
    figure(found, tmp_path / "figures" / "refcoco.png")
    assert Image.open(tmp_path / "figures" / "refcoco.png").size == (1350, 975)


@pytest.mark.skipif(not REAL.is_dir(), reason="no real annotation files here")
def test_real_leakage_between_refcocog_and_refcoco(tmp_path):
    names = (REAL / "pseudoq_train_images" / "gref_umd_train_imagelist.txt").read_text().split()
    train = table_of([(int(number), "x") for name in names if (number := name.split("_")[-1].partition(".")[0])])
    data = RefCOCO(REAL / "minigpt4_refcoco_eval", cache_dir=tmp_path)
    assert [leakage(train, data.load(split)).images for split in ("val", "testA", "testB")] == [918, 454, 488]


@pytest.mark.skipif(not REAL.is_dir(), reason="no real annotation files here")
@pytest.mark.parametrize("kind", [RefCOCO, RefCOCOPlus, RefCOCOg])
def test_real_evaluation_files_have_the_published_counts(tmp_path, kind):
    splits = [split for split in kind.splits if split != "train"]
    report = verify(kind(REAL / "minigpt4_refcoco_eval", cache_dir=tmp_path), splits=splits)
    assert not report.differences and not report.problems and [s.split for s in report.splits] == splits


# ----------------------------------------------------------------------------- layouts with boxes only, conversions


def boxes_of(table):
    return sorted((row.image_id, row.image, row.expression, row.boxes.tolist(), row.split) for row in table)


def write_transvg(root, boxes="xywh"):
    rows = {}
    for split, (ann,), sentences in REFS:
        image_id, (x, y, w, h) = ANNOTATIONS[ann]["image_id"], ANNOTATIONS[ann]["bbox"]
        box = [x, y, w, h] if boxes == "xywh" else [x, y, x + w, y + h]
        for number, text in enumerate(sentences):
            # lists, tensors and arrays all occur in circulating files
            box = [box, np.array(box), torch.tensor(box, dtype=torch.float64)][number % 3]
            rows.setdefault(split, []).append((image_name(image_id), f"{ann}.pth", box, text, [("r1", ["none"])]))
    for split, values in rows.items():
        (root / "data" / "unc").mkdir(parents=True, exist_ok=True)
        torch.save(values, root / "data" / "unc" / f"unc_{split}.pth")
    put_images(root / "images" / "train2014")
    return root


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("leakage train=refcoco eval=vg", "eval=vg: has no evaluation split, only train"),
        ("leakage train=ref-l4 eval=refcoco", "train=ref-l4: has no training split, only val, test"),
        ("stats dataset=refcoco split=train,val", "refs(unc).p: no ref of split 'val'; splits in the file: train"),
        ("browse dataset=vg out=page", "region_descriptions.json is not there"),
        ("stats dataset=refcoco --decode", "data stats: --decode is for data verify only"),
        ("build dataset=refcoco dataroot=x", "dataroot: unknown key; did you mean dataset.data_root?"),
        ("build dataset=refcoco bench=alvg", "bench: unknown key; "),
    ],
)
def test_what_was_asked_for_and_is_not_there(tmp_path, capsys, arguments, message):
    """One line and exit code 2; nothing printed and 0 looks like a result."""
    write_refer(tmp_path, [("train", [11], ["mug"])])
    given = [*arguments.split(), f"data_root={tmp_path}", f"dataset.cache_dir={tmp_path}"]
    assert main(["data", *given]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_stats_of_the_splits_that_are_there(tmp_path, capsys):
    write_refer(tmp_path, [("train", [11], ["mug"])])
    assert main(["data", "stats", "dataset=refcoco", f"data_root={tmp_path}", f"dataset.cache_dir={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "not read: val: " in said and "expressions" in said


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


@pytest.mark.parametrize("write", [write_transvg, write_qwen, write_vglaw])
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


def test_transvg_boxes_are_corners_for_referit_and_flickr(tmp_path):
    put_images(tmp_path / "saiaprtc12", lambda i: f"{i}.jpg")
    put_images(tmp_path / "flickr30k", lambda i: f"{i}.jpg")
    for name in ("referit", "flickr"):
        (tmp_path / name).mkdir()
    torch.save([("101.jpg", "101_1.pth", [5, 6, 20, 30], "a sky", [])], tmp_path / "referit" / "referit_val.pth")
    torch.save([("101.jpg", [5, 6, 20, 30], "a sky")], tmp_path / "flickr" / "flickr_val.pth")
    for kind in (ReferIt, Flickr30k):
        row = open_set(kind, tmp_path).load("val").row(0)
        assert (row.image_id, row.boxes.tolist(), row.expression) == (101, [[5, 6, 20, 30]], "a sky")


def test_missing_image_of_a_layout_without_sizes(tmp_path):
    write_transvg(tmp_path)
    name = tmp_path / "images" / "train2014" / image_name(101)
    name.rename(tmp_path / "away.jpg")
    with pytest.raises(UserError, match=f"image file is missing.*{image_name(101)}"):
        open_set(RefCOCO, tmp_path).load("train")
    name.write_bytes(b"")  # a copy that was broken off
    with pytest.raises(UserError, match="image file that is no image"):
        open_set(RefCOCO, tmp_path).load("train")
    (tmp_path / "away.jpg").rename(name)
    assert len(open_set(RefCOCO, tmp_path).load("train")) == 3  # the failure was not cached


def test_torch_file_with_code_is_refused(tmp_path):
    marker = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return (eval, (f"open({str(marker)!r}, 'w')",))

    (tmp_path / "unc").mkdir()
    torch.save([Hostile()], tmp_path / "unc" / "unc_train.pth")
    with pytest.raises(UserError, match="eval, which could run code"):
        open_set(RefCOCO, tmp_path).load("train")
    (tmp_path / "unc" / "unc_train.pth").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(UserError, match="damaged"):
        open_set(RefCOCO, tmp_path).load("train")
    assert not marker.exists()


def mdetr_phrases():
    image = {"id": 4, "file_name": "36979.jpg", "width": 64, "height": 48, "caption": "Two dogs chase a red ball"}
    boxes = [([5, 5, 10, 10], [[0, 8]]), ([30, 8, 10, 12], [[0, 8]]), ([50, 40, 4, 4], [[15, 25]])]
    annotations = [
        {"id": i, "image_id": 4, "bbox": box, "tokens_positive": span, "category_id": 1, "iscrowd": 0}
        for i, (box, span) in enumerate(boxes)
    ]
    return {"images": [image], "annotations": annotations}


def vglaw_items():
    entry = {"image_id": 101, "bbox": [1, 2, 10, 10], "phrase": "cup", "ref_id": 3}
    return {"index": 0, "items": {"val": [entry, {**entry, "ref_id": 4}]}}


def lmms_row(*texts):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "PNG")
    return {
        "question_id": "1",
        "image": {"bytes": buffer.getvalue(), "path": None},
        "answer": list(texts),
        "bbox": [1.5, 2.0, 10.0, 10.25],
        "segmentation": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        "iscrowd": 0,
        "file_name": "COCO_train2014_000000000101_55.jpg",
    }


def test_lmms_lab_files(tmp_path):
    row = lmms_row("the mug", "mug")
    for split in ("val", "test"):
        (tmp_path / "RefCOCOg" / "data").mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([row, {**row, "file_name": "../x.jpg"}])
        pq.write_table(table, tmp_path / "RefCOCOg" / "data" / f"{split}-00000-of-00001.parquet")
    table = open_set(RefCOCOg, tmp_path, on_bad_sample="skip").load("test")
    assert [row.expression for row in table] == ["the mug", "mug"] and sum(table.info["skipped"].values()) == 2
    first = table.row(0)
    assert (first.image, first.width, first.height, first.ann_ids) == (image_name(101), 64, 48, (55,))
    assert first.boxes.tolist() == [[1.5, 2, 11.5, 12.25]]
    for split_by in ("umd", "google"):
        with pytest.raises(UserError, match=r"mixes splits of two authors \(2,573 rows of umd, 5,000 of google\)"):
            open_set(RefCOCOg, tmp_path, split_by=split_by).load("val")


def test_lmms_lab_test_split_is_googles(tmp_path):
    folder = tmp_path / "RefCOCO" / "data"
    folder.mkdir(parents=True)
    for split, text in (("val", "mixed"), ("test", "google"), ("testA", "unc")):
        pq.write_table(pa.Table.from_pylist([lmms_row(text)]), folder / f"{split}-00000-of-00001.parquet")
    google = open_set(RefCOCO, tmp_path, split_by="google")
    assert [row.expression for row in google.load("test")] == ["google"]
    assert [row.expression for row in open_set(RefCOCO, tmp_path).load("testA")] == ["unc"]
    with pytest.raises(UserError, match=r"val-00000.*\(3,811 rows of unc, 5,000 of google\), and no column tells"):
        google.load("val")
    with pytest.raises(UserError, match="no annotations of split 'train'"):
        google.load("train")
    # the folder of one dataset is not taken for another's
    folder.parent.rename(tmp_path / "RefCOCOplus")
    with pytest.raises(UserError, match="none of the expected"):
        open_set(RefCOCO, tmp_path / "RefCOCOplus").load("testA")
    assert len(open_set(RefCOCOPlus, tmp_path / "RefCOCOplus").load("testA")) == 1


def refadv_entries():
    """The fields of the authors' example that matter, and some that do not."""
    entry = {
        "raw_str": "two cups next to a vase",
        "GT_bbox_number": "2",
        "annID": "12",
        "most_confused_bbox_GT_desc": "A vase next to two cups.",
        "most_confused_bbox_number": "1",
        "bbox_candidates_map": '{"1": [10.5, 2.0, 20.25, 30.0], "2": [0.0, 0.0, 5.0, 5.0]}',
        "assigns": [{"dropdownselect": "2"}],
        "imgID": "101",
        "img_file_name": image_name(101),
        "stage": "stage3",
    }
    return {"3K3G_batch18": entry, "36BT_batch19": {**entry, "most_confused_bbox_number": "2"}}


def test_ref_adv(tmp_path):
    path = dump(tmp_path / "ref-adv" / "refcocog_adv_annotations.json", refadv_entries())
    put_images(tmp_path / "images" / "train2014")
    first, second = open_set(RefAdv, tmp_path).load("test")
    assert (first.expression, first.boxes.tolist()) == ("A vase next to two cups.", [[10.5, 2, 30.75, 32]])
    assert (first.image, first.image_id, first.width, first.height) == (image_name(101), 101, 64, 48)
    assert second.boxes.tolist() == [[0, 0, 5, 5]] and first.group != second.group
    for key, value, message in [
        ("most_confused_bbox_number", "3", "none of the candidates"),
        ("bbox_candidates_map", "{", "'bbox_candidates_map' is not valid JSON"),
        ("img_file_name", image_name(999), "image file is missing"),
        ("img_file_name", "../../etc/1.jpg", "leaves the image folder"),
    ]:
        damaged = refadv_entries()
        damaged["36BT_batch19"][key] = value
        dump(path, damaged)
        with pytest.raises(UserError, match=rf"annotations\.json: '36BT_batch19': .*{message}"):
            open_set(RefAdv, tmp_path).load("test")


def arp_pairs():
    cup = {"phrase": "A White cup", "x": 1, "y": 2, "w": 10, "h": 20}
    return {101: [[cup, {**cup, "phrase": "black cup", "x": 30}]], 102: [[cup, cup], [cup, cup]]}


def test_arpgrounding(tmp_path):
    folder = tmp_path / "arpgrounding"
    folder.mkdir()
    for name in ("attribute", "relationship", "priority"):
        (folder / f"{name}_vg.pkl").write_bytes(pickle.dumps(arp_pairs()))
    put_images(tmp_path / "visual-genome" / "VG_100K_2", lambda i: f"{i}.jpg")
    data = open_set(ARPGrounding, tmp_path)
    for split in ("attribute", "relation", "priority"):
        rows = list(data.load(split))
        assert [(r.expression, r.boxes.tolist(), r.image_id, r.group) for r in rows[:2]] == [
            ("A White cup", [[1, 2, 11, 22]], 101, 0),
            ("black cup", [[30, 2, 40, 22]], 101, 0),
        ]
        assert len(rows) == 6 and len({row.key for row in rows}) == 6 and rows[5].group == 2
        assert (rows[0].width, rows[0].height, rows[0].source) == (64, 48, "vg")
    assert data.image_path("101.jpg") == tmp_path / "visual-genome" / "VG_100K_2" / "101.jpg"
    leaked = min(evaluation_images())
    dump(tmp_path / "image_data.json", [{"image_id": 101, "coco_id": leaked}, {"image_id": 102, "coco_id": None}])
    assert leakage(table_of([(leaked, "x")]), data.load("priority"), data.image_aliases()).images == 1
    (folder / "priority_vg.pkl").write_bytes(pickle.dumps({101: [[arp_pairs()[101][0][0]]], 7: [], 102: [3]}))
    table = open_set(ARPGrounding, tmp_path, on_bad_sample="skip").load("priority")
    assert len(table) == 0 and sum(table.info["skipped"].values()) == 5


def write_entities(root):
    for folder in ("Sentences", "Annotations"):
        (root / "flickr30k_entities" / folder).mkdir(parents=True)
    (root / "flickr30k_entities" / "val.txt").write_text("36979\n")
    (root / "flickr30k_entities" / "Sentences" / "36979.txt").write_text(
        "[/EN#7/animals Two dogs] chase [/EN#8/other a red ball] in [/EN#9/scene a park] .\n"
        "[/EN#8/other The toy] rolls .\n"
    )
    box = (
        "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
    )
    (root / "flickr30k_entities" / "Annotations" / "36979.xml").write_text(
        "<annotation><filename>36979.jpg</filename><size><width>64</width><height>48</height><depth>3</depth></size>"
        + box.format(7, 6, 6, 16, 16)  # counted from 1
        + box.format(7, 31, 9, 41, 21)
        + box.format(8, 51, 41, 55, 45)
        + "<object><name>9</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>"
    )
    return root


def test_original_flickr_entities(tmp_path):
    data = open_set(Flickr30k, write_entities(tmp_path))
    rows = list(data.load("val"))
    assert [(row.expression, row.boxes.tolist()) for row in rows] == [
        ("Two dogs", [[5, 5, 40, 20]]),
        ("a red ball", [[50, 40, 54, 44]]),
        ("The toy", [[50, 40, 54, 44]]),
    ]
    assert rows[1].group == rows[2].group != rows[0].group and rows[0].image == "36979.jpg"
    path = tmp_path / "flickr30k_entities" / "Sentences" / "36979.txt"
    path.write_text("[/EN#7/animals Dogs]\n")
    assert [row.expression for row in data.load("val")] == ["Dogs"]  # the cache follows files in folders too
    (tmp_path / "flickr30k_entities" / "Annotations" / "36979.xml").write_text("<annotation><size>")
    with pytest.raises(UserError, match="not valid XML"):
        data.load("val")


def test_visual_genome_regions(tmp_path):
    region = {"region_id": 1382, "x": -2, "y": 3, "width": 20, "height": 10, "phrase": "the clock", "image_id": 1}
    dump(
        tmp_path / "region_descriptions.json",
        [{"id": 1, "regions": [region]}, {"id": 2, "regions": [{**region, "region_id": 5}]}],
    )
    size = {"width": 64, "height": 48, "url": "x"}
    leaked = min(evaluation_images())
    dump(
        tmp_path / "image_data.json",
        [{"image_id": 1, "coco_id": None, **size}, {"image_id": 2, "coco_id": leaked, **size}],
    )
    put_images(tmp_path / "VG_100K_2", lambda i: f"{i}.jpg", {1: (64, 48)})
    data = open_set(VisualGenome, tmp_path)
    (row,) = table = data.load("train")
    assert (row.expression, row.boxes.tolist(), row.sent_id) == ("the clock", [[-2, 3, 18, 13]], 1382)
    assert table.info["excluded_images"] == 1
    assert data.image_path(row.image) == tmp_path / "VG_100K_2" / "1.jpg"
    assert len(open_set(VisualGenome, tmp_path, exclude_eval_images=False).load("train")) == 2


def test_mdetr_phrases_of_flickr(tmp_path):
    dump(tmp_path / "final_flickr_separateGT_val.json", mdetr_phrases())
    rows = list(open_set(Flickr30k, tmp_path).load("val"))
    assert [(row.expression, row.boxes.tolist()) for row in rows] == [
        ("Two dogs", [[5, 5, 40, 20]]),
        ("a red ball", [[50, 40, 54, 44]]),
    ]


@pytest.mark.parametrize("layout", ["refer", "refer_json", "seqtr", "mdetr", "hub"])
def test_conversion_keeps_single_target_sets(tmp_path, layout):
    source = open_set(RefCOCO, write_refer(tmp_path / "a"))
    tables = {split: source.load(split) for split in RefCOCO.splits}
    files = convert(tables, layout, tmp_path / "b", "refcoco")
    assert all(path.is_file() for path in files)
    again = open_set(RefCOCO, tmp_path / "b", layout=layout.removesuffix("_json"))
    for split, table in tables.items():
        found = again.load(split)
        assert [(r.expression, r.masks, r.boxes.tolist()) for r in found] == [
            (r.expression, r.masks, r.boxes.tolist()) for r in table
        ]
        groups = len(np.unique(table.column("group")))
        if layout == "seqtr" and split != "train":
            groups = len(table)  # its evaluation entries hold one expression each
        assert len(np.unique(found.column("group"))) == groups
        if layout not in ("seqtr", "mdetr"):
            assert [(r.key, r.ann_ids) for r in found] == [(r.key, r.ann_ids) for r in table]


@pytest.mark.parametrize("layout", ["refer", "seqtr", "mdetr", "hub"])
def test_conversion_keeps_several_and_no_targets(tmp_path, layout):
    source = open_set(GRefCOCO, write_grefs(tmp_path / "a"))
    tables = {split: source.load(split) for split in GRefCOCO.splits}
    convert(tables, layout, tmp_path / "b", "grefcoco")
    again = open_set(GRefCOCO, tmp_path / "b", layout=layout)
    for split, table in tables.items():
        found = again.load(split)
        columns = 5 if split == "train" else 4  # the unit of drawing matters in training only
        both = [
            sorted((r.expression, r.masks, r.boxes.tolist(), r.ann_ids, r.group)[:columns] for r in rows)
            for rows in (found, table)
        ]
        assert both[0] == both[1]


def test_conversion_uses_the_names_that_the_layouts_have(tmp_path, capsys):
    """Files under other names are not found again, or are taken for another split author's."""

    def convert_by_command(dataset, root, layout, *more):
        arguments = [f"dataset={dataset}", f"data_root={root}", f"dataset.cache_dir={tmp_path / 'cache'}", *more]
        assert main(["data", "convert", *arguments, f"layout={layout}", f"out={tmp_path / layout}"]) == 0, layout
        return [str(Path(line).relative_to(tmp_path)) for line in capsys.readouterr().out.splitlines()]

    refs = [("test" if split == "testA" else split, *rest) for split, *rest in REFS if split != "testB"]
    referit = write_refer(tmp_path / "a", refs, "refclef", "refs(berkeley).p")
    assert convert_by_command("referit", referit, "refer") == [
        "refer/refclef/instances.json",
        "refer/refclef/refs(berkeley).p",
    ]
    assert convert_by_command("referit", referit, "seqtr") == ["seqtr/annotations/referitgame-berkeley/instances.json"]
    for layout in ("refer", "seqtr"):
        found = open_set(ReferIt, tmp_path / layout)
        assert all(content(found.load(split)) for split in ("train", "val", "test"))

    google = write_refer(tmp_path / "b", refs, name="refs(google).p")
    names = convert_by_command("refcoco", google, "mdetr", "split_by=google", "split=val")
    assert names == ["mdetr/finetune_refcoco-google_val.json"]

    dump(tmp_path / "c" / "annotations" / "mixed" / "instances.json", merged_content())
    arguments = ["split=train", "dataset.exclude_eval_images=false"]
    convert_by_command("mixed", tmp_path / "c", "seqtr", *arguments)
    again, table = (
        open_set(Mixed, root, exclude_eval_images=False).load("train") for root in (tmp_path / "seqtr", tmp_path / "c")
    )
    assert [(r.image, r.source) for r in again] == [(r.image, r.source) for r in table]
    assert len({r.source for r in table}) > 1


def test_conversion_refuses_what_a_layout_cannot_hold(tmp_path, capsys):
    rows = [
        {**vars(row), "masks": (), "polygons": (), "image_id": 5}
        for row in open_set(RefCOCO, write_refer(tmp_path / "a")).load("train")
    ]
    rows[-1]["image"] = "visual-genome/5.jpg"
    table = AnnotationTable.from_rows(rows, {"task": "rec"})
    for layout in ("refer", "coco", "hub"):
        with pytest.raises(UserError, match=r"two images have the id 5 \(COCO.*jpg, visual-genome/5.jpg\)"):
            convert({"train": table}, layout, tmp_path / "b", "mixed")
    rows[0]["boxes"] = [[0, 0, 5, 5], [10, 10, 20, 20]]
    for task in ("phrase", "rec"):  # Flickr30k's; AMC's lists
        several = AnnotationTable.from_rows(rows, {"task": task})
        with pytest.raises(UserError, match=r"val has expressions with several boxes, any of which .* seqtr layout"):
            convert({"val": several}, "seqtr", tmp_path / "b", "flickr30k")
    assert not (tmp_path / "b").exists()
    root = tmp_path / "a"
    before = (root / "refcoco" / "refs(unc).p").read_bytes()
    arguments = ["dataset=refcoco", f"data_root={root}", f"dataset.cache_dir={tmp_path / 'cache'}", "split=val"]
    assert main(["data", "convert", *arguments, "layout=refer", f"out={root}"]) == 2
    assert "instances.json: is a file of the dataset that is read; set out=" in capsys.readouterr().err
    assert (root / "refcoco" / "refs(unc).p").read_bytes() == before


def test_conversion_to_coco_json_is_read_by_pycocotools(tmp_path, capsys):
    source = open_set(GRefCOCO, write_grefs(tmp_path / "a"))
    (path,) = convert({"val": source.load("val")}, "coco", tmp_path, "grefcoco")
    coco = COCO(str(path))
    assert sorted(coco.getImgIds()) == [101, 103] and sorted(coco.getAnnIds()) == [11, 12, 31]
    assert coco.annToMask(coco.loadAnns([11])[0]).sum() == 700
    expressions = json.loads(path.read_text())["expressions"]
    assert [e["annotation_ids"] for e in expressions] == [[12, 11], [], [31]]
    with pytest.raises(UserError, match="no layout 'x'; there are: parquet"):
        convert({}, "x", tmp_path, "grefcoco")


def test_a_folder_called_as_another_dataset_is_not_read(tmp_path):
    """The rule holds for datasets that somebody else registers: their names come from their class."""
    from vgbench.data.layouts.base import dataset_folders

    assert {"refcoco", "refcoco+", "refclef", "refcocoplus-unc", "gref_umd", "RefCOCOg", "mixed"} <= dataset_folders()
    (tmp_path / "refcoco+").mkdir()
    write_refer(tmp_path)
    for path in (tmp_path / "refcoco").iterdir():
        path.rename(tmp_path / "refcoco+" / path.name)
    with pytest.raises(UserError, match="none of the expected annotation files"):
        open_set(RefCOCO, tmp_path / "refcoco+").load("val")
    (tmp_path / "refcoco+").rename(tmp_path / "mine")
    assert len(open_set(RefCOCO, tmp_path / "mine").load("val"))


def test_convert_of_a_dataset_without_split_authors_is_called_as_loaders_expect(tmp_path):
    table = open_set(RefCOCO, write_refer(tmp_path)).load("val")
    (path, *_) = convert({"val": table}, "seqtr", tmp_path / "out", "mine")
    assert path == tmp_path / "out" / "annotations" / "mine-unc" / "instances.json"
