"""Statistics of the expressions, as numbers, picture and command."""

import pytest
from PIL import Image

from tests.data.samples import REAL, table_of, write_refer
from vgbench.cli.main import main
from vgbench.core.errors import UserError
from vgbench.data.describe import figure, statistics, table_rows
from vgbench.datasets.refcoco import RefCOCO


def test_statistics():
    found = statistics(table_of([(1, "The left cup"), (1, "the left cup"), (1, "the left cup"), (2, "bowl")]))
    assert (found.images, found.expressions, found.words, found.vocabulary) == (2, 4, 2.5, 4)
    assert found.location == 0.75 and found.targets == {1: 4} and found.length == {1: 1, 3: 3}
    assert found.duplicates == 1 and found.ambiguous == 0 and found.same_category == 0
    assert found.area == (0.1,) * 5 and found.common[0] == ("the", 3)
    assert found.growth == ((1, 3), (2, 3), (3, 3), (4, 4)) and found.others == {0: 2}


def test_statistics_as_a_picture(tmp_path):
    found = {"train": statistics(table_of([(1, "The left cup"), (2, "bowl")]))}
    figure(found, tmp_path / "new" / "words.png")
    with Image.open(tmp_path / "new" / "words.png") as picture:
        assert picture.width > picture.height > 100
    with pytest.raises(UserError, match=r"words\.doc: not a kind of picture"):
        figure(found, tmp_path / "words.doc")


@pytest.mark.skipif(not REAL.is_dir(), reason="no real annotation files here")
def test_real_statistics(tmp_path):
    data = RefCOCO(REAL / "minigpt4_refcoco_eval", cache_dir=tmp_path)
    found = {split: statistics(data.load(split)) for split in ("val", "testA", "testB")}
    assert [round(s.words, 2) for s in found.values()] == [3.57, 3.43, 3.63]
    assert [s.duplicates for s in found.values()] == [566, 308, 301]
    assert [s.ambiguous for s in found.values()] == [3, 1, 9]
    assert any("10,834" in row for row in table_rows(found))
    figure(found, tmp_path / "figures" / "refcoco.png")
    assert Image.open(tmp_path / "figures" / "refcoco.png").size == (1350, 975)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("leakage train=refcoco eval=vg", "eval=vg: has no evaluation split, only train"),
        ("leakage train=ref-l4 eval=refcoco", "train=ref-l4: has no training split, only val, test"),
        ("stats dataset=refcoco split=train,val", "refs(unc).p: no ref of split 'val'; splits in the file: train"),
        ("browse dataset=vg out=page", "region_descriptions.json is not there"),
        ("stats dataset=refcoco --decode", "data stats: --decode is for data verify only"),
        ("build dataset=refcoco dataroot=x", "dataroot: unknown key; did you mean dataset.data_root?"),
        ("build dataset=refcoco bench=alvg", "bench: unknown key; "),
    ],
)
def test_what_was_asked_for_and_is_not_there(tmp_path, capsys, arguments, message):
    """One line and exit code 2; nothing printed and 0 looks like a result."""
    write_refer(tmp_path, [("train", [11], ["mug"])])
    given = [*arguments.split(), f"data_root={tmp_path}", f"dataset.cache_dir={tmp_path}"]
    assert main(["data", *given]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_stats_of_the_splits_that_are_there(tmp_path, capsys):
    write_refer(tmp_path, [("train", [11], ["mug"])])
    assert main(["data", "stats", "dataset=refcoco", f"data_root={tmp_path}", f"dataset.cache_dir={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "not read: val: " in said and "expressions" in said
