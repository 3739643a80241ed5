"""A style from the command line to the record, and predictions that are read again in another one."""

import json

import pyarrow.parquet as pq
import pytest

from vgbench.cli.main import main
from vgbench.core.errors import UserError
from vgbench.data.table import AnnotationTable
from vgbench.predictions.foreign import read_foreign
from vgbench.predictions.reader import read_predictions
from vgbench.predictions.reading import Reading
from vgbench.predictions.rereading import is_predictions_file, reading_notes, reread
from vgbench.predictions.styles import style
from vgbench.predictions.table import Predictions
from vgbench.predictions.writer import PredictionWriter
from vgbench.types import Geometry

TRUTH = [[20, 20, 60, 40], [100, 50, 200, 100], [20, 20, 60, 40], []]


def table(boxes=TRUTH, task="grec"):
    rows = [
        {
            **{"image": "", "width": 200, "height": 100, "boxes": [box] if box else [], "masks": [], "polygons": []},
            **{"ann_ids": [], "categories": [], "ref_id": 1, "group": 0, "source": "", "split": "val"},
            **{"key": f"1.{i}", "sent_id": 50 + i, "image_id": 7, "expression": f"thing {i}"},
        }
        for i, box in enumerate(boxes)
    ]
    return AnnotationTable.from_rows(rows, {"dataset": "refcoco", "split": "val", "task": task})


def read(path, entries, annotations=None, **options):
    path.write_text(json.dumps(entries))
    return read_foreign(path, annotations or table(), Reading.from_options({"match": "row", **options}))


SEEN = [  # Qwen2.5-VL in pixels of 100 x 200, what the processor made of 200 x 100
    {"response": '{"bbox_2d": [10, 40, 30, 80], "label": "a"}', "w": 100, "h": 200},
    {"response": '```json\n[{"bbox_2d": [50, 100, 100, 200]}]\n```', "w": 100, "h": 200},
    {"response": "the cup", "w": 100, "h": 200},
    {"response": "There is no such thing in the image.", "w": 100, "h": 200},
]


def test_a_style_reads_a_file_and_the_notes_say_how(tmp_path):
    predictions, notes = read(tmp_path / "p.json", SEEN, style="qwen2.5-vl", scale="w,h")
    assert predictions.boxes.tolist() == [[20, 20, 60, 40], [100, 50, 200, 100]]
    assert predictions.no_target.tolist() == [0, 0, -1, 1]
    assert predictions.answers()[2] == "the cup"
    assert predictions.geometry()[0] == Geometry((0.5, 2.0), (0.0, 0.0), (100, 200), (200, 100))
    text = "\n".join(notes)
    assert "pixels of the image as the model saw it (style qwen2.5-vl)" in text
    assert "1 of 4 answers (25.00 %) cannot be read (1 unreadable) and count as no box; e.g. entry 3: 'the cup'" in text
    assert "1 of 4 answers (25.00 %), 1 of them where nothing is meant and no box is right, deny the target" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"style": "qwen2.5-vl"}, "style=qwen2.5-vl: the numbers are pixels of the image as the model saw it"),
        ({"style": "qwen25"}, "style=qwen25: no such answer style; did you mean qwen2.5-vl?"),
        ({"style": "gemini", "format": "coco"}, "style=gemini reads a model's words, which format=coco has not"),
        ({"style": "paligemma"}, "0 of 4 answers hold a box; they were read as paligemma from 'response'"),
    ],
)
def test_what_a_style_lacks_is_named(tmp_path, options, words):
    with pytest.raises(UserError) as error:
        read(tmp_path / "p.json", SEEN, **options)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "box"),
    [
        ({"style": "qwen2.5-vl", "scale": "pixels"}, [10, 40, 30, 80]),
        ({"style": "qwen3-vl"}, [2, 4, 6, 8]),
        ({"style": "qwen3-vl", "scale": "100"}, [20, 40, 60, 80]),
        ({"style": "qwen3-vl", "scale": "100", "boxes": "yxyx"}, [80, 10, 160, 30]),
        ({"style": "qwen3-vl", "scale": "100", "frame": "square"}, [20, 30, 60, 110]),  # 50 pixels above
    ],
)
def test_what_is_stated_stands_instead_of_the_familys(tmp_path, options, box):
    predictions, _ = read(tmp_path / "p.json", SEEN[:1], table(TRUTH[:1]), **options)
    assert predictions.boxes.tolist() == [pytest.approx(box)]


def test_points_are_predictions_of_points(tmp_path):
    entries = [{"answer": '<point x="25.0" y="50.0" alt="a">a</point>'}]
    predictions, _ = read(tmp_path / "p.json", entries, table(TRUTH[:1]), style="molmo")
    assert predictions.points.tolist() == [[50, 50]] and not len(predictions.boxes)


@pytest.fixture
def stored(tmp_path):
    """Predictions of a model that wrote shares of 1000, read as pixels by mistake; the last one wrote nothing."""
    words = ['{"bbox_2d": [100, 200, 300, 400]}', "[500, 500, 1000, 1000] [0, 0, 9, 9]", "no such thing", None]
    wrong = style("qwen2.5-vl")
    frame = Geometry((0.5, 2.0), (0.0, 0.0), (100, 200), (200, 100))
    predictions = [wrong.read(text, (200, 100), (100, 200)).prediction(text, frame) for text in words]
    with PredictionWriter(tmp_path / "val.parquet") as writer:
        writer.write([f"1.{i}" for i in range(4)], predictions)
    return tmp_path / "val.parquet"


def test_words_are_read_again(stored):
    assert is_predictions_file(stored) and pq.read_schema(stored).names[-1] == "answer"
    predictions = read_predictions(stored, table())
    again, notes = reread(predictions, table(), Reading.from_options({"style": "qwen3-vl"}), str(stored))
    assert again.boxes.tolist() == [
        [20, 20, 60, 40],
        [100, 50, 200, 100],
        [0, 0, pytest.approx(1.8), pytest.approx(0.9)],
    ]
    assert again.answers() == predictions.answers() and again.no_target.tolist() == [0, 0, 1, -1]
    text = "\n".join(notes)
    assert "read again as style qwen3-vl: xyxy, shares of 1000 of the image" in text
    assert "1 of 3 answers (33.33 %) deny the target" in text and "1 expressions have no words" in text
    assert "1 answers are not written as" in text
    first, _ = reread(predictions, table(), Reading.from_options({"style": "qwen3-vl", "several": "first"}), "p")
    assert first.box_counts.tolist() == [1, 1, 0, 0]
    seen, _ = reread(predictions, table(), Reading.from_options({"style": "qwen2.5-vl"}), "p")
    assert seen.boxes[0].tolist() == [200, 100, 600, 200]  # by the size that the file keeps


def test_a_run_notes_how_its_words_were_read(stored):
    notes = reading_notes(read_predictions(stored, table()), table(), style("qwen3-vl"))
    assert notes[0] == "answers read as style qwen3-vl: xyxy, shares of 1000 of the image"
    assert any("deny the target; e.g. key '1.2': 'no such thing'" in note for note in notes)
    bare = Predictions.from_list(["1.0"], [style("shikra").read("[0, 0, 1, 1]", (9, 9)).prediction()])
    assert reading_notes(bare, table(TRUTH[:1]), style("shikra")) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"style": "qwen3-vl", "match": "row"}, "match cannot be stated of it, only style, scale"),
        ({"style": "qwen3-vl", "scale": "w,h"}, "scale= cannot be stated of it"),
        ({"style": "florence-2"}, "0 of 3 answers hold a box as style=florence-2 writes it"),
    ],
)
def test_what_cannot_be_read_again_is_named(stored, options, words):
    with pytest.raises(UserError) as error:
        reread(read_predictions(stored, table()), table(), Reading.from_options(options), str(stored))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_files_without_words_or_size_say_so(tmp_path):
    lines = [{"key": f"1.{i}", "boxes": [], "answer": "[1, 2, 3, 4]"} for i in range(4)]
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    assert is_predictions_file(file)
    with pytest.raises(UserError, match=r"key '1\.0': style=qwen2\.5-vl needs the size .*geometry.*scale=pixels"):
        reread(read_predictions(file, table()), table(), Reading.from_options({"style": "qwen2.5-vl"}), "p.jsonl")
    file.write_text("\n".join(json.dumps({"key": f"1.{i}", "boxes": []}) for i in range(4)))
    with pytest.raises(UserError, match="no model's words"):
        reread(read_predictions(file, table()), table(), Reading.from_options({"style": "gemini"}), "p.jsonl")
    file.write_text('{"key": "1.0", "response": "[1, 2, 3, 4]"}')
    assert not is_predictions_file(file) and not is_predictions_file(tmp_path / "missing.jsonl")


def test_from_the_command_line_and_back(tmp_path, capsys, monkeypatch):
    truth = [
        {"img_id": f"COCO_train2014_{i:012d}_{i}", "sents": "left", "bbox": [10, 10, 20, 20], "height": 50, "width": 50}
        for i in range(4)
    ]
    (tmp_path / "refcoco_val.json").write_text(json.dumps(truth))
    monkeypatch.setenv("VGBENCH_CACHE", str(tmp_path / "cache"))
    answers = [{"index": i, "response": '{"box_2d": [200, 200, 600, 600]}' if i else "?"} for i in range(4)]
    (tmp_path / "vlm.json").write_text(json.dumps(answers))
    where = ["dataset=refcoco", f"data_root={tmp_path}", "split=val"]
    run = tmp_path / "runs" / "vlm"
    command = ["score", str(tmp_path / "vlm.json"), *where, "style=gemini", "match=row", "--register", str(run)]
    assert main(command) == 0
    assert "| **rec/prec@0.5** | 75.00" in capsys.readouterr().out
    notes = json.loads((run / "record.json").read_text())["notes"]
    assert any("yxyx, shares of 1000 of the image (style gemini)" in note for note in notes)
    assert any("1 of 4 answers (25.00 %) cannot be read" in note for note in notes)
    assert main(["score", str(run / "predictions" / "val.parquet"), *where, "style=gemini", "scale=100"]) == 0
    printed = capsys.readouterr().out
    assert "| **rec/prec@0.5** | 0.00" in printed and "read again as style gemini: yxyx, shares of 100" in printed
    assert main(["list", "styles"]) == 0
    assert "qwen2.5-vl   Qwen2.5-VL: JSON with bbox_2d" in capsys.readouterr().out


def test_a_style_from_a_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vgbench.core.registry.styles._added", {})
    (tmp_path / "style_of_mine.py").write_text(
        "from vgbench.predictions.coordinates import Coordinates\n"
        "from vgbench.predictions.styles.base import AnswerStyle\n"
        "from vgbench.predictions.styles.grammar import tagged\n\n"
        "class Mine(AnswerStyle):\n"
        '    """Mine: ``@1 2 3 4@``, shares of 10. Source: https://example.org"""\n\n'
        "    name, coordinates, shape = 'mine', Coordinates(whole=10), '@1 2 3 4@'\n"
        "    grammar = (tagged('@', '@'),)\n"
    )
    assert main(["list", "styles", "--plugin", str(tmp_path / "style_of_mine.py")]) == 0
    assert "mine         Mine: @1 2 3 4@, shares of 10." in capsys.readouterr().out
    predictions, _ = read(tmp_path / "p.json", [{"answer": "@1 2 3 4@"}], table(TRUTH[:1]), style="mine")
    assert predictions.boxes.tolist() == [[20, 20, 60, 40]]
