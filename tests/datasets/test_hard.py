"""Benchmarks of hard expressions: HC-RefLoCo, RefBench-PRO, GroundingME, FineCops-Ref."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.samples import dump, open_set
from vgbench.cli import main
from vgbench.core.errors import UserError
from vgbench.datasets.finecops import FineCopsRef
from vgbench.datasets.groundingme import GroundingME
from vgbench.datasets.hcrefloco import HCRefLoCo
from vgbench.datasets.refbench import RefBenchPro


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


LONG = {"id": "0000007", "file_name": "coco_000000002685.jpg", "width": 64, "height": 48, "caption": "A man in red."}


def test_hc_refloco(tmp_path):
    rows = [{**LONG, "bbox": [1.0, 2.0, 10.0, 20.5]}, {**LONG, "id": "0000008", "bbox": [1.0, 2.0, 10.0, 20.5]}]
    write_parquet(tmp_path / "HC-RefLoCo" / "data" / "val-00000-of-00001.parquet", rows)
    first, second = open_set(HCRefLoCo, tmp_path).load("val")
    assert (first.expression, first.boxes.tolist(), first.sent_id) == ("A man in red.", [[1, 2, 11, 22.5]], 7)
    assert first.group == second.group and first.image == "coco_000000002685.jpg"
    table = open_set(HCRefLoCo, tmp_path).load("val")
    assert table.info["kinds"] == {"person size": {"small (< 128)": ["0000007", "0000008"]}}  # no labels in this file
    write_parquet(tmp_path / "HC-RefLoCo" / "data" / "test-0.parquet", [{**LONG, "bbox": [1.0, 2.0, 10.0, -1.0]}])
    with pytest.raises(UserError, match=r"test-0\.parquet: row 0: box without area"):
        open_set(HCRefLoCo, tmp_path).load("test")


def test_hc_refloco_by_subject_and_size(tmp_path):
    """Sides of squares of the same area: 100 x 225 is 150, 256 x 256 is large."""
    labels = [{"category": "OCR", "text": "red"}, {"category": "Action", "text": "runs"}]
    big = {**LONG, "width": 640, "height": 480}
    rows = [{**big, "bbox": [0.0, 0.0, 100.0, 225.0], "labels": labels}]
    rows.append({**big, "id": "0000008", "bbox": [0.0, 0.0, 256.0, 256.0], "labels": labels[:1]})
    write_parquet(tmp_path / "val-0.parquet", rows)
    kinds = open_set(HCRefLoCo, tmp_path).load("val").info["kinds"]
    assert kinds["person size"] == {"medium (< 256)": ["0000007"], "large": ["0000008"]}
    assert kinds["subject: Action"] == {"with": ["0000007"], "without": ["0000008"]}
    assert kinds["subject: OCR"] == {"with": ["0000007", "0000008"]} and len(kinds) == 7


KINDS = {"image_path": "a.jpg", "task_type": "relation", "expression": "the cup", "width": 64, "height": 48}


def write_lines(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_refbench_pro_leaves_out_what_has_no_box_and_keeps_rejections(tmp_path):
    entries = [
        {**KINDS, "bbox": [1, 2, 30, 40]},
        {**KINDS, "bbox": []},  # held back by the authors
        {**KINDS, "task_type": "reject", "expression": "the dog", "bbox": []},
    ]
    path = write_lines(tmp_path / "RefBench-PRO" / "annotations_6000.jsonl", entries)
    table = open_set(RefBenchPro, tmp_path).load("test")
    assert [row.boxes.tolist() for row in table] == [[[1, 2, 30, 40]], []]
    assert list(table.row(0).categories) == ["relation"] and table.row(1).expression == "the dog"
    assert table.info["notes"] == ["1 expressions have no box in this release and are left out"]
    assert table.info["kinds"]["dimension"] == {"reasoning": ["test.0", "test.2"]}
    for change, message in [
        ({"task_type": "colour"}, "unknown 'task_type'"),
        ({"task_type": "reject", "bbox": [1, 2, 3, 4]}, "a box for an expression of nothing"),
        ({"image_path": "../x.jpg", "bbox": [1, 2, 3, 4]}, "leaves the image folder"),
    ]:
        write_lines(path, [{**KINDS, **change}])
        with pytest.raises(UserError, match=rf"jsonl: line 1: .*{message}"):
            open_set(RefBenchPro, tmp_path).load("test")


def test_pr_bench_has_all_boxes_and_is_read_first(tmp_path):
    write_lines(tmp_path / "annotations_6000.jsonl", [{**KINDS, "bbox": []}])
    entry = {key: value for key, value in KINDS.items() if key not in ("width", "height")}
    write_lines(tmp_path / "PR-Bench" / "annotation.jsonl", [{**entry, "bbox": [1, 2, 30, 40]}])
    (tmp_path / "PR-Bench" / "images").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "PR-Bench" / "images" / "a.jpg")
    (row,) = open_set(RefBenchPro, tmp_path).load("test")
    assert (row.boxes.tolist(), row.width, row.height) == ([[1, 2, 30, 40]], 64, 48)
    with pytest.raises(UserError, match=r"neither annotation\.jsonl nor annotations_6000\.jsonl is there"):
        open_set(RefBenchPro, tmp_path / "PR-Bench" / "images").load("test")


def grounding_row(number, **changes):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (0, 200, 0)).save(buffer, "PNG")
    row = {"id": number, "description": "the cup", "image": {"bytes": buffer.getvalue(), "path": None}, "width": 64}
    row |= {"height": 48, "bbox": [1, 2, 30, 40], "subtask_l1": "Spatial", "subtask_l2": "Counting"}
    return {**row, **changes}


def test_groundingme_reads_its_images_out_of_its_files(tmp_path):
    row = grounding_row(5)
    nothing = {**row, "id": 6, "description": "the dog", "subtask_l1": "Rejection", "subtask_l2": None}
    write_parquet(tmp_path / "data" / "test-00000-of-00002.parquet", [row])
    write_parquet(tmp_path / "data" / "test-00001-of-00002.parquet", [nothing])
    data = open_set(GroundingME, tmp_path)
    first, second = data.load("test")
    assert (first.boxes.tolist(), list(first.categories)) == ([[1, 2, 30, 40]], ["Spatial/Counting"])
    assert second.boxes.tolist() == []
    kinds = data.load("test").info["kinds"]
    assert kinds == {
        "subtask": {"Spatial": ["5"], "Rejection": ["6"]},
        "subtask in detail": {"Spatial/Counting": ["5"]},
    }
    with data.image_path(second.image).open("rb") as file, Image.open(file) as picture:
        assert picture.size == (64, 48) and picture.getpixel((0, 0)) == (0, 200, 0)
    assert data.find_image("7.jpg") is None
    with pytest.raises(UserError, match=r"test-00000-of-00002\.parquet, .*: holds no image 7\.jpg; fetch the files"):
        data.image_path("7.jpg")


def test_images_inside_the_files_are_no_missing_images(tmp_path, capsys):
    write_parquet(tmp_path / "test-0.parquet", [grounding_row(5), grounding_row(6, image={"bytes": None, "path": "x"})])
    places = [f"data_root={tmp_path}", f"dataset.cache_dir={tmp_path / 'cache'}"]
    assert main(["data", "verify", "dataset=groundingme", "--decode", *places]) == 0
    words = capsys.readouterr().out
    assert "MISSING 1 image files: 6.jpg" in words and "images opened: 1" in words
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    assert main(["data", "verify", "dataset=groundingme", f"image_root={folder}", *places]) == 0
    assert "MISSING 2 image files: 5.jpg, 6.jpg" in capsys.readouterr().out


def finecops():
    images = [{"id": n, "file_name": f"{n}.jpg", "caption": f"cup {n}", "width": 64, "height": 48} for n in (1, 2)]
    fits = {"id": 11, "image_id": 1, "bbox": [1, 2, 10, 20], "level": 2}
    edited = {**fits, "id": 12, "image_id": 2, "negative_type": "expression", "negative_level": 1, "positive_id": "1"}
    edited["negative_cate"] = "text"
    return {"images": images, "annotations": [fits, edited]}


def test_finecops_ref(tmp_path):
    path = dump(tmp_path / "annotations" / "test_coco_format.json", finecops())
    first, second = open_set(FineCopsRef, tmp_path).load("test")
    assert (first.boxes.tolist(), list(first.categories)) == ([[1, 2, 11, 22]], ["level 2"])
    assert second.boxes.tolist() == [] and second.expression == "cup 2"
    assert first.ref_id == second.ref_id == 1  # what was edited
    kinds = open_set(FineCopsRef, tmp_path).load("test").info["kinds"]
    assert kinds == {"level": {"level 2": ["1"]}, "edit": {"text, expression, level 1": ["2"]}}
    for change, message in [
        (lambda content: content["annotations"].pop(), r"images\[1\]: image without an annotation"),
        (lambda content: content.pop("images"), "'images' is no list of objects"),
        (lambda content: content["annotations"][0].pop("level"), r"images\[0\]: .*level"),
    ]:
        damaged = finecops()
        change(damaged)
        dump(path, damaged)
        with pytest.raises(UserError, match=message):
            open_set(FineCopsRef, tmp_path).load("test")


def test_finecops_as_released(tmp_path):
    """The file's name on figshare; GQA's images have numbers of Visual Genome, edited ones are in a folder beside."""
    content = finecops()
    content["images"][1] |= {"file_name": "neg_1.jpg"}
    content["annotations"][0] |= {"caption": content["images"][0].pop("caption")}
    content["annotations"][1] |= {"negative_cate": "image"}
    dump(tmp_path / "FineCops-Ref" / "test_expression_all_coco_format.json", content)
    for name in ("gqa_images/images/1.jpg", "final_neg_images/neg_1.jpg"):
        file = tmp_path / "FineCops-Ref" / name
        file.parent.mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(file)
    data = open_set(FineCopsRef, tmp_path)
    real, edited = data.load("test")
    assert (real.source, real.image_id, real.expression) == ("vg", 1, "cup 1")
    assert (edited.source, edited.image_id) == ("finecops-ref", 10**9)
    assert data.image_path(real.image).parent.name == "images"
    assert data.image_path(edited.image).parent.name == "final_neg_images"


def test_finecops_numbers_come_by_themselves_and_by_level_in_the_record(tmp_path, capsys):
    """The original scores 0.6 and fits, its edited text 0.9: right by itself, not recalled among both."""
    dump(tmp_path / "test_coco_format.json", finecops())
    answers = [{"key": "1", "boxes": [[1, 2, 11, 22]], "scores": [0.6]}]
    answers.append({"key": "2", "boxes": [[1, 2, 11, 22]], "scores": [0.9]})
    file = write_lines(tmp_path / "answers.jsonl", answers)
    places = [f"data_root={tmp_path}", f"dataset.cache_dir={tmp_path / 'cache'}", "--register", str(tmp_path / "run")]
    assert main(["score", str(file), "dataset=finecops-ref", "split=test", *places]) == 0
    out = capsys.readouterr().out
    numbers = {
        line.split("|")[1].strip(): line.split("|")[2].strip() for line in out.splitlines() if "contrast/" in line
    }
    assert (numbers["contrast/recall@1"], numbers["contrast/recall@5"]) == ("0.00", "100.00")
    assert (numbers["contrast/prec@1"], numbers["contrast/auroc"]) == ("100.00", "0.00")
    results = json.loads((tmp_path / "run" / "record.json").read_text())["results"]
    contrast = next(result for result in results if result["task"] == "contrast")
    assert contrast["metrics"]["recall@5"]["value"] == 100


def test_groundingme_slices_of_its_own_metric_are_in_the_record(tmp_path, capsys):
    row = {"id": 5, "description": "the cup", "width": 64, "height": 48, "bbox": [0, 0, 10, 10]}
    row |= {"subtask_l1": "Spatial", "subtask_l2": "Counting"}
    nothing = {**row, "id": 6, "subtask_l1": "Rejection", "subtask_l2": None}
    write_parquet(tmp_path / "test-0.parquet", [row, nothing])
    answers = [{"key": "5", "boxes": [[0, 0, 10, 8]]}, {"key": "6", "boxes": [[0, 0, 10, 8]]}]
    file = write_lines(tmp_path / "answers.jsonl", answers)
    places = [f"data_root={tmp_path}", f"dataset.cache_dir={tmp_path / 'cache'}", "--register", str(tmp_path / "run")]
    assert main(["score", str(file), "dataset=groundingme", "split=test", *places]) == 0
    results = json.loads((tmp_path / "run" / "record.json").read_text())["results"]
    (single,) = (result for result in results if "acc@0.75" in result["metrics"])
    subtasks = single["slices"]["acc@0.75"]["subtask"]
    assert {name: (score["value"], score["variant"]) for name, score in subtasks.items()} == {
        "Rejection": (0.0, "single"),
        "Spatial": (100.0, "single"),
    }
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "run")]) == 0  # shown without being asked for; N-acc stands there once
    words = capsys.readouterr().out
    assert "Acc@0.75 (single)" in words and "N-acc (single): left out" in words and "mIoU (single)" not in words


def test_mean_accuracy_of_two_answers_by_hand(tmp_path, capsys):
    """Boxes that cover 0.72 and 0.95 of a truth of 100 x 1: IoU > t holds for 0.50 to 0.70 (5) and to 0.90 (9)."""
    rows = [{**LONG, "id": f"{n}", "width": 200, "bbox": [0.0, 0.0, 100.0, 1.0]} for n in (7, 8)]
    write_parquet(tmp_path / "val-0.parquet", rows)
    answers = [{"key": "7", "boxes": [[0, 0, 72, 1]]}, {"key": "8", "boxes": [[0, 0, 95, 1]]}]
    file = write_lines(tmp_path / "answers.jsonl", answers)
    places = [f"data_root={tmp_path}", f"dataset.cache_dir={tmp_path / 'cache'}"]
    assert main(["score", str(file), "dataset=hc-refloco", "split=val", "task=rec/macc", *places]) == 0
    assert "70.00" in next(line for line in capsys.readouterr().out.splitlines() if "macc |" in line)
