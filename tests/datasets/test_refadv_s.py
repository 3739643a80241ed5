"""Ref-Adv-s of 2026, which is not Ref-Adv of 2020."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.samples import open_set
from vgbench.cli import main
from vgbench.core.errors import UserError
from vgbench.datasets.refadv_s import RefAdvS


def picture(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


ROW = {"image": picture("red"), "file_name": "000000547144.jpg", "normal_caption": "the screen in the middle"}
ROW |= {"solution": [10.0, 20.0, 40.0, 30.5], "width": 64, "height": 48, "image_source": "coco_val2017"}
ROW |= {"human_authored": True, "use_negation": False, "distractors": "[[1, 2, 3, 4], [5, 6, 7, 8], [1, 1, 9, 9]]"}
OTHER = {**ROW, "image": picture("blue"), "file_name": "000c1304b8440763.jpg", "image_source": "openimages"}
OTHER |= {"normal_caption": "the chair, not the left one", "use_negation": True, "human_authored": False}
OTHER |= {"distractors": "7"}


def write(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")


def test_expressions_images_and_what_the_authors_tell_apart(tmp_path):
    write(tmp_path / "data", [ROW, OTHER, {**ROW, "normal_caption": "another one"}])
    data = open_set(RefAdvS, tmp_path)
    table = data.load("test")
    first, second, third = table
    assert (first.expression, first.boxes.tolist()) == ("the screen in the middle", [[10, 20, 40, 30.5]])
    assert (first.image_id, first.source) == (547144, "coco")  # COCO val2017: leaks are seen
    assert (second.image_id, second.source) == (-1, "ref-adv-s")  # its name is no number
    assert [row.key for row in table] == ["0", "1", "2"] and third.group == first.group != second.group
    assert table.info["kinds"] == {
        "distractors": {"2-3": ["0", "2"], "7 or more": ["1"]},
        "negation": {"without": ["0", "2"], "with": ["1"]},
        "written by": {"people": ["0", "2"], "a model, checked by people": ["1"]},
    }
    with data.image_path(second.image).open("rb") as file, Image.open(file) as image:
        assert image.getpixel((0, 0)) == (0, 0, 255)


def test_the_fields_that_the_authors_do_without_may_be_missing(tmp_path):
    few = {name: ROW[name] for name in ("image", "file_name", "normal_caption", "solution", "width", "height")}
    write(tmp_path / "ref-adv-s", [few])
    table = open_set(RefAdvS, tmp_path).load("test")
    assert len(table) == 1 and "kinds" not in table.info


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"solution": [40.0, 20.0, 10.0, 30.0]}, "box without area"),
        ({"file_name": "../../etc/1.jpg"}, "leaves the image folder"),
        ({"distractors": "{"}, "'distractors' is not valid JSON"),
        ({"normal_caption": " "}, "expression without text"),
    ],
)
def test_a_damaged_row_is_named(tmp_path, change, message):
    write(tmp_path, [ROW, {**ROW, **change}])
    with pytest.raises(UserError, match=rf"train-00000-of-00001\.parquet: row 1: .*{message}"):
        open_set(RefAdvS, tmp_path).load("test")


def test_a_file_of_another_kind_is_told_what_is_expected(tmp_path):
    pq.write_table(pa.Table.from_pylist([{"image": 1}]), tmp_path / "train-0.parquet")
    with pytest.raises(UserError, match=r"no train-\*\.parquet with the columns file_name, normal_caption, solution"):
        open_set(RefAdvS, tmp_path).load("test")


def test_the_authors_numbers_come_by_themselves(tmp_path, capsys):
    """IoU 0.5, 0.8 and none: Acc@0.5 2/3, Acc@0.75 1/3, Acc@0.9 0; the second box leaves the image and is cut."""
    rows = [{**ROW, "solution": [0.0, 0.0, 10.0, 10.0], "normal_caption": text} for text in "abc"]
    rows[1]["solution"] = [60.0, 0.0, 64.0, 10.0]
    write(tmp_path, rows)
    lines = ['{"key": "0", "boxes": [[0, 0, 10, 5]]}', '{"key": "1", "boxes": [[59, 0, 90, 10]]}']
    answers = tmp_path / "answers.jsonl"
    answers.write_text("\n".join([*lines, '{"key": "2", "boxes": []}']) + "\n")
    places = [f"data_root={tmp_path}", f"dataset.cache_dir={tmp_path / 'cache'}"]
    assert main(["score", str(answers), "dataset=ref-adv-s", "split=test", *places]) == 0
    out = capsys.readouterr().out
    numbers = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in out.splitlines() if "rec/acc" in line}
    assert [numbers[f"rec/acc/prec@{t}"] for t in ("0.5", "0.75", "0.9")] == ["66.67", "33.33", "0.00"]
