"""RefCOCOS."""

from tests.data.samples import dump, open_set
from vgbench.datasets.refcocos import RefCOCOS


def refcocos_rows():
    row = {"image": "val2017/000000000139.jpg", "height": 48, "width": 64, "normal_caption": "cup"}
    return [{**row, "solution": [1, 2, 3, 4]}, {**row, "solution": None}]


def test_refcocos(tmp_path):
    dump(tmp_path / "refcocos_test.json", refcocos_rows())
    first, second = open_set(RefCOCOS, tmp_path).load("test")
    assert first.boxes.tolist() == [[1, 2, 3, 4]] and second.no_target and first.image == "000000000139.jpg"
