"""The reader of AMC's training lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from vgbench.core.errors import UserError
from vgbench.datasets.amc_vg import AMCVisualGenome
from vgbench.datasets.vg import evaluation_images

LEAKED = min(evaluation_images())


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def image_data() -> list[dict[str, Any]]:
    url = "https://example.org/rak248"
    return [
        {"image_id": 2, "width": 80, "height": 60, "coco_id": None, "url": f"{url}/VG_100K_2/2.jpg"},
        {"image_id": 7, "width": 50, "height": 40, "coco_id": LEAKED, "url": f"{url}/VG_100K/7.jpg"},
    ]


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    for name, size in (("VG_100K_2/2.jpg", (80, 60)), ("VG_100K/7.jpg", (50, 40))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        PILImage.new("RGB", size).save(tmp_path / name)
    write(
        tmp_path / "vg_descriptions.json",
        [
            {"image": "VG_100K_2/2.jpg", "caption": "a red ball", "bbox": [[1, 2, 30.5, 40]]},
            {"image": "VG_100K/7.jpg", "caption": ["dog", "brown dog"], "bbox": [[0, 0, 5, 5], [3, 3, 3, 9]]},
        ],
    )
    write(
        tmp_path / "vg_attributes.json",
        [{"image": "VG_100K/7.jpg", "caption": "wet", "bbox": [60, -4, 90, 20]}],
    )
    return tmp_path


def test_amc_lists(lists: Path, tmp_path: Path) -> None:
    data = AMCVisualGenome(lists, cache_dir=tmp_path / "cache")
    table = data.load("train")
    rows = list(table)
    assert [row.expression for row in rows] == ["a red ball", "dog", "brown dog", "wet"]
    assert [row.group for row in rows] == [0, 1, 1, 2]  # a caption is drawn per entry
    assert [(row.image_id, row.width, row.height) for row in rows] == [(2, 80, 60), *[(7, 50, 40)] * 3]
    # boxes as annotated: alternatives, without area, outside
    np.testing.assert_array_equal(rows[1].boxes, [[0, 0, 5, 5], [3, 3, 3, 9]])
    np.testing.assert_array_equal(rows[3].boxes, [[60, -4, 90, 20]])
    assert data.find_image(rows[0].image) == lists / "VG_100K_2" / "2.jpg"
    one = AMCVisualGenome(lists, cache_dir=tmp_path / "cache", val_images=1).load("val")
    assert [row.expression for row in one] == ["a red ball"]


def test_sizes_and_evaluation_images_from_image_data(lists: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="image_data"):
        AMCVisualGenome(lists, cache_dir=tmp_path / "cache", exclude_eval_images=True).load("train")
    write(lists / "image_data.json", image_data())
    (lists / "VG_100K_2" / "2.jpg").unlink()  # its size is known without it
    table = AMCVisualGenome(lists, cache_dir=tmp_path / "cache", exclude_eval_images=True).load("train")
    assert [row.expression for row in table] == ["a red ball"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"image": "../2.jpg", "caption": "x", "bbox": [[0, 0, 1, 1]]}, "leaves the image folder"),
        ({"image": "VG_100K/cat.jpg", "caption": "x", "bbox": [[0, 0, 1, 1]]}, "not a Visual Genome number"),
        ({"image": "VG_100K/7.jpg", "caption": [], "bbox": [[0, 0, 1, 1]]}, "without a caption"),
        ({"image": "VG_100K/7.jpg", "caption": "x", "bbox": [[0, 0, 1]]}, "list of four numbers"),
        ({"image": "VG_100K/7.jpg", "caption": "x", "bbox": [[0, 0, 1, "2"]]}, "not a finite number"),
        ({"image": "VG_100K/9.jpg", "caption": "x", "bbox": [[0, 0, 1, 2]]}, "image file is missing"),
        ({"image": "VG_100K/7.jpg", "bbox": [[0, 0, 1, 2]]}, "caption"),
    ],
)
def test_bad_entries_are_named_or_counted(entry: dict[str, Any], reason: str, lists: Path, tmp_path: Path) -> None:
    write(lists / "vg_attributes_spatial.json", [entry])
    with pytest.raises(UserError, match=reason) as error:
        AMCVisualGenome(lists, cache_dir=tmp_path / "cache").load("train")
    assert "vg_attributes_spatial.json: [0]" in str(error.value)
    table = AMCVisualGenome(lists, cache_dir=tmp_path / "cache", on_bad_sample="skip").load("train")
    assert len(table) == 4 and sum(table.info["skipped"].values()) == 1


def test_images_that_come_later_are_seen(lists: Path, tmp_path: Path) -> None:
    """What was left out for want of an image file must not stay left out."""
    write(lists / "vg_descriptions.json", [{"image": "VG_100K/9.jpg", "caption": ["x", "y"], "bbox": [[0, 0, 1, 2]]}])
    table = AMCVisualGenome(lists, cache_dir=tmp_path / "cache", on_bad_sample="skip").load("train")
    assert len(table) == 1 and sum(table.info["skipped"].values()) == 2
    PILImage.new("RGB", (8, 8)).save(lists / "VG_100K" / "9.jpg")
    assert len(AMCVisualGenome(lists, cache_dir=tmp_path / "cache").load("train")) == 3
