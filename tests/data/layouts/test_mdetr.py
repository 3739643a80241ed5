"""MDETR's files: phrases and their boxes."""

from tests.data.samples import dump, mdetr_phrases, open_set
from vgbench.datasets.mixed import Flickr30k


def test_mdetr_phrases_of_flickr(tmp_path):
    dump(tmp_path / "final_flickr_separateGT_val.json", mdetr_phrases())
    rows = list(open_set(Flickr30k, tmp_path).load("val"))
    assert [(row.expression, row.boxes.tolist()) for row in rows] == [
        ("Two dogs", [[5, 5, 40, 20]]),
        ("a red ball", [[50, 40, 54, 44]]),
    ]
