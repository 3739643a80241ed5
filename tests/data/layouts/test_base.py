"""Which files a layout takes, and what is said where there are none."""

import pytest

from tests.data.samples import image_name, open_set, write_refer
from vgbench.cli.main import main
from vgbench.core.errors import UserError
from vgbench.datasets.refcoco import RefCOCO, RefCOCOPlus


def test_folder_of_another_dataset_is_not_taken(tmp_path):
    write_refer(tmp_path)
    assert len(open_set(RefCOCO, tmp_path / "refcoco").load("train")) == 3
    with pytest.raises(UserError, match=r"refcoco\+/"):
        open_set(RefCOCOPlus, tmp_path / "refcoco").load("train")


def test_missing_files_say_what_is_expected(tmp_path):
    for root, why in ((None, "no data_root given"), (tmp_path / "x", "no such folder"), (tmp_path, "none of the")):
        with pytest.raises(UserError) as error:
            RefCOCO(root, cache_dir=tmp_path / "cache").load("val")
        text = str(error.value)
        assert why in text and "data_root=" in text and "\n" not in text
        assert "refcoco/{refs(unc).p" in text and "vgbench data list dataset=refcoco" in text
        assert len(text) - len(str(root or "")) < 200  # two lines of a terminal and a half, however many layouts
    with pytest.raises(UserError, match="image_root="):
        open_set(RefCOCO, write_refer(tmp_path)).image_path(image_name(101))


def test_a_folder_called_as_another_dataset_is_not_read(tmp_path):
    """The rule holds for datasets that somebody else registers: their names come from their class."""
    from vgbench.data.layouts.base import dataset_folders

    assert {"refcoco", "refcoco+", "refclef", "refcocoplus-unc", "gref_umd", "RefCOCOg", "mixed"} <= dataset_folders()
    (tmp_path / "refcoco+").mkdir()
    write_refer(tmp_path)
    for path in (tmp_path / "refcoco").iterdir():
        path.rename(tmp_path / "refcoco+" / path.name)
    with pytest.raises(UserError, match="none of the expected annotation files"):
        open_set(RefCOCO, tmp_path / "refcoco+").load("val")
    (tmp_path / "refcoco+").rename(tmp_path / "mine")
    assert len(open_set(RefCOCO, tmp_path / "mine").load("val"))


def test_the_files_of_a_dataset_are_listed_by_layout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "dataset=refcoco"]) == 0
    title, *layouts = capsys.readouterr().out.splitlines()
    assert title == "RefCOCO (dataset=refcoco): in data_root=FOLDER, one of"
    assert "  annotations/refcoco-unc/instances.json" in layouts and len(layouts) > 10
