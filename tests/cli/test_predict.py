"""``vgbench predict``: several images and expressions at once, folders, photographs as they are shown."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vgbench.batches.grounding import check_expression
from vgbench.cli.main import main
from vgbench.core.errors import UserError

SHIPPED = ["method=simvg", "dataset=refshapes", "checkpoint=shipped", "trainer=cpu"]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scene = np.full((64, 96, 3), 200, np.uint8)
    scene[20:44, 10:34] = (220, 30, 30)
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(scene).save(folder / "a=1.png")
    Image.fromarray(scene[:, ::-1].copy()).save(folder / "b.png")
    (folder / "notes.txt").touch()
    return folder


def answers(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_several_images_and_expressions_in_one_call(photos, capsys):
    first, second = photos / "a=1.png", photos / "b.png"
    texts = ["the red square", "the left red square"]
    assert (
        main(["predict", str(first), "-e", texts[0], str(second), "-e", texts[1], *SHIPPED, "--json", "all.json"]) == 0
    )
    found = answers(capsys)
    assert [(Path(one["image"]).name, one["expression"]) for one in found[::2]] == [
        (path.name, text) for path in (first, second) for text in texts
    ]
    assert json.loads(Path("all.json").read_text()) == found
    assert len({one["picture"] for one in found}) == len(found) == 8
    assert all(Path(one["picture"]).is_file() for one in found)
    assert main(["predict", str(second), texts[1], *SHIPPED, "--no-pictures"]) == 0
    alone = answers(capsys)
    assert alone[0]["picture"] is None
    np.testing.assert_allclose(alone[0]["boxes"], found[6]["boxes"], atol=0.1)


def test_a_folder_and_images_that_cannot_be_read(photos, capsys):
    assert main(["predict", str(photos), "the red square", *SHIPPED, "--no-pictures"]) == 0
    assert [Path(one["image"]).name for one in answers(capsys)[::2]] == ["a=1.png", "b.png"]
    (photos / "c.png").write_bytes(b"nothing")
    assert main(["predict", str(photos), "the red square", *SHIPPED, "--no-pictures"]) == 2
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 4
    assert "1 of 3 images were left out, the first: " in told.err and "c.png" in told.err


def test_an_answer_that_cannot_be_drawn_is_told_all_the_same(photos, capsys):
    Path("b.grounded.png").mkdir()  # no picture can be written over a folder
    assert main(["predict", str(photos / "b.png"), "the red square", *SHIPPED, "method.branches=[token]"]) == 0
    told = capsys.readouterr()
    (answer,) = map(json.loads, told.out.splitlines())
    assert answer["picture"] is None and len(answer["boxes"]) == 1
    assert "give -o FILE" in told.err


@pytest.mark.parametrize("text", ["", "  ", "?!...", "\u200b", "—"])
def test_an_expression_without_a_word_is_one_line_for_all_methods(text, photos, capsys):
    for method in ("alvg", "simvg", "resvg", "vglaw", "amc"):
        assert main(["predict", str(photos / "b.png"), text, f"method={method}", "checkpoint=shipped"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("vgbench: error: the expression ") and error.count("\n") == 1


@pytest.mark.parametrize("text", ["left", "红色", "7", "🍎"])
def test_words_of_any_script_are_expressions(text):
    assert check_expression(text) == text
    with pytest.raises(UserError, match="is empty"):
        check_expression("")


def test_what_is_missing_is_said(photos, capsys):
    image = str(photos / "b.png")
    empty = photos / "empty"
    empty.mkdir()
    for arguments, problem in (
        (["predict", image, "checkpoint=shipped"], "no expression"),
        (["predict", "checkpoint=shipped", "-e", "a"], "no image"),
        (["predict", str(empty), "a", "checkpoint=shipped"], "a folder without images"),
        (["predict", image, image, "-e", "a", "-o", "out.png"], "give a folder"),
    ):
        assert main(arguments) == 2
        assert problem in capsys.readouterr().err
