"""From table and predictions to a report."""

import json
import math

import numpy as np
import pytest
import torch

from vgbench.bench.scoring import benchmark
from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.data.table import AnnotationTable
from vgbench.metrics.evaluator import default_tasks, evaluate_predictions, format_report
from vgbench.predictions.table import Predictions
from vgbench.predictions.trivial import trivial_predictions
from vgbench.types import Prediction


def table(rows, task="rec"):
    base = {"image": "", "width": 100, "height": 50, "expression": "", "masks": [], "polygons": [], "ann_ids": []}
    base |= {"categories": [], "ref_id": None, "sent_id": None, "group": 0, "source": "", "split": "val"}
    full = [{**base, "key": f"k{i}", "image_id": i // 2, **row} for i, row in enumerate(rows)]
    return AnnotationTable.from_rows(full, {"dataset": "refcoco", "split": "val", "task": task})


def answers(boxes, **others):
    tensors = [torch.tensor(box, dtype=torch.float32).reshape(-1, 4) for box in boxes]
    return [Prediction(tensor, torch.ones(len(tensor)), **others) for tensor in tensors]


HALVES = table([{"boxes": [[0, 0, 10, 10]]} for _ in range(40)])


def test_report_of_any_order_of_predictions():
    order = np.random.default_rng(0).permutation(40)
    found = answers([[[0, 0, 10, 10]] if i < 30 else [] for i in order])
    report = evaluate_predictions(HALVES, Predictions.from_list([f"k{i}" for i in order], found), variants=["rec/giou"])
    score = report.scores["rec/prec@0.5"]
    assert (score.value, score.n, report.primary) == (75, 40, "rec/prec@0.5")
    assert score.low < 75 < score.high and score.high - score.low < 50
    assert report.scores["rec/giou/prec@0.5"].variant == "giou"
    assert (report.expressions, report.images, report.data_hash) == (40, 20, HALVES.hash)
    assert report.outcomes["rec"].ratios["prec@0.5"].num.tolist() == [1] * 30 + [0] * 10
    assert report.values["rec/miou"] == 75


def test_report_as_text_and_json():
    truth = table([{"boxes": [[0, 0, 10, 10]]}], task="grec")
    report = evaluate_predictions(truth, Predictions.from_list(["k0"], answers([[[0, 0, 10, 10]]])))
    text = format_report(report)
    assert "| **grec/pr@f1** | 100.00 | 100.00 to 100.00 | 1 |" in text
    assert "| grec/n_acc | not defined |  | 0 |" in text
    stored = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert stored["scores"]["grec/n_acc"]["value"] is None and stored["scores"]["grec/pr@f1"]["value"] == 100
    without = evaluate_predictions(truth, Predictions.from_list(["k0"], answers([[]])), bootstrap=0)
    assert math.isnan(without.scores["grec/pr@f1"].low)


def test_tasks_follow_from_table_and_predictions():
    pixels = rle.encode(np.zeros((50, 100), bool))
    with_masks = table([{"boxes": [[0, 0, 1, 1]], "masks": [pixels["counts"]], "polygons": [1]}])
    boxes, everything = answers([[[0, 0, 1, 1]]]), answers([[[0, 0, 1, 1]]], mask=pixels, point=(0, 0))
    assert default_tasks(with_masks, Predictions.from_list(["k0"], boxes)) == ["rec"]
    assert default_tasks(with_masks, Predictions.from_list(["k0"], everything)) == ["rec", "pointing", "res"]
    with_masks.info["task"] = "grec"
    assert default_tasks(with_masks, Predictions.from_list(["k0"], everything)) == ["grec", "pointing", "gres"]


def test_damaged_predictions_in_memory_are_named():
    bad = answers([[[5, 0, 1, 1]]])
    with pytest.raises(UserError, match=r"row 1 .key 'k0'.: a box has x2 < x1"):
        evaluate_predictions(table([{"boxes": [[0, 0, 1, 1]]}]), Predictions.from_list(["k0"], bad))


def test_trivial_baseline_is_a_centred_box_of_median_size():
    truth = table([{"boxes": [[0, 0, 20, 10]]}, {"boxes": [[0, 0, 40, 20]]}, {"boxes": [[0, 0, 60, 50]]}])
    found = trivial_predictions(truth)
    assert found.boxes.tolist() == [[30, 15, 70, 35]] * 3  # 40 % of the width, 40 % of the height
    assert found.points.tolist() == [[50, 25]] * 3 and not found.has("mask")
    square = rle.encode(np.ones((50, 100), bool))
    masked = table([{"boxes": [[30, 15, 70, 35]], "masks": [square["counts"]], "polygons": [1]}])
    report = evaluate_predictions(masked, trivial_predictions(masked))
    assert report.values["rec/miou"] == 100 and report.values["res/miou"] == pytest.approx(100 * 800 / 5000)


def test_benchmark_scores_every_mask():
    result = benchmark(masks=50, size=(30, 40))
    assert set(result) == {"masks_per_s", "boxes_per_s", "bootstrap_s", "characters_per_mask"}
    assert all(value > 0 for value in result.values())


def test_score_command(tmp_path, capsys, monkeypatch):
    from vgbench.cli.main import main

    rows = [
        {"img_id": f"COCO_train2014_{i:012d}_{i}", "sents": "left", "bbox": [10, 10, 20, 20], "height": 50, "width": 50}
        for i in range(4)
    ]
    (tmp_path / "refcoco_val.json").write_text(json.dumps(rows))
    monkeypatch.setenv("VGBENCH_CACHE", str(tmp_path / "cache"))
    where = ["dataset=refcoco", f"data_root={tmp_path}", "split=val"]
    out = tmp_path / "report.json"
    assert main(["score", "trivial", *where, "--variant", "rec/strict", "--json", str(out)]) == 0
    assert "refcoco val: 4 expressions, 4 images" in capsys.readouterr().out
    (report,) = json.loads(out.read_text())
    assert report["scores"]["rec/prec@0.5"]["value"] == 0 and "rec/strict/prec@0.55" in report["scores"]
    assert main(["score", str(tmp_path / "nothing.jsonl"), *where]) == 2
    assert "no such file" in capsys.readouterr().err
    run = tmp_path / "run"
    assert main(["score", "trivial", *where, "--label", "Mine"]) == 2
    assert "--label names a row of the leaderboard: add --register" in capsys.readouterr().err
    for _ in range(2):  # an external row may be made again
        assert main(["score", "trivial", *where, "--register", str(run)]) == 0
    written = json.loads((run / "record.json").read_text())
    (run / "record.json").write_text(json.dumps({**written, "provenance": "measured"}))
    capsys.readouterr()
    for place, words in ((run, "holds the record of a run that was made here"), (out, "a file; name a run folder")):
        assert main(["score", "trivial", *where, "--register", str(place)]) == 2
        assert f"--register {place}: {words}" in capsys.readouterr().err
    assert json.loads((run / "record.json").read_text())["provenance"] == "measured"
