from __future__ import annotations

import json
import random

import numpy as np
import pytest
from PIL import Image as PILImage
from pycocotools import mask as rle

from vgbench.core.errors import UserError
from vgbench.data.additional import AdditionalData, joined
from vgbench.data.leakage import leakage
from vgbench.data.table import AnnotationTable
from vgbench.methods.resvg.augment import augment
from vgbench.methods.resvg.instances import categories_in, instances_of
from vgbench.methods.resvg.painters import CopyPaste, LayoutToImage
from vgbench.methods.resvg.queries import denotes, plural, pseudo_queries

COLOURS = {"cup": (200, 30, 30), "plate": (30, 30, 200)}


@pytest.fixture
def data(tmp_path):
    """Six images 120 x 90: cups (red rectangles) in the even ones, plates (blue) in the odd ones."""
    rows = []
    for number in range(6):
        category = "cup" if number % 2 == 0 else "plate"
        image = np.full((90, 120, 3), 100 + 10 * number, dtype=np.uint8)
        mask = np.zeros((90, 120), dtype=np.uint8)
        mask[20:60, 30 : 55 + number] = 1
        image[mask == 1] = COLOURS[category]
        PILImage.fromarray(image).save(tmp_path / f"{number}.png")
        counts = rle.encode(np.asfortranarray(mask))["counts"].decode()
        for sentence in range(2):
            rows.append(
                {
                    "key": f"{number}.{sentence}", "image_id": number, "image": f"{number}.png", "width": 120,
                    "height": 90, "expression": category, "boxes": [[30, 20, 55 + number, 60]], "masks": [counts],
                    "polygons": [1], "ann_ids": [number], "categories": [category], "ref_id": number,
                    "sent_id": sentence, "group": number, "source": "coco", "split": "train",
                }
            )  # fmt: skip
    return AnnotationTable.from_rows(rows, {"image_root": str(tmp_path)}), lambda name: tmp_path / name


def boxes_at(*centres):
    return np.array([[x - 5, y - 5, x + 5, y + 5] for x, y in centres], dtype=float)


@pytest.mark.parametrize(
    ("centres", "expected"),
    [
        ([(20, 50), (80, 50)], {"left": 0, "right": 1}),
        ([(50, 20), (50, 80)], {"top": 0, "bottom": 1}),
        ([(50, 50), (58, 55)], {}),  # spread of less than a tenth
        ([(10, 50), (40, 50), (90, 50)], {"left": 0, "middle": 1, "right": 2}),
        ([(10, 50), (12, 50), (90, 50)], {"right": 2}),  # left and middle only by a hair
        ([(10, 50), (20, 50), (50, 50), (90, 50)], {"middle": 2, "right": 3}),  # two in the left quarter
        ([(10, 50), (40, 50), (60, 50), (90, 50)], {"left": 0, "right": 3}),  # two in the middle
        ([(10, 10), (50, 30), (90, 90)], {"left": 0, "middle": 1, "right": 2, "top": 0, "bottom": 2}),
    ],
)
def test_queries_by_hand(centres, expected):
    queries = pseudo_queries(boxes_at(*centres), (100, 100), "orange")
    assert {text: index for index, text in queries} == {f"{word} orange": index for word, index in expected.items()}


def test_every_query_is_true_of_one_instance_only():
    """Against a plain reading of the words, on many random scenes."""
    rng = np.random.default_rng(0)
    asked = 0
    for _ in range(500):
        centres = rng.uniform(6, 94, (rng.integers(2, 7), 2))
        for index, text in pseudo_queries(boxes_at(*centres), (100, 100), "cup"):
            asked += 1
            word = text.removesuffix(" cup")
            x, y = centres[index]
            others = np.delete(centres, index, axis=0)
            clearly = {
                "left": (others[:, 0] - x).min() >= 4,
                "right": (x - others[:, 0]).min() >= 4,
                "top": (others[:, 1] - y).min() >= 4,
                "bottom": (y - others[:, 1]).min() >= 4,
                "middle": (others[:, 0] < x - 4 + 1e-9).any() and (others[:, 0] > x + 4 - 1e-9).any(),
            }
            assert clearly[word], (word, centres)
    assert asked > 500


def test_denotes_nothing_for_one_instance():
    assert denotes("left", boxes_at((50, 50)), (100, 100)) is None


def test_copy_paste_scenes(data, tmp_path):
    table, image_path = data
    found = instances_of(table)
    assert len(found) == 6, "two expressions of an object are one instance"
    painter = CopyPaste(found, image_path, harmony=0.0, feather=0.0, area=(0.03, 0.1))
    rng = random.Random(3)
    scenes = [scene for scene in (painter(3, rng) for _ in range(30)) if scene is not None]
    assert len(scenes) >= 8
    for scene in scenes:
        red, blue = scene.image[..., 0] == 200, scene.image[..., 2] == 200
        painted, other = (red, blue) if scene.category == "cup" else (blue, red)
        assert scene.masks.shape[0] == 3
        assert not (scene.masks.sum(0) > 1).any()
        assert (painted[scene.masks.any(0)]).mean() > 0.9, "the pasted pixels are the instances'"
        assert not (painted & ~scene.masks.any(0)).any(), "the background holds none of the category"
        assert (other | scene.masks.any(0))[20:60, 30:55].all(), "the background's own object stays or is covered"
        for mask, box in zip(scene.masks, scene.boxes, strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_backgrounds_hold_none_of_the_category(data):
    """Objects that nobody referred to count too."""
    table, image_path = data
    painter = CopyPaste(instances_of(table), image_path, present={key: ["cup", "plate"] for key in range(6)})
    assert all(painter(2, random.Random(seed)) is None for seed in range(20))


def test_harmonised_colours_move_towards_the_place(data):
    table, image_path = data
    means = {}
    for harmony in (0.0, 0.5):
        painter = CopyPaste(instances_of(table), image_path, harmony=harmony, feather=0.0)
        rng, colours = random.Random(3), []
        for scene in (painter(2, rng) for _ in range(20)):
            if scene is not None and scene.category == "cup":
                colours.append(scene.image[scene.masks.any(0)].mean(0))
        means[harmony] = np.mean(colours, axis=0)
    assert means[0.0][0] - means[0.0][2] > means[0.5][0] - means[0.5][2] + 20, "less red on grey"


def test_augmented_table(data, tmp_path):
    table, image_path = data
    painter = CopyPaste(instances_of(table), image_path, area=(0.02, 0.08))
    made = augment(painter, tmp_path / "aug", 6, seed=1)
    assert made.info["painter"] == "copy-paste" and made.info["scenes"] == 6
    assert len(set(made.column("key"))) == len(made) >= 6
    again = augment(painter, tmp_path / "again", 3, seed=1)
    assert [row.key for row in again] == [row.key for row in made][: len(again)], "a longer list begins alike"
    other = augment(painter, tmp_path / "other", 3, seed=2)
    assert [row.boxes.tolist() for row in other] != [row.boxes.tolist() for row in again]

    extra = AdditionalData.open(tmp_path / "aug")
    assert extra.table.hash == made.hash and set(made.info["painted_from"]) <= {f"coco:{number}" for number in range(6)}
    both, where = joined(table, image_path, [extra, AdditionalData.open(tmp_path / "other")])
    assert len(both) == len(table) + len(made) + len(other) and both.hash != table.hash
    assert leakage(both, table.take([0, 4])).images == 2
    for row in both:
        with PILImage.open(where(row.image)) as image:
            assert image.size == (row.width, row.height)
        if row.source == "resvg-augmentation":
            mask = rle.decode({**row.masks[0], "counts": row.masks[0]["counts"].encode()})
            assert rle.toBbox(rle.encode(np.asfortranarray(mask))).tolist()[:2] == row.boxes[0, :2].tolist()
            assert row.expression.split() == [row.expression.split()[0], row.categories[0]]
    with pytest.raises(UserError, match=r"annotations\.arrow: exists"):
        augment(painter, tmp_path / "aug", 1)
    with pytest.raises(UserError, match="holds no annotations"):
        AdditionalData.open(tmp_path / "nothing")
    with pytest.raises(UserError, match="share expressions"):
        joined(table, image_path, [extra, extra])
    with pytest.raises(UserError, match="counts=1-3"):
        augment(painter, tmp_path / "one", 1, counts=(1, 3))


def test_needs_masks(data):
    table, _ = data
    bare = [
        {**row.__dict__, "masks": [], "polygons": [], "ann_ids": [], "categories": list(row.categories)}
        for row in table
    ]
    with pytest.raises(UserError, match="needs masks"):
        instances_of(AnnotationTable.from_rows(bare, {}))


def test_categories_in(tmp_path):
    file = tmp_path / "instances.json"
    content = {
        "categories": [{"id": 3, "name": "cup"}, {"id": 5, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 3}, {"image_id": 1, "category_id": 5}],
    }
    file.write_text(json.dumps(content))
    assert categories_in(file) == {1: {"cup", "dog"}}
    file.write_text("[]")
    with pytest.raises(UserError, match=r"instances\.json"):
        categories_in(file)


def test_layout_to_image(tmp_path):
    """The pipeline is asked for boxes that do not touch, and the scene is where it was told to draw."""
    asked = []

    class Answer:
        images = (PILImage.new("RGB", (64, 64)),)

    def pipeline(**arguments):
        asked.append(arguments)
        return Answer()

    made = augment(LayoutToImage(pipeline, ["bus"], size=64), tmp_path, 4)
    assert {row.categories[0] for row in made} == {"bus"} and not made.has_masks
    for request in asked:
        count = len(request["gligen_boxes"])
        assert request["prompt"] == f"{['two', 'three', 'four', 'five'][count - 2]} buses"
        assert request["gligen_phrases"] == ["bus"] * count
        assert all(0 <= value <= 1 for box in request["gligen_boxes"] for value in box)
    drawn = [[round(64 * value, 6) for value in box] for request in asked for box in request["gligen_boxes"]]
    assert all([round(value, 6) for value in row.boxes[0].tolist()] in drawn for row in made)


def test_plurals():
    nouns = ["orange", "bus", "sheep", "person", "wine glass", "knife", "toy", "butterfly"]
    assert [plural(noun) for noun in nouns] == [
        "oranges", "buses", "sheep", "people", "wine glasses", "knives", "toys", "butterflies"
    ]  # fmt: skip
