"""Pictures: what is drawn where, in which colour, and that no text and no prediction makes drawing fail."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from vgbench.core.errors import UserError
from vgbench.data.table import AnnotationTable
from vgbench.pictures import curves, draw, examples
from vgbench.pictures.draw import contact_sheet
from vgbench.pictures.palette import PREDICTED, TRUTH
from vgbench.predictions.writer import PredictionWriter
from vgbench.records.curves import read_curves
from vgbench.types import Prediction

WIDTH, HEIGHT = 120, 80


def rle(x1: int, y1: int, x2: int, y2: int) -> dict:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y1:y2, x1:x2] = 1
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()}


def line(key: str, boxes: list[list[float]], masks: list[dict] | None = None) -> dict:
    return {
        **{"key": key, "image_id": 1, "image": "a.png", "width": WIDTH, "height": HEIGHT, "expression": f"thing {key}"},
        **{"boxes": boxes, "masks": [mask["counts"] for mask in masks or []], "polygons": [1] * len(masks or [])},
        **{"ann_ids": [], "categories": [], "ref_id": None, "sent_id": None, "group": 0, "source": "x", "split": "val"},
    }


def table(*lines: dict) -> AnnotationTable:
    return AnnotationTable.from_rows(lines, {"dataset": "synthetic", "split": "val"})


def said(box: list[float] | None, **changes) -> Prediction:
    boxes = torch.tensor([box] if box else []).reshape(-1, 4)
    return Prediction(boxes, torch.full((len(boxes),), 0.9), **changes)


GREY = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)


def near(picture: Image.Image, x: float, y: float, colour: tuple[int, int, int]) -> bool:
    """Is the colour within three pixels of a place given in original pixels (drawn at four times the size)?"""
    pixels = np.asarray(picture)[round(4 * y) - 3 : round(4 * y) + 4, round(4 * x) - 3 : round(4 * x) + 4]
    return bool((pixels == colour).all(-1).any())


def test_boxes_are_drawn_where_they_are_in_their_colours() -> None:
    row = table(line("a", [[10, 20, 50, 60]])).row(0)
    picture = draw.draw(GREY, "the thing", row, said([70, 10, 110, 50]), size=480)
    assert picture.width == 480 and picture.height > 320
    assert near(picture, 10, 40, TRUTH) and near(picture, 50, 40, TRUTH)
    assert near(picture, 70, 10.5, PREDICTED[0]) and not near(picture, 70, 10.5, TRUTH)
    assert not near(picture, 60, 70, TRUTH)


def test_masks_are_filled_for_predictions_and_outlined_for_the_truth() -> None:
    row = table(line("a", [[10, 20, 50, 60]], [rle(10, 20, 50, 60)])).row(0)
    picture = draw.draw(GREY, "x", row, said(None, mask=rle(70, 10, 110, 50)), size=480)
    inside = tuple((np.array(PREDICTED[0]) + 128) // 2)
    assert near(picture, 90, 30, inside)
    assert near(picture, 30, 40, (128, 128, 128))  # the truth's inside stays as it is


def test_a_heat_map_is_a_second_panel_bright_at_its_peak() -> None:
    heat = torch.zeros(8, 12)
    heat[2, 9] = 1.0
    picture = draw.draw(GREY, "x", prediction=said(None, heatmap=heat), size=480)
    assert picture.width == 2 * 480 + 4
    panel = np.asarray(picture)[:320, 484:].astype(float)
    bright = panel[..., 1] - panel[..., 2]  # viridis: yellow has green and no blue
    y, x = np.unravel_index(bright.argmax(), bright.shape)
    assert abs(x / 40 - 9.5) < 1 and abs(y / 40 - 2.5) < 1


def test_prediction_sets_that_share_a_heat_map_share_its_panel() -> None:
    one, same, other = (said(None, heatmap=torch.eye(4) + number) for number in (0, 0, 1))
    widths = [draw.draw(GREY, "x", prediction={"a": one, "b": b}, size=100).width for b in (same, other)]
    assert widths == [2 * 100 + 4, 3 * 100 + 2 * 4]


@pytest.mark.parametrize(
    "expression",
    ["", "红色的球", "الكرة الحمراء", "a\nb\x00\u202e\ud800c", "x" * 500, "🟥 " * 300, "ünïcödé"],
)
@pytest.mark.parametrize("kind", ["tensor", "pil", "tiny"])
def test_any_text_and_any_kind_of_image_can_be_drawn(expression: str, kind: str) -> None:
    image = {
        "tensor": torch.from_numpy(GREY).permute(2, 0, 1),
        "pil": Image.fromarray(GREY).convert("L"),
        "tiny": GREY[:1, :7],
    }[kind]
    nothing = Prediction(torch.zeros(0, 4), torch.zeros(0), no_target=True)
    picture = draw.draw(image, expression, None, {"decoder": nothing, "token": said([5, 5, 5, 5])}, size=200)
    assert max(picture.size) >= 200


def test_a_contact_sheet_holds_every_picture() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    sheet = contact_sheet([Image.new("RGB", (30, 20 + 10 * i), c) for i, c in enumerate(colours)], columns=2)
    counts = [(np.asarray(sheet) == colour).all(-1).sum() for colour in colours]
    assert counts == [30 * 20, 30 * 30, 30 * 40]
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])


def test_examples_of_a_split(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    rows = table(
        line("one", [[10, 20, 50, 60]], [rle(10, 20, 50, 60)]),
        line("two", [[0, 0, 9, 9]]),
        line("lost", [[0, 0, 9, 9]]),
    )
    answers = [
        said([10, 20, 50, 55], mask=rle(10, 20, 50, 55)),
        said([60, 20, 80, 60], heatmap=torch.eye(4)),
        said(None),
    ]
    files = {}
    for name in ("decoder", "token"):
        files[name] = tmp_path / f"{name}.parquet"
        with PredictionWriter(files[name]) as writer:
            writer.write(["one", "two", "lost"], answers)
    method = SimpleNamespace(name="m", title="M", outputs=("decoder", "token"))

    def image_path(name: str) -> Path:
        return tmp_path / name

    out = tmp_path / "examples"
    examples.examples(out, rows, image_path, files.__getitem__, method, count=10)
    stored = json.loads((out / "examples.json").read_text())
    assert (stored["dataset"], stored["split"], stored["data_hash"]) == ("synthetic", "val", rows.hash)
    one, two, lost = stored["examples"]
    assert one["truth"]["boxes"] == [[10, 20, 50, 60]] and len(one["truth"]["outlines"]) == 1
    decoder = one["predictions"]["decoder"]
    assert decoder["iou"] == 0.875 and decoder["right"]  # 35 of 40 rows
    outline = np.array(decoder["outlines"][0]).reshape(-1, 2)
    assert (outline.min(0) == [10, 20]).all() and (outline.max(0) == [49, 54]).all()
    assert not two["predictions"]["token"]["right"] and not lost["predictions"]["token"]["right"]
    heat = Image.open(io.BytesIO(base64.b64decode(two["predictions"]["token"]["heatmap"])))
    assert (np.asarray(heat) == 255 * np.eye(4)).all()
    names = {path.name for path in out.iterdir()}
    assert names == {"sheet.png", "examples.json", *(f"0{i}.{kind}" for i in range(3) for kind in ("png", "jpg"))}
    assert Image.open(out / "00.png").size[0] == 360

    (tmp_path / "a.png").unlink()
    examples.examples(tmp_path / "none", rows, image_path, files.__getitem__, method, count=2)
    assert json.loads((tmp_path / "none" / "examples.json").read_text())["examples"] == []


def test_the_same_expressions_are_chosen_whatever_their_order() -> None:
    keys = [f"key {number}" for number in range(50)]
    chosen = {keys[index] for index in examples.choose(keys, 8)}
    backwards = keys[::-1]
    assert chosen == {backwards[index] for index in examples.choose(backwards, 8)}
    assert len(chosen) == 8 and examples.choose(keys[:3], 8) == [0, 1, 2]


LOG = """epoch,step,train/total,val/rec/prec@0.5,lr
0,9,3.5,,0.1
0,19,2.5,,0.1
0,19,,40.0,
1,29,1.5,,
1,39,nan,55.0,
"""


def test_curves_read_and_drawn(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(LOG)
    series = read_curves(tmp_path / "metrics.csv")
    assert series["train/total"] == [(9, 3.5), (19, 2.5), (29, 1.5)]
    assert series["val/rec/prec@0.5"] == [(19, 40.0), (39, 55.0)]
    curves.curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
    assert picture.shape[1] > 2 * picture.shape[0]  # two panels
    assert ((picture == (0, 114, 178)).all(-1)).any()


def test_a_log_without_curves_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("epoch,step,lr\n0,1,0.1\n")
    with pytest.raises(UserError, match=r"a\.csv: no train"):
        curves.curves(tmp_path / "a.csv", tmp_path / "c.png")
    (tmp_path / "b.csv").write_text("time,loss\n0,1\n")
    with pytest.raises(UserError, match=r"b\.csv: not a CSV log"):
        curves.curves(tmp_path / "b.csv", tmp_path / "c.png")
    with pytest.raises(UserError, match=r"c\.csv"):
        curves.curves(tmp_path / "c.csv", tmp_path / "c.png")
