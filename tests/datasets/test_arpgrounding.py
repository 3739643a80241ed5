"""ARPGrounding."""

import pickle

from tests.data.samples import dump, open_set, put_images, table_of
from vgbench.data.leakage import leakage
from vgbench.datasets.arpgrounding import ARPGrounding
from vgbench.datasets.vg import evaluation_images


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
