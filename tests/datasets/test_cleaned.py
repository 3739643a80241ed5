"""Cleaned evaluation sets, masks drawn anew, Ref-L4: in the exact form their authors publish them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco_mask

from vgbench.cli.main import main
from vgbench.core.errors import UserError
from vgbench.data.verify import verify
from vgbench.datasets.refcoco import RefCOCO
from vgbench.datasets.refcocom import RefCOCOM
from vgbench.datasets.refl4 import RefL4
from vgbench.datasets.refshapes import RefShapes

IMAGES = [{"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg", "width": 64, "height": 48} for i in (1, 2)]
BOXES = {11: [10.55, 10, 20.1, 20], 21: [0, 0, 30.25, 20.5]}
# split, object, sentences as typed
REFS: list[tuple[str, int, list[str]]] = [
    ("train", 11, ["mug"]),
    ("val", 11, ["The MUG, left!", "mug", "mug", "mug"]),
    ("val", 21, ["red one", "mug"]),
    ("testA", 21, ["top"]),
]


def write_refer(root: Path) -> Path:
    folder = root / "refcoco"
    folder.mkdir(parents=True)
    annotations = [{"id": a, "image_id": a // 10, "bbox": box, "category_id": 1} for a, box in BOXES.items()]
    content = {"images": IMAGES, "annotations": annotations, "categories": [{"id": 1, "name": "cup"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    refs, number = [], 0
    for ref_id, (split, ann, texts) in enumerate(REFS):
        sentences = []
        for text in texts:
            sentences.append({"sent_id": number, "raw": text, "sent": text.lower()})
            number += 1
        refs.append({"ref_id": ref_id, "ann_id": ann, "image_id": ann // 10, "split": split, "sentences": sentences})
    (folder / "refs(unc).json").write_text(json.dumps(refs))
    return root


def reviewed(split: str, wrong: list[tuple[int, str]]) -> dict[str, Any]:
    """MDETR's form: an image entry per expression, its caption in lower case and without punctuation."""
    images, annotations = [], []
    for part, ann, texts in REFS:
        for text in texts if part == split else []:
            number = len(images)
            caption = text.lower().replace(",", "").replace("!", "")
            picture = {"id": number, "file_name": IMAGES[ann // 10 - 1]["file_name"], "caption": caption}
            images.append({**picture, "original_id": ann // 10})
            bad = (ann, text) in wrong
            if bad:
                wrong.remove((ann, text))
            annotations.append({"id": number, "image_id": number, "bbox": BOXES[ann], "caption_quality": int(not bad)})
    return {"images": images, "annotations": annotations}


def write_review(root: Path, wrong: list[tuple[int, str]]) -> Path:
    folder = root / "Ref-L4" / "refcocos_annotation_reviewed"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "refcoco_val_reviewed.json"
    path.write_text(json.dumps(reviewed("val", wrong)))
    return path


def open_set(root: Path, **options: Any) -> RefCOCO:
    return RefCOCO(root, cache_dir=root / "cache", **options)


def texts(table: Any) -> list[tuple[int, str]]:
    return [(row.image_id, row.expression) for row in table]


def test_reviewed_expressions_are_left_out(tmp_path: Path) -> None:
    write_review(write_refer(tmp_path), [(11, "The MUG, left!"), (11, "mug"), (21, "mug")])
    whole, data = open_set(tmp_path), open_set(tmp_path, filter="ref-l4")
    table = data.load("val")
    # of three equal expressions one was found wrong: one is left out
    assert texts(table) == [(1, "mug"), (1, "mug"), (2, "red one")]
    assert table.info["filter"] == {"name": "ref-l4", "left_out": 3} and table.hash != whole.load("val").hash
    assert any(name.endswith("refcoco_val_reviewed.json") for name in table.info["sources"])
    assert (data.name, whole.name) == ("refcoco@ref-l4", "refcoco") and whole.splits["val"].expressions == 10_834
    assert data.splits["train"].expressions == 120_624 and texts(data.load("train")) == [(1, "mug")]


def test_filtered_counts_are_not_held_against_the_published_ones(tmp_path: Path) -> None:
    path = write_review(write_refer(tmp_path), [(11, "mug")])
    for split in ("testA", "testB"):
        path.with_name(f"refcoco_{split}_reviewed.json").write_text(json.dumps(reviewed(split, [])))
    report = verify(open_set(tmp_path, filter="ref-l4"), splits="val")
    assert not report.differences and report.splits[0].expressions == 5
    assert "no counts are published to compare with" in report.lines()[-1]


def test_reviews_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = write_review(write_refer(tmp_path), [(11, "mug")])
    with pytest.raises(UserError, match=r"refcoco_testA_reviewed\.json: is not there, so testA cannot be filtered"):
        open_set(tmp_path, filter="ref-l4").load("testA")
    for split in ("testA", "testB"):
        path.with_name(f"refcoco_{split}_reviewed.json").write_text(json.dumps(reviewed(split, [])))
    content = reviewed("val", [(11, "mug"), (21, "red one")])
    content["images"][0]["caption"], content["annotations"][0]["caption_quality"] = "something else", 0
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="1 of its 3 wrong expressions are not in val"):
        open_set(tmp_path, filter="ref-l4").load("val")
    with pytest.raises(UserError, match=r"no folder refcocos_annotation_reviewed in .*Ref-L4 release"):
        RefCOCO(None, filter="ref-l4")


def test_lists_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_refer(tmp_path)
    listing = tmp_path / "clean.json"

    def filtered(by: str, ids: list[Any]) -> list[tuple[int, str]]:
        listing.write_text(json.dumps({"name": "my-clean", "by": by, "exclude": {"val": ids}}))
        data = open_set(tmp_path, filter=str(listing))
        assert data.name == "refcoco@my-clean" and data.splits["testA"].expressions == 5_657
        return texts(data.load("val"))

    assert filtered("sent_id", [1, 2, 3, 4]) == [(2, "red one"), (2, "mug")]
    assert filtered("ref_id", [1]) == filtered("image_id", [1]) == filtered("ann_id", [11])
    assert filtered("key", ["1.1"]) == [(1, "mug"), (1, "mug"), (1, "mug"), (2, "red one"), (2, "mug")]
    with pytest.raises(UserError, match=r"1 of 2 sent_id of val are not in the data \(77\)"):
        filtered("sent_id", [1, 77])
    given = ["data", "build", "dataset=refcoco", f"data_root={tmp_path}", f"dataset.cache_dir={tmp_path}", "split=val"]
    listing.write_text(json.dumps({"name": "my-clean", "by": "sent_id", "exclude": {"val": [1]}}))
    assert main([*given, f"dataset.filter={listing}"]) == 0
    assert "refcoco@my-clean val: 5 expressions" in capsys.readouterr().out


def test_the_embedded_sets_take_lists_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"dataset.cache_dir={tmp_path}", "dataset.images={train: 2, val: 3, testA: 1, testB: 1}", "split=val"]
    whole = RefShapes(cache_dir=tmp_path, images={"train": 2, "val": 3, "testA": 1, "testB": 1})
    first = whole.load("val").row(0)
    listing = tmp_path / "clean.json"
    listing.write_text(json.dumps({"name": "clean", "by": "image_id", "exclude": {"val": [first.image_id]}}))
    assert main(["data", "verify", "dataset=refshapes", *given, f"dataset.filter={listing}", "--strict"]) == 0
    said = capsys.readouterr().out
    assert "RefShapes (clean)" in said and "refshapes@clean" in said and "images opened: 2" in said
    filtered = RefShapes(cache_dir=tmp_path, images={"train": 2, "val": 3, "testA": 1, "testB": 1}, filter=str(listing))
    assert texts(filtered.load("val")) == [part for part in texts(whole.load("val")) if part[0] != first.image_id]
    assert filtered.splits["train"].images == 2 and filtered.splits["val"].images is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not an object"),
        ('{"name": "x", "by": "sent_id"}', "no key 'exclude'"),
        ('{"name": "x", "by": "sent_id", "exclude": {"val": 3}}', "wrong type of 'val'"),
        ('{"name": "x", "by": "sent_id", "exclude": {"val": [[1]]}}', "unhashable"),
        ('{"name": "../x", "by": "sent_id", "exclude": {}}', "use lower-case letters"),
        ('{"name": "x", "by": "colour", "exclude": {}}', "by='colour' is not known"),
        ('{"name": "ref-l4", "by": "sent_id", "exclude": {}}', "that of a published review"),
        ('{"name": "x", "by": "sent_id", "exclude": {"testa": [1]}}', "no split 'testa'; there are: train, val, testA"),
    ],
)
def test_damaged_lists(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        RefCOCO(tmp_path, filter=str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="neither a JSON file that is there nor the name of a filter"):
        RefCOCO(tmp_path, filter="nothing")


def rle(height: int, width: int, box: tuple[int, int, int, int]) -> dict[str, Any]:
    mask = np.zeros((height, width), np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 1
    packed = coco_mask.encode(np.asfortranarray(mask))
    return {"counts": packed["counts"].decode(), "size": [height, width]}


def refcocom_rows() -> list[dict[str, Any]]:
    sample = {"image_id": 1, "category": "cup", "supercategory": "kitchen", "label": "x"}
    first = {**sample, "id": 5, "sentences": ["the mug", "mug left"], "bbox": [10.55, 10.0, 20.1, 20.0]}
    second = {**sample, "id": 6, "sentences": ["red one"], "bbox": [0.0, 0.0, 30.0, 20.0]}
    masks = rle(48, 64, (10, 10, 31, 30)), rle(48, 64, (0, 0, 30, 20))
    samples = [{**part, "mask": mask} for part, mask in zip((first, second), masks, strict=True)]
    return [{"image": {"bytes": b"", "path": None}, "image_id": 1, "file_name": "x.jpg", "samples": samples}]


REFCOCOM_TYPES = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image_id", pa.int64()),
        ("file_name", pa.string()),
        (
            "samples",
            pa.list_(
                pa.struct(
                    [
                        *(("id", pa.int64()), ("image_id", pa.int64()), ("category", pa.string())),
                        *(("supercategory", pa.string()), ("label", pa.string())),
                        *(("sentences", pa.list_(pa.string())), ("bbox", pa.list_(pa.float32()))),
                        ("mask", pa.struct([("counts", pa.string()), ("size", pa.list_(pa.int32()))])),
                    ]
                )
            ),
        ),
    ]
)


def write_refcocom(root: Path, rows: list[dict[str, Any]]) -> Path:
    folder = root / "refcoco-m" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, schema=REFCOCOM_TYPES)
    pq.write_table(table, folder / "validation-00000-of-00001.parquet")
    return root


def test_refcoco_m(tmp_path: Path) -> None:
    data = RefCOCOM(write_refcocom(tmp_path, refcocom_rows()), cache_dir=tmp_path)
    rows = list(data.load("val"))
    assert [row.expression for row in rows] == ["the mug", "mug left", "red one"]
    assert rows[0].boxes.tolist() == [[10.55, 10.0, 10.55 + 20.1, 30.0]]  # COCO's two decimals, not float32's
    assert rows[0].image == "COCO_train2014_000000000001.jpg" and (rows[0].width, rows[0].height) == (64, 48)
    assert coco_mask.area(rows[0].masks[0]) == 21 * 20 and rows[0].categories == ("cup",)
    assert rows[0].group == rows[1].group != rows[2].group
    damaged = refcocom_rows()
    damaged[0]["samples"][0]["mask"]["size"] = [48]
    write_refcocom(tmp_path, damaged)
    with pytest.raises(UserError, match=r"row 0, sample 0: RLE without a size"):
        data.load("val")
    table = RefCOCOM(tmp_path, cache_dir=tmp_path, on_bad_sample="skip").load("val")
    assert len(table) == 1 and table.info["skipped"] == {"RLE without a size [height, width]": 2}


def refl4_rows() -> list[dict[str, Any]]:
    objects = {
        **{"id": 1, "caption": "An antique camera.", "bbox": [580.6163330048, 179.4965209869, 93.5992431616, 112.1]},
        **{"bbox_area": 10492.6, "bbox_id": "o365_527361", "ori_category_id": "o365_64", "image_id": "o365_922765"},
        **{"height": 741, "width": 1024, "file_name": "objects365_v2_00922765.jpg", "is_rewrite": True, "split": "val"},
    }
    coco = {"id": 2, "image_id": "coco_581857", "file_name": "COCO_train2014_000000581857.jpg", "bbox_id": "coco_1"}
    return [objects, {**objects, **coco}, {**objects, "id": 3, "caption": "A camera, rewritten."}]


def test_ref_l4(tmp_path: Path) -> None:
    (tmp_path / "Ref-L4" / "images").mkdir(parents=True)
    path = tmp_path / "Ref-L4" / "ref-l4-val.parquet"
    pq.write_table(pa.Table.from_pylist(refl4_rows()), path)
    (tmp_path / "Ref-L4" / "images" / "objects365_v2_00922765.jpg").touch()
    data = RefL4(tmp_path, cache_dir=tmp_path)
    first, second, third = table = data.load("val")
    assert first.boxes.tolist() == [
        [580.6163330048, 179.4965209869, 580.6163330048 + 93.5992431616, 179.4965209869 + 112.1]
    ]
    assert [row.source for row in table] == ["objects365", "coco", "objects365"]
    assert (first.image_id, second.image_id, first.categories) == (922765, 581857, ("o365_64",))
    assert first.group == third.group != second.group and first.key == "1"
    assert data.find_image(first.image) == tmp_path / "Ref-L4" / "images" / first.image
    with pytest.raises(UserError, match=r"ref-l4-test\.parquet is not there"):
        data.load("test")
    pq.write_table(pa.Table.from_pylist([{**refl4_rows()[0], "file_name": "../../x.jpg"}]), path)
    with pytest.raises(UserError, match="leaves the image folder"):
        data.load("val")
