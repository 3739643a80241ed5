"""What is written in a layout is read as it was."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from tests.data.samples import REFS, content, dump, merged_content, open_set, write_grefs, write_refer
from vgbench.cli.main import main
from vgbench.core.errors import UserError
from vgbench.data.convert import convert
from vgbench.data.table import AnnotationTable
from vgbench.datasets.grefcoco import GRefCOCO
from vgbench.datasets.mixed import Mixed, ReferIt
from vgbench.datasets.refcoco import RefCOCO


@pytest.mark.parametrize("layout", ["refer", "refer_json", "seqtr", "mdetr", "hub"])
def test_conversion_keeps_single_target_sets(tmp_path, layout):
    source = open_set(RefCOCO, write_refer(tmp_path / "a"))
    tables = {split: source.load(split) for split in RefCOCO.splits}
    files = convert(tables, layout, tmp_path / "b", "refcoco")
    assert all(path.is_file() for path in files)
    again = open_set(RefCOCO, tmp_path / "b", layout=layout.removesuffix("_json"))
    for split, table in tables.items():
        found = again.load(split)
        assert [(r.expression, r.masks, r.boxes.tolist()) for r in found] == [
            (r.expression, r.masks, r.boxes.tolist()) for r in table
        ]
        groups = len(np.unique(table.column("group")))
        if layout == "seqtr" and split != "train":
            groups = len(table)  # its evaluation entries hold one expression each
        assert len(np.unique(found.column("group"))) == groups
        if layout not in ("seqtr", "mdetr"):
            assert [(r.key, r.ann_ids) for r in found] == [(r.key, r.ann_ids) for r in table]


@pytest.mark.parametrize("layout", ["refer", "seqtr", "mdetr", "hub"])
def test_conversion_keeps_several_and_no_targets(tmp_path, layout):
    source = open_set(GRefCOCO, write_grefs(tmp_path / "a"))
    tables = {split: source.load(split) for split in GRefCOCO.splits}
    convert(tables, layout, tmp_path / "b", "grefcoco")
    again = open_set(GRefCOCO, tmp_path / "b", layout=layout)
    for split, table in tables.items():
        found = again.load(split)
        columns = 5 if split == "train" else 4  # the unit of drawing matters in training only
        both = [
            sorted((r.expression, r.masks, r.boxes.tolist(), r.ann_ids, r.group)[:columns] for r in rows)
            for rows in (found, table)
        ]
        assert both[0] == both[1]


def test_conversion_uses_the_names_that_the_layouts_have(tmp_path, capsys):
    """Files under other names are not found again, or are taken for another split author's."""

    def convert_by_command(dataset, root, layout, *more):
        arguments = [f"dataset={dataset}", f"data_root={root}", f"dataset.cache_dir={tmp_path / 'cache'}", *more]
        assert main(["data", "convert", *arguments, f"layout={layout}", f"out={tmp_path / layout}"]) == 0, layout
        return [str(Path(line).relative_to(tmp_path)) for line in capsys.readouterr().out.splitlines()]

    refs = [("test" if split == "testA" else split, *rest) for split, *rest in REFS if split != "testB"]
    referit = write_refer(tmp_path / "a", refs, "refclef", "refs(berkeley).p")
    assert convert_by_command("referit", referit, "refer") == [
        "refer/refclef/instances.json",
        "refer/refclef/refs(berkeley).p",
    ]
    assert convert_by_command("referit", referit, "seqtr") == ["seqtr/annotations/referitgame-berkeley/instances.json"]
    for layout in ("refer", "seqtr"):
        found = open_set(ReferIt, tmp_path / layout)
        assert all(content(found.load(split)) for split in ("train", "val", "test"))

    google = write_refer(tmp_path / "b", refs, name="refs(google).p")
    names = convert_by_command("refcoco", google, "mdetr", "split_by=google", "split=val")
    assert names == ["mdetr/finetune_refcoco-google_val.json"]

    dump(tmp_path / "c" / "annotations" / "mixed" / "instances.json", merged_content())
    arguments = ["split=train", "dataset.exclude_eval_images=false"]
    convert_by_command("mixed", tmp_path / "c", "seqtr", *arguments)
    again, table = (
        open_set(Mixed, root, exclude_eval_images=False).load("train") for root in (tmp_path / "seqtr", tmp_path / "c")
    )
    assert [(r.image, r.source) for r in again] == [(r.image, r.source) for r in table]
    assert len({r.source for r in table}) > 1


def test_conversion_refuses_what_a_layout_cannot_hold(tmp_path, capsys):
    rows = [
        {**vars(row), "masks": (), "polygons": (), "image_id": 5}
        for row in open_set(RefCOCO, write_refer(tmp_path / "a")).load("train")
    ]
    rows[-1]["image"] = "visual-genome/5.jpg"
    table = AnnotationTable.from_rows(rows, {"task": "rec"})
    for layout in ("refer", "coco", "hub"):
        with pytest.raises(UserError, match=r"two images have the id 5 \(COCO.*jpg, visual-genome/5.jpg\)"):
            convert({"train": table}, layout, tmp_path / "b", "mixed")
    rows[0]["boxes"] = [[0, 0, 5, 5], [10, 10, 20, 20]]
    for task in ("phrase", "rec"):  # Flickr30k's; AMC's lists
        several = AnnotationTable.from_rows(rows, {"task": task})
        with pytest.raises(UserError, match=r"val has expressions with several boxes, any of which .* seqtr layout"):
            convert({"val": several}, "seqtr", tmp_path / "b", "flickr30k")
    assert not (tmp_path / "b").exists()
    root = tmp_path / "a"
    before = (root / "refcoco" / "refs(unc).p").read_bytes()
    arguments = ["dataset=refcoco", f"data_root={root}", f"dataset.cache_dir={tmp_path / 'cache'}", "split=val"]
    assert main(["data", "convert", *arguments, "layout=refer", f"out={root}"]) == 2
    assert "instances.json: is a file of the dataset that is read; set out=" in capsys.readouterr().err
    assert (root / "refcoco" / "refs(unc).p").read_bytes() == before


def test_conversion_to_coco_json_is_read_by_pycocotools(tmp_path, capsys):
    source = open_set(GRefCOCO, write_grefs(tmp_path / "a"))
    (path,) = convert({"val": source.load("val")}, "coco", tmp_path, "grefcoco")
    coco = COCO(str(path))
    assert sorted(coco.getImgIds()) == [101, 103] and sorted(coco.getAnnIds()) == [11, 12, 31]
    assert coco.annToMask(coco.loadAnns([11])[0]).sum() == 700
    expressions = json.loads(path.read_text())["expressions"]
    assert [e["annotation_ids"] for e in expressions] == [[12, 11], [], [31]]
    with pytest.raises(UserError, match="no layout 'x'; there are: parquet"):
        convert({}, "x", tmp_path, "grefcoco")


def test_convert_of_a_dataset_without_split_authors_is_called_as_loaders_expect(tmp_path):
    table = open_set(RefCOCO, write_refer(tmp_path)).load("val")
    (path, *_) = convert({"val": table}, "seqtr", tmp_path / "out", "mine")
    assert path == tmp_path / "out" / "annotations" / "mine-unc" / "instances.json"
