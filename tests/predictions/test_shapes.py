"""The shapes in which tools write their answers: tables by rows and by columns, several splits, cells of text."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.predictions.test_forms import RIGHT, SHARES, read, table
from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.predictions.entries import read_entries

TEXT = {"format": "text", "match": "row", "scale": "1000"}
ROWS = [
    {"index": f"RefCOCO_{split}_{i}", "split": split, "prediction": SHARES[i]}
    for split in ("testA", "val")
    for i in (0, 1)
]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}


@pytest.mark.parametrize(
    "content",
    [
        ROWS,
        COLUMNS,
        {name: {str(place): value for place, value in enumerate(column)} for name, column in COLUMNS.items()},
        {str(place): row for place, row in enumerate(ROWS)},
        {"columns": list(COLUMNS), "index": [0, 1, 2, 3], "data": [list(row.values()) for row in ROWS]},
        {"val": ROWS[2:], "testA": ROWS[:2]},
        {"config": {"model": "x"}, "results": {"RefCOCO_val": ROWS[2:], "RefCOCO_testA": ROWS[:2]}},
    ],
    ids=["rows", "columns", "indexed columns", "indexed rows", "split", "splits", "results of splits"],
)
def test_a_table_of_several_splits_in_every_orientation(tmp_path, content):
    predictions, _ = read(tmp_path / "p.json", content, **TEXT)
    assert predictions.boxes.tolist() == RIGHT


def test_a_field_that_names_the_split(tmp_path):
    entries = [{"sent_id": 50 + i, "split": "val", "bbox": RIGHT[i]} for i in range(2)]
    entries.append({"sent_id": 999, "split": "testA", "bbox": [0, 0, 1, 1]})
    predictions, notes = read(tmp_path / "p.json", entries, format="grefcoco", match="sent_id")
    assert predictions.boxes.tolist() == RIGHT
    assert "1 entries of other splits were left out (field 'split')" in notes


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        (RIGHT, "row"),
        ([[box] for box in RIGHT], "row"),
        ({"50": RIGHT[0], "51": RIGHT[1]}, "sent_id"),
        ({str(50 + i): [{"bbox": RIGHT[i], "score": 0.5}] for i in range(2)}, "sent_id"),
        (
            [{"sent_id": "50.0", "boxes": str([RIGHT[0]])}, {"sent_id": 51.0, "boxes": str([tuple(RIGHT[1])])}],
            "sent_id",
        ),
        (
            [{"sent_id": 50, "boxes": None, "bbox": RIGHT[0]}, {"sent_id": 51, "bbox": [str(v) for v in RIGHT[1]]}],
            "sent_id",
        ),
    ],
    ids=["flat", "lists", "by id", "objects", "cells", "empty fields"],
)
def test_boxes_in_many_wrappings(tmp_path, entries, match):
    predictions, _ = read(tmp_path / "p.json", entries, format="grefcoco", match=match)
    assert predictions.boxes.tolist() == RIGHT


def test_boxes_as_objects_with_names(tmp_path):
    entries = [
        {"key": "1.0", "predictions": [dict(zip(("x1", "y1", "x2", "y2"), RIGHT[0], strict=True), score=0.3)]},
        {"key": "1.1", "predictions": [{"box": RIGHT[1], "confidence": 0.4}]},
    ]
    predictions, _ = read(tmp_path / "p.json", entries, format="grefcoco", box="predictions")
    assert predictions.boxes.tolist() == RIGHT and predictions.scores.tolist() == [0.3, 0.4]


def test_cells_of_a_table_are_values(tmp_path):
    mask = rle.rectangle([0, 0, 10, 10], 100, 200)
    lines = [
        ("sent_id", "score", "segmentation"),
        (50, "0.9", json.dumps(mask)),
        (51, "0.8", str({"size": [100, 200], "counts": mask["counts"].encode()})),
    ]
    text = "\n".join(";".join(f'"{str(cell).replace(chr(34), chr(34) * 2)}"' for cell in line) for line in lines)
    predictions, _ = read(tmp_path / "p.csv", text, format="coco", match="sent_id")
    assert rle.areas(predictions.masks()).tolist() == [100, 100] and predictions.scores.tolist() == [0.9, 0.8]


def test_single_precision_in_parquet_is_the_decimal_that_was_meant(tmp_path):
    boxes = pa.array([[box] for box in RIGHT], pa.list_(pa.list_(pa.float32())))
    columns = {"sent_id": [50, 51], "boxes": boxes, "scores": pa.array([[0.7], [0.3]], pa.list_(pa.float32()))}
    pictures = pa.array([{"bytes": b"...", "path": "1.jpg"}] * 2)
    pq.write_table(pa.table({**columns, "image": pictures}), tmp_path / "p.parquet")
    predictions, _ = read(tmp_path / "p.parquet", None, format="grefcoco", match="sent_id")
    assert predictions.scores.tolist() == [0.7, 0.3]
    assert "image" not in read_entries(tmp_path / "p.parquet")[1][0]


def test_one_answer_per_line(tmp_path):
    predictions, notes = read(tmp_path / "p.txt", "\n".join(SHARES), **TEXT)
    assert predictions.boxes.tolist() == RIGHT and any("in the order of the annotation file" in note for note in notes)


def test_a_spreadsheet_of_openpyxl(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in ([None, *ROWS[0]], *([place, *row.values()] for place, row in enumerate(ROWS))):
        book.active.append(row)
    book.save(tmp_path / "p.xlsx")
    assert read(tmp_path / "p.xlsx", None, **TEXT)[0].boxes.tolist() == RIGHT


def test_entries_that_occur_twice_are_the_same_or_an_error(tmp_path):
    entries = [{"sent_id": number, "prediction": SHARES[number - 50]} for number in (50, 51, 50)]
    options = {**TEXT, "match": "sent_id"}
    predictions, notes = read(tmp_path / "p.json", entries, **options)
    assert predictions.boxes.tolist() == RIGHT and "1 entries repeat the answer of an earlier one" in notes
    entries[2]["prediction"] = "[0, 0, 1, 1]"
    with pytest.raises(UserError, match=r"entry 3: the expression '1\.0' was answered before; keep one entry"):
        read(tmp_path / "p.json", entries, **options)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.pkl", b"\x80\x04", "a .pkl file is not read; save the answers as .jsonl"),
        ("p.csv", "index,prediction\ncaf\u00e9,x".encode("latin1"), "no text in UTF-8"),
        ("p.jsonl", b'[\n{"a": 1}\n]', "line 1: not JSON (Expecting value"),
        ("p.jsonl", b'[\n{"a": 1}\n]', "a file that is one JSON text is called .json"),
        ("p.json", b'{"a": 1}\n{"a": 2}', "a file with one object per line is called .jsonl"),
        ("p.json", b'{"model": "x", "choices": []}', "key 'model': 'model' is no row of refcoco val"),
        ("p.json", b'{"model": "x", "accuracy": 0.5}', "an object with model, accuracy, but no list of answers below"),
        ("p.json", b"3", "expected a list of objects, found 3"),
        ("p.json", b"[1, 2]", "entry 1: expected an object, found 1"),
        ("p.xlsx", b"PK", "no spreadsheet"),
        ("p.parquet", b"PAR1", "no Parquet file"),
    ],
)
def test_files_of_other_shapes_are_named_with_a_remedy(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read(tmp_path / name, None, **TEXT)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_utf_16_tables_of_excel(tmp_path):
    text = "index\tprediction\n" + "".join(f'{row["index"]}\t"{row["prediction"]}"\n' for row in ROWS)
    (tmp_path / "p.csv").write_bytes(text.encode("utf-16"))
    assert read(tmp_path / "p.csv", None, **TEXT)[0].boxes.tolist() == RIGHT


def test_a_bracket_of_more_than_four_numbers_is_doubtful(tmp_path):
    entries = [{"prediction": "[1, 2, 3, 4, 5, 6, 7, 8]"}]
    _, notes = read(tmp_path / "p.json", entries, table([{}]), **TEXT)
    assert any("1 answers hold brackets of more than four numbers" in note for note in notes)


def test_answers_that_are_lists(tmp_path):
    entries = [{"prediction": ["[100, 200, 300, 400]", "[0, 0, 1, 1]"]}, {"prediction": ["500", "500", "1000", "1000"]}]
    predictions, notes = read(tmp_path / "p.json", entries, **TEXT)
    assert predictions.boxes.tolist() == RIGHT
    assert any(
        note.startswith("1 entries hold several answers, of which the first was read; e.g. entry 1") for note in notes
    )


def test_a_size_in_one_field(tmp_path):
    entries = [
        {"prediction": "[10, 40, 30, 80]", "hw": [200, 100]},
        {"prediction": "[200, 100, 400, 200]", "hw": "[200, 400]"},
    ]
    predictions, _ = read(tmp_path / "p.json", entries, format="text", match="row", scale="hw.1,hw.0")
    assert predictions.boxes.tolist() == RIGHT


@pytest.mark.parametrize("empty", [None, "", [], [[]], rle.rectangle([0, 0, 0, 0], 100, 200)])
def test_empty_masks_are_no_boxes(tmp_path, empty):
    mask = rle.rectangle([0, 0, 10, 10], 100, 200)
    entries = [{"sent_id": 50, "boxes": [], "mask": empty}, {"sent_id": 51, "mask": mask}]
    predictions, _ = read(tmp_path / "p.json", entries, format="grefcoco", match="sent_id")
    assert predictions.boxes.tolist() == [[0, 0, 10, 10]]
