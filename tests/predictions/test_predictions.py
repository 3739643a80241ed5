"""The predictions file: what goes in comes out, and what is wrong is named."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.data.table import AnnotationTable
from vgbench.predictions.reader import read_predictions
from vgbench.predictions.writer import PredictionWriter, merge_parts
from vgbench.types import Geometry, Prediction

FULL = Prediction(
    boxes=torch.tensor([[1.25, 2, 3, 4], [0, 0, 5, 5]]),
    scores=torch.tensor([0.75, 0.5]),
    mask=rle.encode(np.eye(10, 12, dtype=bool)),
    no_target=False,
    point=(3, 4),
    heatmap=torch.tensor([[0.0, 0.5], [1.0, -2.0], [0.25, 3.0]]),
    canvas_mask=rle.encode(np.ones((6, 6), bool)),
    geometry=Geometry((0.5, 0.25), (0.0, 3.0), (10, 12), (6, 6)),
    masks_at={50: rle.encode(np.eye(10, 12, dtype=bool)), 20: rle.encode(np.ones((10, 12), bool))},
)
EMPTY = Prediction(torch.zeros(0, 4), torch.zeros(0))


def table(keys, height=10, width=12):
    base = {"image_id": 0, "image": "", "width": width, "height": height, "expression": "", "boxes": [0, 0, 1, 1]}
    base |= {"masks": [], "polygons": [], "ann_ids": [], "categories": [], "ref_id": None, "sent_id": None}
    base |= {"group": 0, "source": "", "split": "val"}
    return AnnotationTable.from_rows([{**base, "key": key} for key in keys], {"dataset": "refcoco", "split": "val"})


def lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["p.parquet", "p.jsonl"])
def test_round_trip_in_the_order_of_the_table(tmp_path, name):
    with PredictionWriter(tmp_path / name, group=2) as writer:
        for key, prediction in zip("cab", [EMPTY, FULL, EMPTY], strict=True):
            writer.write([key], [prediction])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    found = read_predictions(tmp_path / name, table(["a", "b", "c"]))
    assert found.keys.to_pylist() == ["a", "b", "c"]
    first, second, _ = found
    for attribute in ("mask", "no_target", "point", "canvas_mask", "geometry", "masks_at"):
        assert getattr(first, attribute) == getattr(FULL, attribute)
        assert getattr(second, attribute) is None
    for attribute in ("boxes", "scores", "heatmap"):
        assert torch.equal(getattr(first, attribute), getattr(FULL, attribute))
    assert second.boxes.shape == (0, 4) and second.scores.shape == (0,)
    assert found.no_target.tolist() == [0, -1, -1] and found.points.tolist() == [[3, 4], [-1, -1], [-1, -1]]
    assert found.box_counts.tolist() == [2, 0, 0]


def test_nothing_is_left_of_an_interrupted_file(tmp_path):
    with pytest.raises(RuntimeError), PredictionWriter(tmp_path / "p.parquet") as writer:
        writer.write(["a"], [FULL])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "p.jsonl"
    with PredictionWriter(path) as writer:
        writer.write(["a"], [FULL])
    writer = PredictionWriter(path)
    writer.write(["b"], [EMPTY])
    assert read_predictions(path).keys.to_pylist() == ["a"]
    writer.close()
    assert read_predictions(path).keys.to_pylist() == ["b"]


def test_parts_of_processes_are_joined_without_doubles(tmp_path):
    parts = [tmp_path / f"{rank}.parquet" for rank in range(2)]
    for part, keys in zip(parts, ["ac", "ba"], strict=True):
        with PredictionWriter(part) as writer:
            writer.write(list(keys), [FULL, EMPTY])
    merge_parts(parts, tmp_path / "all.parquet")
    found = read_predictions(tmp_path / "all.parquet")
    assert found.keys.to_pylist() == ["a", "c", "b"]
    assert found.box_counts.tolist() == [2, 0, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["all.parquet"]


def test_scores_may_be_left_out_in_json_lines(tmp_path):
    path = lines(tmp_path / "p.jsonl", {"key": "a", "boxes": [[0, 0, 1, 1], [0, 0, 2, 2]]})
    assert read_predictions(path).scores.tolist() == [1, 1]


def test_parquet_written_by_pandas(tmp_path):
    columns = {"key": ["a", "b"], "boxes": [[[0.0, 0, 1, 1]], []], "scores": [[1.0], []]}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet").boxes.tolist() == [[0, 0, 1, 1]]


BOX = {"key": "a", "boxes": [[0, 0, 1, 1]]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ("[1]", "line 2: a list, not an object"),
        ({"key": "b"}, "line 2: field 'boxes' is missing; add it"),
        ({"key": "b", "boxes": [], "bbox": []}, "line 2: unknown field 'bbox'; remove it"),
        ({"key": "b", "boxes": [[0, 0, 1]]}, "line 2 (key 'b'): boxes is [[0, 0, 1]], expected a list of [x1"),
        ({"key": "b", "boxes": "0,0,1,1"}, "line 2 (key 'b'): boxes is"),
        ({"key": None, "boxes": []}, "line 2: key is null"),
        ({"key": "b", "boxes": [[5, 0, 1, 1]]}, "line 2 (key 'b'): a box has x2 < x1"),
        ('{"key": "b", "boxes": [[0, 0, NaN, 1]]}', "line 2 (key 'b'): a box is not finite"),
        ({"key": "b", "boxes": [[0, 0, 1, 1]], "scores": []}, "line 2 (key 'b'): as many scores as boxes"),
        ({"key": "b", "boxes": [[0, 0, 1, 1]], "scores": [7]}, "line 2 (key 'b'): a score is outside [0, 1]"),
        ({"key": "b", "boxes": [[0, 0, 1, 1]] * 2, "scores": [0.1, 0.2]}, "scores increase along the list; sort"),
        ({"key": "b", "boxes": [], "mask": {"size": [10, 12], "counts": "o1"}}, "line 2 (key 'b'): mask is no COCO"),
        ({"key": "b", "boxes": [], "mask": {"size": [10, 12]}}, "line 2 (key 'b'): mask is no COCO RLE"),
        ({"key": "b", "boxes": [], "mask": {"size": [10, 12], "counts": [1, 2]}}, "line 2 (key 'b'): mask is"),
        ({"key": "b", "boxes": [], "heatmap": {"size": [2, 2], "values": [1]}}, "line 2 (key 'b'): heatmap has not"),
        ({"key": "b", "boxes": [], "mask": {"size": None, "counts": "o1"}}, "line 2 (key 'b'): mask is no COCO RLE"),
        ({"key": "b", "boxes": [], "heatmap": {"size": None, "values": [1]}}, "line 2 (key 'b'): heatmap has no size"),
        ({"key": "b", "boxes": [], "geometry": {"scale": [1, 1]}}, "line 2 (key 'b'): geometry is incomplete"),
        ({"key": "b", "boxes": [], "masks_at": [None]}, "line 2 (key 'b'): masks_at needs a percent"),
        ({"key": "b", "boxes": [], "masks_at": [{"percent": 100}]}, "line 2 (key 'b'): masks_at needs a percent"),
        ({"key": "b", "boxes": [], "masks_at": [{"percent": 50}]}, "line 2 (key 'b'): masks_at is no COCO RLE"),
        ({"key": "b", "boxes": [], "masks_at": {"50": "o1"}}, "line 2 (key 'b'): masks_at is"),
        ({"key": "b", "boxes": [], "point": [1, 2, 3]}, "line 2 (key 'b'): point is incomplete; give [x, y]"),
        ({"key": "b", "boxes": [], "point": [1.5, 2]}, "line 2 (key 'b'): point is [1.5, 2], expected [x, y] in whole"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path, row, words):
    path = lines(tmp_path / "p.jsonl", BOX, row)
    with pytest.raises(UserError) as error:
        read_predictions(path)
    assert str(path) in str(error.value) and words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("ab", "1 of 3 expressions of refcoco val are missing, first 'c'; write a line with an empty list"),
        ("abcx", "1 of 4 keys are not in refcoco val, first 'x', a key looks like 'a'"),
        ("abca", "key 'a' occurs more than once"),
    ],
)
def test_keys_must_fit_the_table(tmp_path, keys, words):
    path = lines(tmp_path / "p.jsonl", *({**BOX, "key": key} for key in keys))
    with pytest.raises(UserError, match=words):
        read_predictions(path, table("abc"))


def test_missing_expressions_can_be_empty_answers(tmp_path):
    path = lines(tmp_path / "p.jsonl", {**BOX, "key": "c"})
    found = read_predictions(path, table("abc"), missing="empty")
    assert found.keys.to_pylist() == ["a", "b", "c"] and found.box_counts.tolist() == [0, 0, 1]


def test_masks_must_have_the_size_of_their_image(tmp_path):
    with PredictionWriter(tmp_path / "p.parquet") as writer:
        writer.write(["a"], [FULL])
    with pytest.raises(UserError, match=r"key 'a': mask is \[10, 12\], the image is \[12, 10\]"):
        read_predictions(tmp_path / "p.parquet", table("a", height=12, width=10))


def test_files_of_another_kind(tmp_path):
    (tmp_path / "p.parquet").write_text("no parquet")
    (tmp_path / "p.txt").write_text("")
    for name, words in {"p.parquet": "no predictions file", "p.txt": "convert or rename", "q.jsonl": "no such"}.items():
        with pytest.raises(UserError, match=words):
            read_predictions(tmp_path / name)
    with pytest.raises(UserError, match="rename the file"):
        PredictionWriter(tmp_path / "p.csv")
