"""Verification finds what is wrong with files, and nothing else."""

import io

import pytest
from PIL import Image, features

from tests.data.samples import (
    IMAGES,
    REAL,
    dump,
    image_name,
    instances,
    open_set,
    put_images,
    write_grefs,
    write_refer,
)
from vgbench.data.verify import verify
from vgbench.datasets.grefcoco import GRefCOCO
from vgbench.datasets.refcoco import RefCOCO, RefCOCOg, RefCOCOPlus
from vgbench.datasets.refcocos import RefCOCOS


def test_verify_finds_what_is_wrong(tmp_path):
    write_refer(tmp_path)
    folder = tmp_path / "images" / "train2014"
    put_images(folder)
    Image.new("RGB", (9, 9)).save(folder / image_name(101))
    whole = (folder / image_name(102)).read_bytes()
    (folder / image_name(102)).write_bytes(whole[: len(whole) // 2])
    (folder / image_name(103)).unlink()
    report = verify(open_set(RefCOCO, tmp_path), decode=True)
    text = "\n".join(report.lines())
    assert not report.ok
    assert report.missing_images == [image_name(103)] and "MISSING 1 image files" in text
    assert "9 x 9, annotations say 64 x 48" in text and f"{image_name(102)}: not a readable image" in text
    assert "testA and testB share 1 images" in text
    assert "testA: 1 target(s) have a box that leaves the image" in text
    train = report.splits[0]
    assert (train.images, train.refs, train.expressions, train.masks) == (1, 2, 3, 3)
    assert "train: 3 expressions, published 120,624 (-120,621)" in text
    assert "note: papers give 142,209 expressions" in text


def test_verify_decodes_what_is_called_jpg_and_is_not(tmp_path):
    """Damaged AVIF is a RuntimeError in Pillow."""
    write_refer(tmp_path)
    put_images(tmp_path / "images" / "train2014")
    whole = io.BytesIO()
    if not features.check("avif"):  # Pillow before 11.3, or built without it
        pytest.skip("a Pillow without AVIF")
    Image.new("RGB", IMAGES[102]).save(whole, "AVIF")
    content = whole.getvalue()
    start = content.find(b"mdat") + 4
    path = tmp_path / "images" / "train2014" / image_name(102)
    path.write_bytes(content[:start] + b"\xff" * (len(content) - start))
    report = verify(open_set(RefCOCO, tmp_path), decode=True, splits="val")
    assert [line.split(" (")[0] for line in report.problems] == [f"{path}: not a readable image"]


def test_verify_compares_masks_with_boxes_and_lists_skipped(tmp_path):
    damaged = instances()
    damaged["annotations"][0]["bbox"] = [40, 30, 5, 5]
    damaged["annotations"][1]["bbox"] = [0, 0, 0, 0]
    write_refer(tmp_path)
    dump(tmp_path / "refcoco" / "instances.json", damaged)
    problems = "\n".join(verify(open_set(RefCOCO, tmp_path), splits="train").problems)
    assert "1 target(s) have a mask that does not fit the box" in problems
    assert "1 expression(s) cannot be used" in problems and "box without area" in problems


def test_verify_accepts_what_is_as_published(tmp_path):
    rows = [
        {"image": f"val2017/{i:012d}.jpg", "height": 4, "width": 4, "normal_caption": "a", "solution": None}
        for i in range(506)
    ]
    dump(tmp_path / "refcocos_test.json", rows)
    put_images(tmp_path / "val2017", lambda i: f"{i:012d}.jpg", dict.fromkeys(range(506), (4, 4)))
    steps = []
    report = verify(open_set(RefCOCOS, tmp_path), progress=lambda done, total: steps.append((done, total)))
    assert report.ok, report.lines()
    assert report.checked_images == 506 and steps[-1] == (506, 506)


@pytest.mark.skipif(not REAL.is_dir(), reason="no real annotation files here")
@pytest.mark.parametrize("kind", [RefCOCO, RefCOCOPlus, RefCOCOg])
def test_real_evaluation_files_have_the_published_counts(tmp_path, kind):
    splits = [split for split in kind.splits if split != "train"]
    report = verify(kind(REAL / "minigpt4_refcoco_eval", cache_dir=tmp_path), splits=splits)
    assert not report.differences and not report.problems and [s.split for s in report.splits] == splits


def test_published_counts_that_could_not_be_compared_are_not_called_missing(tmp_path):
    write_refer(tmp_path)
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(b"\0" * 100)
    last = verify(open_set(RefCOCO, tmp_path), splits="val").lines()[-1]
    assert last.startswith("NOT OK: the published counts of val could not be compared")
    (tmp_path / "elsewhere").mkdir()
    last = verify(open_set(RefCOCO, tmp_path / "elsewhere"), splits="val,testA").lines()[-1]
    assert last.startswith("NOT OK: the published counts of val, testA could not be compared")


def test_grefcoco_is_compared_as_a_whole(tmp_path):
    report = verify(open_set(GRefCOCO, write_grefs(tmp_path)))
    total = sum(part.expressions for part in report.splits)
    assert any("259,859" in note and "278,232" in note and "challenge" in note for note in report.notes)
    expected = f"all splits together: {total} expressions; the released file 259,859 ({total - 259_859:+,}), the paper"
    assert any(note.startswith(expected) for note in report.notes)
    assert "published for all splits together only" in report.lines()[-1]
