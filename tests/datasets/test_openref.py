"""OpenRef: the fields of its card and of its authors' evaluators."""

import pytest
from PIL import Image

from tests.data.samples import dump, open_set
from vgbench.cli import main
from vgbench.core.errors import UserError
from vgbench.datasets.openref import OpenRef

BOX = {"x": 25.0, "y": 50.0, "width": 50.0, "height": 25.0, "original_width": 200, "original_height": 100}
CARS = {"image": "a.jpg", "relation_type": "multi", "positive": "yellow cars", "negative": "purple cars", "bbox_num": 2}
CARS["proposal"] = [BOX, {**BOX, "x": 0.0, "y": 0.0, "width": 10.0, "height": 10.0}]
NOTHING = {"image": "b.jpg", "relation_type": "none", "positive": "a giraffe", "proposal": [], "bbox_num": 0}


def put_image(root):
    (root / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48)).save(root / "images" / "b.jpg")


def read(root, entries, split="val"):
    dump(root / f"{split}.json", entries)
    return open_set(OpenRef, root).load(split)


def test_positive_negative_and_nothing(tmp_path):
    put_image(tmp_path)
    table = read(tmp_path, [CARS, NOTHING])
    cars, edited, nothing = table
    assert (cars.expression, cars.boxes.tolist()) == ("yellow cars", [[50, 50, 150, 75], [0, 0, 20, 10]])
    assert (edited.expression, edited.boxes.tolist(), edited.key) == ("purple cars", [], "val.0.negative")
    assert cars.ref_id == edited.ref_id and (cars.width, cars.height) == (200, 100)
    assert (nothing.expression, nothing.boxes.tolist()) == ("a giraffe", [])
    assert (nothing.width, nothing.height) == (64, 48)  # of the file: no box tells it
    kinds = {"multi": ["val.0"], "negative": ["val.0.negative"], "none": ["val.1"]}
    assert table.info["kinds"] == {"relation": kinds}


def test_the_test_split_is_all_dimensions_that_are_there(tmp_path):
    root = tmp_path / "test"
    dump(root / "none_test_labels.json", [{**NOTHING, "image": "a.jpg"}])
    dump(root / "weather_test_labels.json", [CARS, {**CARS, "negative": None}])
    (root / "none").mkdir()
    Image.new("RGB", (64, 48)).save(root / "none" / "a.jpg")
    Image.new("RGB", (200, 100)).save(root / "a.jpg")  # all others in one folder
    data = open_set(OpenRef, tmp_path)
    table = data.load("test")
    keys = ["test.none.0", "test.weather.0", "test.weather.0.negative", "test.weather.1"]
    assert [row.key for row in table] == keys and [row.ref_id for row in table] == [0, 1, 1, 2]
    assert table.info["kinds"]["dimension"] == {"none": keys[:1], "weather": keys[1:]}
    assert [row.image for row in table][:2] == ["none/a.jpg", "weather/a.jpg"]  # two images
    assert table.row(0).image_id != table.row(1).image_id and table.row(0).width == 64
    assert data.image_path("weather/a.jpg") == root / "a.jpg"
    with pytest.raises(UserError, match=r"no DIMENSION_test_labels\.json is there"):
        open_set(OpenRef, root / "none").load("test")


@pytest.mark.parametrize(
    "box",
    [
        {"x": 25, "y": 50, "w": 50, "h": 25, "original_size": {"width": 200, "height": 100}},
        {"x": 0.25, "y": 0.5, "w": 0.5, "h": 0.25, "original_size": {"width": 200, "height": 100}},
        {"x": 0.25, "y": 0.5, "width": 0.5, "height": 0.25, "original_size": [200, 100]},  # which is the width?
    ],
)
def test_the_spellings_of_the_card(tmp_path, box):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (200, 100)).save(tmp_path / "images" / "a.jpg")
    entry = {"image": "a.jpg", "relation_type": "single", "positive": "the car", "negative": "", "proposal": [box]}
    (row,) = read(tmp_path, [entry])
    assert row.boxes.tolist() == [[50, 50, 150, 75]] and (row.width, row.height) == (200, 100)


def test_small_boxes_in_percent_stay_percent_beside_a_larger_one(tmp_path):
    small = {**BOX, "x": 0.5, "y": 0.5, "width": 0.5, "height": 0.5}
    entry = {"image": "a.jpg", "relation_type": "multi", "positive": "cars", "proposal": [small, BOX]}
    (row,) = read(tmp_path, [entry])
    assert row.boxes.tolist()[0] == [1, 0.5, 2, 1]


def test_an_older_entry_of_nothing_has_its_expression_under_negative(tmp_path):
    put_image(tmp_path)
    (row,) = read(tmp_path, [{**NOTHING, "positive": None, "negative": "a giraffe"}])
    assert (row.key, row.expression, row.no_target) == ("val.0", "a giraffe", True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox_num": 3}, "'bbox_num' is not the number of boxes"),
        ({"relation_type": "none"}, "'relation_type' does not go with the boxes"),
        ({"relation_type": "many"}, "unknown 'relation_type'.*there are single, multi, none"),
        ({"image": "../a.jpg"}, "leaves the image folder"),
        ({"positive": None}, "no expression"),
        ({"proposal": [{"left": 1}], "bbox_num": 1}, "no key 'x' .*there are left"),
        ({"proposal": "x"}, "'proposal' is no list of boxes"),
    ],
)
def test_a_damaged_entry_is_named_with_its_keys(tmp_path, change, message):
    with pytest.raises(UserError, match=rf"val\.json: entry 0: .*{message}"):
        read(tmp_path, [{**CARS, **change}])


def test_files_of_another_form_are_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"val\.json: holds a dict, expected a list of entries \(its keys: images\)"):
        read(tmp_path, {"images": []})
    with pytest.raises(UserError, match=r"a box ends at 400, where percent or shares of the image are expected"):
        read(tmp_path, [{**CARS, "proposal": [{**BOX, "x": 350.0}, BOX]}])


def test_the_authors_numbers_come_by_themselves(tmp_path, capsys):
    """Two cars of which one is boxed, beside a wrong box: F1 = 2 * 1 / (2 + 2). Of the two expressions of nothing, one
    is answered with scores 0.5 and 0.4 (0.5 * 0.6 = 0.3; 0.2 is too low to count), one is not: N3R = (0.3 + 1) / 2."""
    put_image(tmp_path)
    dump(tmp_path / "val.json", [CARS, NOTHING])
    answers = tmp_path / "answers.jsonl"
    boxes = "[[50, 50, 150, 75], [90, 0, 120, 10]]"
    answers.write_text(
        f'{{"key": "val.0", "boxes": {boxes}, "scores": [0.9, 0.8]}}\n'
        '{"key": "val.0.negative", "boxes": [[1, 1, 9, 9], [2, 2, 9, 9], [3, 3, 9, 9]], "scores": [0.5, 0.4, 0.2]}\n'
        '{"key": "val.1", "boxes": [[1, 1, 9, 9]], "scores": [0.3]}\n'
    )
    places = [f"data_root={tmp_path}", f"dataset.cache_dir={tmp_path / 'cache'}"]
    assert main(["score", str(answers), "dataset=openref", "split=val", *places]) == 0
    out = capsys.readouterr().out
    numbers = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in out.splitlines() if "/n3r/" in line}
    assert numbers == {
        "rejection/n3r/f1": "50.00",
        "rejection/n3r/precision": "50.00",
        "rejection/n3r/recall": "50.00",
        "rejection/n3r/n3r": "65.00",
        "rejection/n3r/n_acc": "50.00",
    }
