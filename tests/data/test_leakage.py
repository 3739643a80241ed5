"""Training images that are evaluation images: counted across datasets, left out on demand, written into the record."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vgbench.cli.main import main
from vgbench.config.compose import compose
from vgbench.core.errors import UserError
from vgbench.data.builder import ImageRecord, TableBuilder, Targets
from vgbench.data.leakage import SeenImages, exclude_leaked
from vgbench.records import store
from vgbench.training import run

SIZES = dict.fromkeys(range(101, 109), (64, 48))
# RefCOCOg's google split: training and evaluation share images
SPLITS = {"train": [101, 102, 103, 104, 105, 106], "val": [105, 106, 107]}


def write_refcocog(root: Path) -> Path:
    folder = root / "refcocog"
    folder.mkdir(parents=True)
    images = [{"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg", "width": 64, "height": 48} for i in SIZES]
    square = {"bbox": [10, 10, 20, 20], "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]], "category_id": 1}
    annotations = [{"id": i, "image_id": i, **square} for i in SIZES]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cup"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    refs = []
    for split, numbers in SPLITS.items():
        for number in numbers:
            sentence = {"sent_id": len(refs), "sent": "red cup", "raw": "red cup"}
            ids = {"ref_id": len(refs), "ann_id": number, "image_id": number, "split": split}
            refs.append({**ids, "sentences": [sentence]})
    (folder / "refs(google).json").write_text(json.dumps(refs))
    pictures = root / "train2014"
    pictures.mkdir()
    for entry in images:
        Image.new("RGB", (64, 48), "red").save(pictures / entry["file_name"])
    return root


def table_of(images: list[int], source: str = "coco", **info: object):
    builder = TableBuilder("made", "train", "rec")
    for index, image in enumerate(images):
        place = ImageRecord(image, f"{image}.jpg", 9, 9, source)
        builder.add(str(index), place, "x", Targets([[0, 0, 5, 2]]), index)
    table = builder.table()
    table.info.update(info)
    return table


def test_visual_genome_images_are_known_by_their_coco_id() -> None:
    (clean,) = exclude_leaked(
        [table_of([7, 8, 8, 9], "vg")], [table_of([581857])], {("vg", 8): ("coco", 581857), ("vg", 9): ("coco", 3)}
    )
    assert clean.column("image_id").tolist() == [7, 9] and clean.info["excluded_images"] == 1


def test_further_training_data_is_cleaned_too() -> None:
    first, second = exclude_leaked([table_of([1, 2]), table_of([2, 3])], [table_of([2])])
    assert first.column("image_id").tolist() == [1] and second.column("image_id").tolist() == [3]
    with pytest.raises(UserError, match=r"painted from 1 images"):
        exclude_leaked([table_of([1]), table_of([9], "made", painted_from=["coco:2"])], [table_of([2])])


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(UserError, match=r"recipe\.exclude_leaked: every training image"):
        exclude_leaked([table_of([2, 2])], [table_of([1, 2])])


def test_leakage_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_refcocog(tmp_path)
    cache = f"dataset.cache_dir={tmp_path / 'cache'}"
    given = [f"data_root={root}", "split_by=google", cache]
    assert main(["data", "leakage", "train=refcocog", "eval=refcocog", *given]) == 0
    assert "refcocog val: 2 of 3 images are in refcocog train (2 training expressions)" in capsys.readouterr().out
    images = [{"image_id": 5, "coco_id": 107, "width": 9, "height": 9}]
    (root / "image_data.json").write_text(json.dumps(images))
    region = {"region_id": 1, "x": 0, "y": 0, "width": 5, "height": 5, "phrase": "cup", "image_id": 5}
    (root / "region_descriptions.json").write_text(json.dumps([{"id": 5, "regions": [region]}]))
    refs = json.loads((root / "refcocog" / "refs(google).json").read_text())
    refs[0]["split"] = "test"
    (root / "refcocog" / "refs(umd).json").write_text(json.dumps(refs))
    assert main(["data", "leakage", "train=vg", "eval=refcocog", f"data_root={root}", cache]) == 0
    said = capsys.readouterr().out
    assert "refcocog val: 1 of 3 images are in vg train" in said and "refcocog test: 0 of 1 images" in said


def train(root: Path, runs: Path, *more: str) -> None:
    """Train a very small ALVG on the google split below ``root``, into ``runs``."""
    overrides = [
        *("method=alvg", "dataset=refcocog", "recipe=alvg-refshapes", "weights=null", "trainer=cpu", "workers=0"),
        *("dataset.split_by=google", f"dataset.data_root={root}", f"dataset.cache_dir={runs}", f"runs={runs}"),
        *("method.encoder_layers=1", "method.encoder_width=16", "method.encoder_ffn=32", "method.width=16"),
        *("method.ffn=16", "method.query_ffn=16", "method.mask_channels=8", "recipe.batch_size=2", "recipe.epochs=1"),
        *("eval.examples=0", "eval.bootstrap=0", "eval.control=null"),
        *more,
    ]
    run.run(compose(overrides))


@pytest.mark.parametrize("exclude", [False, True])
def test_run_warns_or_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str], exclude: bool) -> None:
    train(write_refcocog(tmp_path / "data"), tmp_path, f"recipe.exclude_leaked={str(exclude).lower()}")
    entry = store.read(tmp_path / "alvg-refcocog")
    said = capsys.readouterr().out
    assert entry.training is not None
    (trained,) = entry.training.data
    assert (trained.excluded_images, trained.expressions) == ((2, 4) if exclude else (0, 6))
    assert {result.leaked_images for result in entry.results} == {0 if exclude else 2}
    assert ("WARNING" in said) == (not exclude) and ("left out of training" in said) == exclude
    assert np.isfinite([metric.value for result in entry.results for metric in result.metrics.values()]).all()


def test_what_an_earlier_stage_saw_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_refcocog(tmp_path / "data")
    train(root, tmp_path, f"run_dir={tmp_path / 'first'}")
    train(
        root, tmp_path, "recipe.exclude_leaked=true", f"run_dir={tmp_path / 'second'}", f"weights={tmp_path / 'first'}"
    )
    second = store.read(tmp_path / "second")
    assert second.training is not None
    assert [data.excluded_images for data in second.training.data] == [2]
    assert [(data.dataset, data.expressions) for data in second.training.earlier] == [("refcocog", 6)]
    assert {result.leaked_images for result in second.results} == {2}
    given = [f"checkpoint={tmp_path / 'second'}", f"data_root={root}", "dataset=refcocog", "split_by=google"]
    given += ["method=alvg", "eval.examples=0", "eval.bootstrap=0", "workers=0", f"run_dir={tmp_path / 'evaluated'}"]
    capsys.readouterr()
    assert main(["eval", *given, f"dataset.cache_dir={tmp_path}"]) == 0
    assert "WARNING refcocog val: 2 of its images are in the training data of this model" in capsys.readouterr().out
    assert {result.leaked_images for result in store.read(tmp_path / "evaluated").results} == {2}


def test_images_of_unknown_weights_are_not_called_clean(tmp_path: Path) -> None:
    seen = SeenImages.of(table_of([1, 2], painted_from=["coco:9"])) | SeenImages(np.array(["coco:5"]), complete=False)
    seen.save(tmp_path)
    again = SeenImages.read(tmp_path)
    assert again is not None and again.keys.tolist() == ["coco:1", "coco:2", "coco:5", "coco:9"]
    assert (again.among(table_of([3])), again.among(table_of([5, 9, 7]))) == (None, 2)
    assert SeenImages.of(table_of([1])).among(table_of([3])) == 0
    (tmp_path / "train_images.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"train_images\.parquet: not a list of training images"):
        SeenImages.read(tmp_path)


NAMES = ["COCO_train2014_000000000105.jpg", "COCO_train2014_000000000999.jpg"]
LISTS = {
    "names.txt": "\n".join(NAMES),
    "folders.txt": "\n".join(f"train2014/{name}" for name in NAMES),
    "names of 2017.txt": "000000000105.jpg\n\n000000000999.jpg\n",
    "table.csv": "image_id,caption\n105,a\n999,b\n",
    "instances.json": json.dumps({"images": [{"id": 105, "file_name": "000000000105.jpg"}, {"id": 999}]}),
    "captions.json": json.dumps([{"image": f"coco/{NAMES[0]}", "caption": ""}, {"image": NAMES[1], "caption": ""}]),
    "lines.jsonl": "\n".join(json.dumps({"image": name}) for name in NAMES),
    "numbers.json": "[105, 999]",
    "keys.json": json.dumps(dict.fromkeys(NAMES, 1)),
}


@pytest.mark.parametrize("name", LISTS)
def test_leakage_against_a_list_of_images(name, tmp_path, capsys, monkeypatch):
    write_refcocog(tmp_path / "data")
    monkeypatch.setenv("VGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(LISTS[name])
    arguments = ["data", "leakage", f"train={name}", "eval=refcocog", "split_by=google", "data_root=data"]
    assert main(arguments) == 0
    assert f"refcocog val: 1 of 3 images are among the 2 of {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("missing.txt", None, "cannot be read (No such file"),
        ("empty.txt", b"\n", "names no image"),
        ("weights.txt", b"\xff\xfe\x00", "is no text"),
        ("cut.json", b'[{"image": "a.jpg"}, {"ima', "is no JSON"),
        ("other.json", b'{"images": [{"width": 3}]}', "names no image"),
    ],
)
def test_what_is_no_list_of_images_is_one_line(name, content, problem, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    assert main(["data", "leakage", f"train={name}", "eval=refcocog", "data_root=."]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"vgbench: error: train={name}: ") and problem in error and error.count("\n") == 1


def test_a_number_of_another_collection_is_no_picture_of_coco(tmp_path, capsys, monkeypatch):
    write_refcocog(tmp_path / "data")
    monkeypatch.setenv("VGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("visual_genome.txt").write_text("VG_100K/105.jpg\nVG_100K/106.jpg\n")
    arguments = ["data", "leakage", "train=visual_genome.txt", "eval=refcocog", "split_by=google", "data_root=data"]
    assert main(arguments) == 0
    assert "val: 0 of 3 images" in capsys.readouterr().out
