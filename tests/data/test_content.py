"""What metrics see of a table does not depend on ids, names of files or the order of rows."""

from vgbench.data.content import LEVELS, content_hashes
from vgbench.data.table import AnnotationTable


def table(*rows):
    whole = []
    for number, row in enumerate(rows):
        fields = {"key": str(number), "image_id": 7, "image": "a.jpg", "width": 40, "height": 30, "expression": "cup"}
        fields |= {"boxes": [[1.0, 2.0, 11.1, 22.2]], "masks": [], "polygons": [], "ann_ids": [], "categories": []}
        fields |= {"ref_id": None, "sent_id": None, "group": 0, "source": "coco", "split": "val"}
        whole.append({**fields, **row})
    return AnnotationTable.from_rows(whole, {})


def differing(one, two):
    first, second = content_hashes(table(*one)), content_hashes(table(*two))
    return [level for level in LEVELS if first[level] != second[level]]


def test_ids_names_order_and_noise_do_not_count():
    plain = [{}, {"expression": "mug"}]
    assert differing(plain, reversed(plain)) == []
    assert differing(plain, [{"image": "COCO_a.jpg", "key": "x", "ref_id": 3, "ann_ids": [5]}, plain[1]]) == []
    assert differing([{}], [{"boxes": [[1.0, 2.0, 1.0 + 10.1, 2.0 + 20.2]]}]) == []
    two = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]
    assert differing([{"boxes": two}], [{"boxes": two[::-1]}]) == []


def test_every_level_holds_the_one_before():
    assert differing([{}], [{"boxes": [[1.0, 2.0, 11.2, 22.2]]}]) == ["boxes", "masks"]
    assert differing([{}], [{"expression": "Cup"}]) == ["expressions", "boxes", "masks"]
    assert differing([{}], [{"width": 41}]) == list(LEVELS)
    assert differing([{}], [{}, {}]) == ["expressions", "boxes", "masks"]
    assert differing([{}], [{"source": "vg"}]) == list(LEVELS)
    assert differing([{"masks": ["abc"]}], [{"masks": ["abd"]}]) == ["masks"]
