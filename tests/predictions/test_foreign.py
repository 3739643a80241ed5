"""Other people's prediction formats: what the user states is applied, what cannot fit is named."""

import json

import numpy as np
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


TWO = table([{}, {}])


def write(path, content):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in content))
    else:
        path.write_text(json.dumps(content))
    return path


def read(path, annotations=TWO, **options):
    return read_foreign(path, annotations, Reading.from_options(options))


@pytest.mark.parametrize(
    ("words", "scale", "expected"),
    [
        ("The mug is at [10, 20, 30, 40].", "pixels", [[10, 20, 30, 40]]),
        ("<ref>mug</ref><box>(100,200),(300,400)</box>", "1000", [[20, 20, 60, 40]]),
        ("{<10><20><30><40>}", "100", [[20, 20, 60, 40]]),
        ("[0.1, 0.2, 0.3, 0.4]", "1", [[20, 20, 60, 40]]),
        ('```json\n{"bbox_2d": [10, 20, 30, 40]}\n```', "pixels", [[10, 20, 30, 40]]),
        ([["[10, 20, 30, 40]"]], "pixels", [[10, 20, 30, 40]]),
        ([0.1, 0.2, 0.3, 0.4], "1", [[20, 20, 60, 40]]),
        ("[1, 2, 3, 4] and [5, 6, 7, 8]", "pixels", [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ([[1, 2, 3, 4], [5, 6, 7, 8]], "pixels", [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ([{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]}], "pixels", [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ([0.00001, 0.2, 0.3, 0.4], "1", [[0.002, 20, 60, 40]]),
        ("(.1, .2, .3, .4)", "1", [[20, 20, 60, 40]]),
        ("line\u2028break [10, 20, 30, 40]", "pixels", [[10, 20, 30, 40]]),
        ("I cannot see it.", "1000", []),
        ("[1, 2, 3]", "pixels", []),
        ("[30, 40, 10, 20]", "pixels", []),
    ],
)
def test_words_of_language_models(tmp_path, words, scale, expected):
    path = write(tmp_path / "p.jsonl", [{"doc_id": 0, "filtered_resps": words}, {"doc_id": 1, "filtered_resps": ""}])
    found, notes = read(path, format="text", scale=scale, match="row")
    np.testing.assert_allclose(found.boxes, np.array(expected, dtype=np.float32).reshape(-1, 4), rtol=1e-6)
    assert found.box_counts.tolist() == [len(expected), 0]
    if "30, 40, 10" in str(words):
        assert "1 boxes with x2 < x1 or y2 < y1 were left out" in notes
    else:
        unread = 1 + (not expected and "see" not in words)
        assert any(note.startswith(f"{unread} of 2 answers ({50 * unread}.00 %) cannot be read") for note in notes)
        assert any("1 of 2 answers (50.00 %) deny the target" in note for note in notes) == ("see" in words)


def test_the_scale_must_be_stated(tmp_path):
    path = write(tmp_path / "p.jsonl", [])
    with pytest.raises(UserError, match=r"say what the numbers mean: style=NAME .* scale=pixels"):
        read(path, format="text")


def test_entries_find_their_expression(tmp_path):
    entries = [{"sent_id": 51, "boxes": [[1, 1, 2, 2]]}, {"sent_id": 50, "boxes": []}]
    found, _ = read(write(tmp_path / "p.json", entries), format="grefcoco", match="sent_id")
    assert found.keys.to_pylist() == ["1.0", "1.1"] and found.box_counts.tolist() == [0, 1]
    keyed = {"1.0": {"boxes": []}, "1.1": {"boxes": [[1, 1, 2, 2]], "scores": [0.5], "no_target": False}}
    found, _ = read(write(tmp_path / "q.json", keyed), format="grefcoco")
    assert found.scores.tolist() == [0.5] and found.no_target.tolist() == [-1, 0]
    same = table([{"expression": "Left  Man"}, {"expression": "left man"}])
    lines = [
        {"image": "COCO_train2014_000000000007.jpg", "sent": "left man", "pred": f"[{i}, 0, 9, 9]"} for i in (1, 2)
    ]
    found, _ = read(write(tmp_path / "r.jsonl", lines), same, format="text", scale="pixels", match="sentence")
    assert found.boxes[:, 0].tolist() == [1, 2]


def test_coco_results_are_ranked_and_no_entry_means_nothing(tmp_path):
    entries = [
        {"image_id": 1, "bbox": [10, 20, 5, 6], "score": 0.3, "category_id": 1},
        {"image_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9, "category_id": 1},
    ]
    generalised = table([{"boxes": []}, {}], task="grec")
    found, notes = read(write(tmp_path / "p.json", entries), generalised, format="coco", match="row")
    assert found.boxes.tolist() == [[0, 0, 10, 10], [10, 20, 15, 26]]
    assert "1 expressions without an entry: nothing was found there" in notes
    assert evaluate_predictions(generalised, found).values["grec/pr@f1"] == 100


def test_masks_of_coco_results(tmp_path):
    left, right = np.zeros((2, 100, 200), bool)
    left[:10, :10], right[:10, 10:20] = True, True
    entries = [
        {"key": "1.0", "bbox": [0, 0, 10, 10], "score": score, "segmentation": rle.encode(mask)}
        for mask, score in ((left, 0.8), (right, 0.9))
    ]
    path = write(tmp_path / "p.json", entries)
    best, _ = read(path, table([{}]), format="coco")
    assert (rle.decode(best.masks()[0]) == right).all()
    union, _ = read(path, table([{}], task="grec"), format="coco")
    assert (rle.decode(union.masks()[0]) == (left | right)).all()


@pytest.mark.parametrize(
    ("name", "content", "options", "words"),
    [
        ("p.json", "text", {"format": "coco"}, "expected a list of objects"),
        ("p.json", [{"bbox": [0, 0, 1, 1]}], {"format": "coco"}, "entry 1: no field with the id"),
        ("p.json", [{"key": "2", "bbox": [0, 0, 1, 1]}], {"format": "coco"}, "entry 1: '2' is no key of refcoco val"),
        ("p.json", [{"key": "1.0", "bbox": [0, 0, 1]}], {"format": "coco"}, "entry 1: a box is [0, 0, 1]"),
        (
            "p.json",
            [{"key": "1.0", "segmentation": {"size": [9, 9], "counts": "1"}}],
            {"format": "coco"},
            "segmentation is 9 x 9, the image is 100 x 200 (height x width)",
        ),
        (
            "p.json",
            [{"key": "1.0", "segmentation": {"size": [100, 200], "counts": "1"}}],
            {"format": "coco"},
            "no compressed",
        ),
        (
            "p.json",
            [{"key": "1.0", "boxes": []}],
            {"format": "grefcoco"},
            "1 of 2 expressions have no entry, first '1.1'",
        ),
        (
            "p.json",
            [{"key": "1.0", "boxes": []}, {"key": "1.0", "boxes": [[0, 0, 1, 1]]}],
            {"format": "grefcoco"},
            "entry 2: the expression '1.0' was answered",
        ),
        *(
            ("p.json", [{"key": "1.0", "bbox": [0, 0, 1, 1], **entry}], {"format": "coco"}, words)
            for entry, words in (
                ({"score": "high"}, 'entry 1: a score is "high", expected a number'),
                ({"score": None}, "entry 1: a score is null"),
                ({"bbox": [0, float("nan"), 1, 1]}, "entry 1: a box is [0, NaN, 1, 1]"),
                ({"segmentation": {"size": ["a", "b"], "counts": "1"}}, '"counts": "1"}, no COCO RLE'),
                (
                    {"segmentation": {"size": 5, "counts": "1"}},
                    'segmentation is {"size": 5, "counts": "1"}, no COCO RLE',
                ),
            )
        ),
        *(
            ("p.json", [{"key": "1.0", "boxes": [[0, 0, 1, 1]], **entry}], {"format": "grefcoco"}, words)
            for entry, words in (
                ({"boxes": None}, "entry 1: boxes: null, expected a list"),
                ({"scores": {"a": 1}}, 'entry 1: scores: {"a": 1}, expected a list'),
                ({"scores": ["x"]}, 'entry 1: a score is "x"'),
                ({"no_target": "maybe"}, 'entry 1: no_target is "maybe", expected true or false'),
            )
        ),
        ("p.json", [{"key": "1.0", "boxes": []}, 3], {"format": "grefcoco"}, "entry 2: expected an object"),
        ("p.json", [], {"format": "voc"}, "format=voc: not known; use one of coco, grefcoco, text"),
        ("p.json", [], {"scale": "1000"}, "add format=coco, grefcoco or text"),
        ("p.json", [], {"format": "text", "scale": "pixel"}, "scale=pixel: say pixels, or the number"),
        (
            "p.jsonl",
            [{"image_id": 7, "sent": "no"}],
            {"format": "text", "scale": "1", "match": "sentence"},
            "has no (further)",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, name, content, options, words):
    with pytest.raises(UserError) as error:
        read(write(tmp_path / name, content), **options)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_torn_line_is_named_by_its_number(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"key": "1.0", "prediction": ""}\n\n{"key": "1.1", "predic')
    with pytest.raises(UserError, match=r"p\.jsonl: line 3: not JSON"):
        read(path, format="text", scale="1")


def test_boxes_that_a_wrong_scale_explains_are_counted(tmp_path):
    path = write(
        tmp_path / "p.jsonl", [{"key": "1.0", "prediction": "1 2 3 4"}, {"key": "1.1", "prediction": "0 0 9 9"}]
    )
    for scale, count in (("pixels", 0), ("1", 1), ("1000", 1)):
        _, notes = read(path, format="text", scale=scale)
        said = [note for note in notes if "outside the image or cover less than a pixel" in note]
        assert [note.split()[0] for note in said] == [str(count)] * (count > 0)


def test_the_stated_kind_of_id_is_looked_for_first(tmp_path):
    entries = [{"id": place, "sent_id": 51 - place, "boxes": [[1, 1, 2, 2]] * place} for place in range(2)]
    found, _ = read(write(tmp_path / "p.json", entries), format="grefcoco", match="sent_id")
    assert found.box_counts.tolist() == [1, 0]


def test_a_foreign_file_becomes_an_external_row(tmp_path, capsys, monkeypatch):
    from vgbench.cli.main import main

    truth = [
        {"img_id": f"COCO_train2014_{i:012d}_{i}", "sents": "left", "bbox": [10, 10, 20, 20], "height": 50, "width": 50}
        for i in range(4)
    ]
    (tmp_path / "refcoco_val.json").write_text(json.dumps(truth))
    monkeypatch.setenv("VGBENCH_CACHE", str(tmp_path / "cache"))
    answers = [{"index": i, "prediction": "(200,200),(600,600)" if i else "?"} for i in range(4)]
    file = write(tmp_path / "my-vlm.jsonl", answers)
    where = ["dataset=refcoco", f"data_root={tmp_path}", "split=val", "format=text", "scale=1000", "match=row"]
    assert main(["score", str(file), *where, "--register", str(tmp_path / "runs" / "vlm"), "--label", "My VLM"]) == 0
    printed = capsys.readouterr().out
    assert (
        "| **rec/prec@0.5** | 75.00" in printed
        and "note: 1 of 4 answers (25.00 %) cannot be read (1 unreadable)" in printed
    )
    assert main(["compare", str(tmp_path / "runs")]) == 0
    table = capsys.readouterr().out
    assert "My VLM" in table and "external" in table and "75.0" in table
