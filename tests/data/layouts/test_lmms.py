"""lmms-lab's files: rows, and splits of two authors."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.samples import image_name, open_set
from vgbench.core.errors import UserError
from vgbench.datasets.refcoco import RefCOCO, RefCOCOg, RefCOCOPlus


def lmms_row(*texts):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "PNG")
    return {
        "question_id": "1",
        "image": {"bytes": buffer.getvalue(), "path": None},
        "answer": list(texts),
        "bbox": [1.5, 2.0, 10.0, 10.25],
        "segmentation": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        "iscrowd": 0,
        "file_name": "COCO_train2014_000000000101_55.jpg",
    }


def test_lmms_lab_files(tmp_path):
    row = lmms_row("the mug", "mug")
    for split in ("val", "test"):
        (tmp_path / "RefCOCOg" / "data").mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([row, {**row, "file_name": "../x.jpg"}])
        pq.write_table(table, tmp_path / "RefCOCOg" / "data" / f"{split}-00000-of-00001.parquet")
    table = open_set(RefCOCOg, tmp_path, on_bad_sample="skip").load("test")
    assert [row.expression for row in table] == ["the mug", "mug"] and sum(table.info["skipped"].values()) == 2
    first = table.row(0)
    assert (first.image, first.width, first.height, first.ann_ids) == (image_name(101), 64, 48, (55,))
    assert first.boxes.tolist() == [[1.5, 2, 11.5, 12.25]]
    for split_by in ("umd", "google"):
        with pytest.raises(UserError, match=r"mixes splits of two authors \(2,573 rows of umd, 5,000 of google\)"):
            open_set(RefCOCOg, tmp_path, split_by=split_by).load("val")


def test_lmms_lab_test_split_is_googles(tmp_path):
    folder = tmp_path / "RefCOCO" / "data"
    folder.mkdir(parents=True)
    for split, text in (("val", "mixed"), ("test", "google"), ("testA", "unc")):
        pq.write_table(pa.Table.from_pylist([lmms_row(text)]), folder / f"{split}-00000-of-00001.parquet")
    google = open_set(RefCOCO, tmp_path, split_by="google")
    assert [row.expression for row in google.load("test")] == ["google"]
    assert [row.expression for row in open_set(RefCOCO, tmp_path).load("testA")] == ["unc"]
    with pytest.raises(UserError, match=r"val-00000.*\(3,811 rows of unc, 5,000 of google\), and no column tells"):
        google.load("val")
    with pytest.raises(UserError, match="no annotations of split 'train'"):
        google.load("train")
    # the folder of one dataset is not taken for another's
    folder.parent.rename(tmp_path / "RefCOCOplus")
    with pytest.raises(UserError, match="none of the expected"):
        open_set(RefCOCO, tmp_path / "RefCOCOplus").load("testA")
    assert len(open_set(RefCOCOPlus, tmp_path / "RefCOCOplus").load("testA")) == 1
