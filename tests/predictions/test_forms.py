"""Files of other tools in their many forms: frames, orders, matches, file types, masks."""

import json
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.data.table import AnnotationTable
from vgbench.metrics.evaluator import evaluate_predictions
from vgbench.predictions.foreign import read_foreign
from vgbench.predictions.reading import Reading


def table(rows, task="rec"):
    base = {"image": "", "width": 200, "height": 100, "boxes": [[0, 0, 10, 10]], "masks": [], "polygons": []}
    base |= {"ann_ids": [], "categories": [], "ref_id": 1, "group": 0, "source": "", "split": "val"}
    full = [
        {**base, "key": f"1.{i}", "sent_id": 50 + i, "image_id": 7, "expression": f"thing {i}", **row}
        for i, row in enumerate(rows)
    ]
    return AnnotationTable.from_rows(full, {"dataset": "refcoco", "split": "val", "task": task})


def read(path, content, annotations=None, **options):
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        path.write_text(json.dumps(content))
    return read_foreign(path, annotations or table([{}, {}]), Reading.from_options(options))


TEXT = {"format": "text", "match": "row"}
RIGHT = [[20, 20, 60, 40], [100, 50, 200, 100]]  # of images of 200 x 100
SHARES = ["[100, 200, 300, 400]", "[500, 500, 1000, 1000]"]


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (SHARES, {"scale": "1000"}),
        (["[200, 100, 400, 300]", "[500, 500, 1000, 1000]"], {"scale": "1000", "boxes": "yxyx"}),
        (["[200, 300, 200, 200]", "[750, 750, 500, 500]"], {"scale": "1000", "boxes": "cxcywh"}),
        (["[20, 70, 60, 90]", "[100, 100, 200, 150]"], {"scale": "pixels", "frame": "square"}),
        (["[100, 100, 300, 200]", "[500, 250, 1000, 500]"], {"scale": "1000", "frame": "corner"}),
    ],
)
def test_order_and_frame_are_stated(tmp_path, words, options):
    predictions, notes = read(tmp_path / "p.json", [{"prediction": text} for text in words], **TEXT, **options)
    np.testing.assert_allclose(predictions.boxes, RIGHT)
    assert all(any(value in note or "padded" in note for note in notes) for value in options.values())


def test_pixels_of_the_resized_image_have_its_size_in_every_line(tmp_path):
    entries = [
        {"prediction": "[10, 40, 30, 80]", "in": {"w": 100, "h": 200}},
        {"prediction": "[200, 100, 400, 200]", "in": {"w": 400, "h": 200}},
    ]
    predictions, notes = read(tmp_path / "p.json", entries, **TEXT, scale="in.w,in.h")
    np.testing.assert_allclose(predictions.boxes, RIGHT)
    assert "in pixels of the size in in.w and in.h" in notes[0]
    with pytest.raises(UserError, match=r"entry 1: no field 'w' \(scale=\); the entry has prediction, in"):
        read(tmp_path / "p.json", entries, **TEXT, scale="w,h")


@pytest.mark.parametrize(
    ("several", "boxes"),
    [
        ("all", [[1, 2, 3, 4], [5, 6, 7, 9]]),
        ("first", [[1, 2, 3, 4]]),
        ("last", [[5, 6, 7, 9]]),
        ("union", [[1, 2, 7, 9]]),
    ],
)
def test_the_rule_for_several_boxes(tmp_path, several, boxes):
    entries = [{"prediction": "[1, 2, 3, 4] [5, 6, 7, 9]"}]
    options = {**TEXT, "scale": "pixels"}
    predictions, notes = read(tmp_path / "p.json", entries, table([{}]), **options, several=several)
    assert predictions.boxes.tolist() == boxes and any(several in note for note in notes)
    _, notes = read(tmp_path / "p.json", entries, table([{}]), **options)
    assert any(note.startswith("1 answers hold several boxes") and "[5, 6, 7, 9]" in note for note in notes)


def test_the_best_of_all_boxes_is_a_variant(tmp_path):
    truth = table([{"boxes": [[5, 6, 7, 9]]}])
    entries = [{"prediction": "[1, 2, 3, 4] [5, 6, 7, 9]"}]
    predictions, _ = read(tmp_path / "p.json", entries, truth, **TEXT, scale="pixels")
    values = evaluate_predictions(truth, predictions, variants=["rec/any"], bootstrap=0).values
    assert (values["rec/prec@0.5"], values["rec/any/prec@0.5"]) == (0, 100)


ROWS = [{"index": f"RefCOCO_{split}_{i}", "prediction": SHARES[i]} for split in ("testA", "val") for i in range(2)]


def spreadsheet(path, rows):
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    shared = sorted({text for row in cells for text in row})
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    sheet = "".join(
        f'<row r="{r}">'
        + "".join(f'<c r="{"AB"[c]}{r}" t="s"><v>{shared.index(text)}</v></c>' for c, text in enumerate(row))
        + "</row>"
        for r, row in enumerate(cells, 1)
    )
    with zipfile.ZipFile(path, "w") as archive:
        texts = "".join(f"<si><t>{text}</t></si>" for text in shared)
        archive.writestr("xl/sharedStrings.xml", f"<sst {space}>{texts}</sst>")
        archive.writestr("xl/worksheets/sheet1.xml", f"<worksheet {space}><sheetData>{sheet}</sheetData></worksheet>")


@pytest.mark.parametrize("kind", ["json", "jsonl", "tsv", "csv", "xlsx", "parquet", "below", "answers"])
def test_one_log_in_every_type_of_file(tmp_path, kind):
    path, content, options = tmp_path / f"p.{kind}", None, dict(TEXT)
    if kind in ("json", "below"):
        path, content = tmp_path / "p.json", ROWS if kind == "json" else {"accuracy": 1.0, "results": ROWS}
    elif kind == "jsonl":
        content = "\n".join(map(json.dumps, ROWS))
    elif kind in ("tsv", "csv"):
        mark = "\t" if kind == "tsv" else ","
        content = f"index{mark}prediction\n" + "".join(f'{r["index"]}{mark}"{r["prediction"]}"\n' for r in ROWS)
    elif kind == "xlsx":
        spreadsheet(path, ROWS)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        path, content, options = tmp_path / "p.json", {"50": SHARES[0], "51": SHARES[1]}, {**TEXT, "match": "sent_id"}
    predictions, notes = read(path, content, **options, scale="1000")
    np.testing.assert_allclose(predictions.boxes, RIGHT)
    assert ("2 entries of other splits were left out" in notes) == (kind != "answers")


def test_entries_without_ids_stand_in_the_order_of_the_annotations(tmp_path):
    entries = [{"answer": text, "gt_bbox": [0, 0, 1, 1]} for text in SHARES]
    predictions, notes = read(tmp_path / "p.json", entries, **TEXT, scale="1000")
    assert predictions.box_counts.tolist() == [1, 1] and any("in the order of the annotation file" in n for n in notes)
    with pytest.raises(UserError, match="1 entries without ids, but refcoco val has 2 expressions"):
        read(tmp_path / "p.json", entries[:1], **TEXT, scale="1000")
    with pytest.raises(UserError, match="no entry is of refcoco val, they are of RefCOCO_testA"):
        read(tmp_path / "p.json", ROWS[:2], **TEXT, scale="1000")


def test_sentences_fit_without_punctuation(tmp_path):
    truth = table([{"expression": "guy, far left!"}, {"expression": "guy far left"}, {"expression": "man's t-shirt"}])
    entries = [
        {"image": "train2014/COCO_train2014_000000000007.jpg", "sent": sent, "answer": f"[{i}, 0, 9, 9]"}
        for i, sent in enumerate(("guy far left", "mans t shirt", "guy far left"))
    ]
    options = {"format": "text", "scale": "pixels", "match": "sentence"}
    predictions, notes = read(tmp_path / "p.json", entries, truth, **options)
    assert predictions.boxes[:, 0].tolist() == [2, 0, 1]
    assert any(note.startswith("2 expressions were found by their letters only") for note in notes)


def test_a_file_without_boxes_is_refused_with_the_field_and_a_value(tmp_path):
    rows = table([{}] * 4)
    entries = [{"prediction": "it is <obj> there", "reply": "[1, 2, 3, 4]"}] * 4
    with pytest.raises(
        UserError, match=r"0 of 4 answers hold a box; .*'prediction', e\.g\. entry 1: 'it is <obj>.*text="
    ):
        read(tmp_path / "p.json", entries, rows, **TEXT, scale="1000")
    predictions, _ = read(tmp_path / "p.json", entries, rows, **TEXT, scale="1000", text="reply")
    assert len(predictions.boxes) == 4


def test_one_runaway_answer_costs_nothing_but_itself(tmp_path):
    entries = [{"prediction": "9" * 3_000_000}, {"prediction": [int("9" * 500), 1, 2, 3]}, {"prediction": SHARES[1]}]
    text = "\n".join(
        json.dumps(entry) if index != 1 else '{"prediction": [' + "9" * 5000 + ", 1, 2, 3]}"
        for index, entry in enumerate(entries)
    )
    predictions, _ = read(tmp_path / "p.jsonl", text, table([{}] * 3), **TEXT, scale="1000")
    assert predictions.box_counts.tolist() == [0, 0, 1]


def test_scores_keep_the_precision_of_the_file(tmp_path):
    truth = table([{}, {}], task="grec")
    entries = [{"boxes": [[0, 0, 10, 10]], "scores": [score]} for score in (0.7, 0.69999999)]
    predictions, _ = read(tmp_path / "p.json", entries, truth, format="grefcoco", match="row")
    assert evaluate_predictions(truth, predictions, bootstrap=0).values["grec/pr@f1"] == 50


def test_an_empty_mask_is_no_box_and_masks_come_in_many_forms(tmp_path):
    square = np.zeros((100, 200), bool)
    square[:10, :10] = True
    compressed = rle.encode(square)
    forms = [
        compressed,
        {**compressed, "counts": str(compressed["counts"].encode())},
        {"size": [100, 200], "counts": [0, *[10, 90] * 9, 10, 90 + 100 * 190]},
        [[0, 0, 10, 0, 10, 10, 0, 10]],
        rle.encode(np.zeros((100, 200), bool)),
    ]
    truth = table([{}] * 4 + [{"boxes": []}], task="grec")
    entries = [{"sent_id": 50 + i, "score": 0.9, "segmentation": form} for i, form in enumerate(forms)]
    predictions, notes = read(tmp_path / "p.json", entries, truth, format="coco", match="sent_id", scale="1000")
    assert predictions.boxes.tolist() == [[0, 0, 10, 10]] * 4 and len(notes) == 1
    assert rle.areas(predictions.masks()).tolist() == [100] * 4 + [0]
    values = evaluate_predictions(truth, predictions, ["grec"], bootstrap=0).values
    assert (values["grec/n_acc"], values["grec/pr@f1"]) == (100, 100)


def test_right_rejections_are_not_called_wrong(tmp_path):
    truth = table([{}, {"boxes": []}], task="grec")
    entries = [{"prediction": "[0, 0, 10, 10]"}, {"prediction": "There is none."}]
    _, notes = read(tmp_path / "p.json", entries, truth, **TEXT, scale="pixels")
    right = "1 of 2 answers (50.00 %), 1 of them where nothing is meant and no box is right, deny the target"
    assert any(note.startswith(right) for note in notes)
    assert not any("wrong" in note for note in notes)


@pytest.mark.parametrize(
    ("entry", "options", "words"),
    [
        ({"regions": [[0, 0, 1, 1]]}, {}, "the entry has key, regions; name the right one: box=FIELD"),
        (
            {"regions": [[0, 0, 1, 1]]},
            {"boxes": "regions"},
            "the order of the numbers, their field is named by box=FIELD",
        ),
        ({"bbox": [[0, 0, 1, 1, 0.9]]}, {}, "expected four numbers (boxes= says which); a score stands in scores"),
        ({"bbox": "left"}, {}, 'boxes: "left", expected a list; name another field: box=FIELD'),
        ({"regions": [0, 0, 1, 1]}, {"box": "regions"}, None),
        ({"bbox": [0, 0, 1, 1], "score": 0.5}, {}, None),
    ],
)
def test_the_remedy_exists(tmp_path, entry, options, words):
    def attempt():
        return read(tmp_path / "p.json", [{"key": "1.0", **entry}], table([{}]), format="grefcoco", **options)

    if words is None:
        assert attempt()[0].boxes.tolist() == [[0, 0, 1, 1]]
    else:
        with pytest.raises(UserError) as error:
            attempt()
        assert words in str(error.value)
