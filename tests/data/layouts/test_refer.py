"""The refer layout: rows have what was written; damaged and hostile files get one line."""

import pickle
from collections import OrderedDict

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.data.samples import (
    dump,
    image_name,
    instances,
    open_set,
    python2_pickle,
    refs_as_dicts,
    write_grefs,
    write_refer,
)
from vgbench.core.errors import UserError
from vgbench.datasets.grefcoco import GRefCOCO
from vgbench.datasets.mixed import ReferIt
from vgbench.datasets.refcoco import RefCOCO


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


def test_pickle_with_code_is_refused_by_name_and_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return (marker.touch, ())

    class Call:
        def __reduce__(self):
            return (eval, (f"open({str(marker)!r}, 'w')",))

    write_refer(tmp_path)
    for payload, name in (
        (Hostile(), "getattr|pathlib"),
        (Call(), "builtins.eval"),
        (np.datetime64("2024-01-01"), "NumPy type 'M8'"),
    ):
        (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([{"ref_id": payload}]))
        with pytest.raises(UserError, match=name):
            open_set(RefCOCO, tmp_path).load("train")
    assert not marker.exists()


def test_refs_of_numpy_and_ordered_dictionaries_are_plain_ones(tmp_path):
    write_refer(tmp_path)
    path = tmp_path / "refcoco" / "refs(unc).p"
    plain = open_set(RefCOCO, tmp_path).load("train")
    refs = pickle.loads(path.read_bytes())
    for ref in refs:
        ref.update({name: np.int64(ref[name]) for name in ("ref_id", "ann_id", "image_id")})
        ref["sent_ids"] = np.array(ref["sent_ids"])
    path.write_bytes(pickle.dumps([OrderedDict(ref) for ref in refs]))
    assert open_set(RefCOCO, tmp_path).load("train").arrow.equals(plain.arrow)


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
