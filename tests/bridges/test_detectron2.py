"""Datasets in Detectron2's catalog: the dictionaries, and what is asked of the library (a stand-in for it)."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from pycocotools import mask as coco

from vgbench.bridges.detectron2 import dicts, register
from vgbench.cli.main import main
from vgbench.config.compose import compose
from vgbench.core.errors import UserError
from vgbench.datasets.refshapes import GRefShapes

IMAGES = {"train": 4, "val": 6, "testA": 4, "testB": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> GRefShapes:
    return GRefShapes(images=IMAGES, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def catalog(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Detectron2's catalog, or its stand-in."""
    held: dict = {}
    module = ModuleType("detectron2.data")
    metadata = SimpleNamespace(get=lambda name: SimpleNamespace(set=lambda **values: held.setdefault("meta", values)))
    vars(module).update(DatasetCatalog=SimpleNamespace(register=held.__setitem__), MetadataCatalog=metadata)
    monkeypatch.setitem(sys.modules, "detectron2", ModuleType("detectron2"))
    monkeypatch.setitem(sys.modules, "detectron2.data", module)
    return held


def test_every_expression_is_one_dictionary_with_its_targets(data: GRefShapes) -> None:
    table, made = data.load("val"), dicts(data, "val")
    assert [entry["expression"] for entry in made] == [row.expression for row in table]
    assert len({entry["image_id"] for entry in made}) == len(made)
    for row, entry in zip(table, made, strict=True):
        assert Path(entry["file_name"]).is_file()
        assert [annotation["bbox"] for annotation in entry["annotations"]] == row.boxes.tolist()
        for annotation in entry["annotations"]:
            x1, y1, width, height = coco.toBbox(annotation["segmentation"])  # the mask lies in the box
            left, top, right, bottom = annotation["bbox"]
            assert left - 1 <= x1 and top - 1 <= y1 and x1 + width <= right + 1 and y1 + height <= bottom + 1
    counts = {len(entry["annotations"]) for entry in made}
    assert 0 in counts and max(counts) > 1  # no target, several targets


def test_splits_are_registered_and_read_only_when_asked_for(data: GRefShapes, catalog: dict) -> None:
    names = register(data, ["val", "testA"])
    assert names == ["grefshapes_val", "grefshapes_testA"]
    assert len(catalog["grefshapes_testA"]()) == len(data.load("testA"))
    assert catalog["meta"]["thing_classes"] == ["target"]
    with pytest.raises(UserError, match="no split 'nowhere'"):
        register(data, ["nowhere"])


def test_the_written_module_registers_on_import(
    tmp_path: Path, catalog: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "register_refcocog.py"
    arguments = ["dataset=refcocog", f"data_root={tmp_path}", f"out={out}"]
    assert main(["data", "register-detectron2", *arguments]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert runpy.run_path(str(out))["NAMES"] == [f"refcocog_umd_{split}" for split in ("train", "val", "test")]
    assert "refcocog_umd_val" in catalog
    assert main(["data", "register-detectron2", "dataset=refcocog"]) == 2
    assert "out= is missing" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("detectron2") is not None, reason="Detectron2 is installed")
def test_without_the_library_one_line_says_so() -> None:
    with pytest.raises(UserError, match="Detectron2 cannot be imported"):
        register(compose_data())


def compose_data():
    from hydra.utils import instantiate

    return instantiate(compose(["dataset=refcocog"]).dataset)
