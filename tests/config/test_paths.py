"""Whatever a path is called, it is a value of the keys that hold paths, not an expression of Hydra's."""

import os

import pytest

from vgbench.cli.main import main
from vgbench.config.compose import compose
from vgbench.config.paths import quoted, with_quoted_paths

NAMES = (
    "epoch=29.pth",
    "best (1).pth",
    "Jürgen/m.pth",
    "图像/m.pth",
    "a,b.pth",
    "a b.pth",
    "it's.pth",
    'say "a".pth',
    "[1].pth",
    "{1}.pth",
    "a:b#c%d&e;f!.pth",
    "back\\slash.pth",
    "end\\",
    "~tilde.pth",
    "*?.pth",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["checkpoint", "data_root", "method.tokenizer", "recipe.extra_train"])
def test_a_path_arrives_as_it_was_typed(key, name):
    config = compose(["method=resvg", f"{key}={name}"])
    value = config.dataset.data_root if key == "data_root" else config
    for part in key.split(".") if key != "data_root" else ():
        value = value[part]
    assert value == name


def test_of_values_that_are_hydras_nothing_changes():
    for value in ("'a b'", '"a b"', "${runs}/x", "null", "plain/path-1.pth", ""):
        assert with_quoted_paths([f"checkpoint={value}"]) == [f"checkpoint={value}"]
    assert with_quoted_paths(["recipe.lr=1e-4", "label=a b"]) == ["recipe.lr=1e-4", "label=a b"]
    priors = compose(["method=resvg", "method.priors=[a b.parquet,Jürgen.parquet]"]).method.priors
    assert list(priors) == ["a b.parquet", "Jürgen.parquet"]


def test_a_sweep_goes_over_paths_and_a_comma_in_a_name_is_no_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_quoted_paths(["checkpoint=ä,b"], sweep=True) == ["checkpoint='ä',b"]
    assert with_quoted_paths(["checkpoint=ä,b"]) == ["checkpoint='ä,b'"]
    (tmp_path / "ä,b").touch()
    assert with_quoted_paths(["checkpoint=ä,b"], sweep=True) == ["checkpoint='ä,b'"]


def test_interpolations_in_a_quoted_path_stay_text():
    assert compose([f"checkpoint={quoted('a${seed}b')}"]).checkpoint == "a${seed}b"


def test_an_argument_that_is_no_text_is_one_line(capsys):
    broken = os.fsdecode(b"a\xffb")
    for arguments in (["predict", "a.png", broken], ["list", broken], ["eval", f"data_root={broken}"]):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "UTF-8" in error
