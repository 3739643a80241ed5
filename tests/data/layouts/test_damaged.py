"""Every layout against damaged files: one line that names the file, or a counted skip."""

import copy
import pickle
import random

import pytest
from pycocotools import mask as coco_mask

from tests.data.samples import (
    GREFS,
    REFS,
    dump,
    instances,
    mdetr_phrases,
    merged_content,
    minigpt_rows,
    mixed_seg_content,
    open_set,
    refs_as_dicts,
    seqtr_content,
    seqtr_flat,
    seqtr_grouped,
    vglaw_items,
    with_ids,
    write_grefs,
    write_refer,
    write_transvg,
)
from vgbench.core.errors import UserError
from vgbench.data.convert import convert
from vgbench.datasets.grefcoco import GRefCOCO
from vgbench.datasets.mixed import Flickr30k, Mixed, MixedSeg
from vgbench.datasets.refcoco import RefCOCO, RefCOCOg, RefCOCOPlus
from vgbench.datasets.refcocos import RefCOCOS

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
                for mask in row.masks:
                    coco_mask.decode(mask)
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
