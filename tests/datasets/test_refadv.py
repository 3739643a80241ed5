"""Ref-Adv."""

import pytest

from tests.data.samples import dump, image_name, open_set, put_images
from vgbench.core.errors import UserError
from vgbench.datasets.refadv import RefAdv


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
