"""A configuration in a file is data: whatever it names, nothing but registered classes with plain values is called.

Every hostile node would make a file, the canary; each is brought to every door that reads a node out of a file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vgbench.cli.main import main
from vgbench.config.stored import buildable_method, make_dataset, stored_config, stored_dataset, stored_method
from vgbench.core.errors import UserError
from vgbench.core.registry import methods

ALVG = "vgbench.methods.alvg.ALVG"
REFSHAPES = "vgbench.datasets.refshapes.RefShapes"


def touch(canary: Path) -> dict[str, Any]:
    return {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": [str(canary)]}}


Hostile = Callable[[str, Path], dict[str, Any]]
HOSTILE: dict[str, Hostile] = {
    "a callable at the top": lambda rightful, canary: touch(canary),
    "one in an argument": lambda rightful, canary: {"_target_": rightful, "tokenizer": touch(canary)},
    "one in a list": lambda rightful, canary: {"_target_": rightful, "branches": [[{"x": touch(canary)}]]},
    "positional arguments": lambda rightful, canary: {"_target_": rightful, "_args_": [touch(canary)]},
    "partial": lambda rightful, canary: {"_target_": rightful, "_partial_": True},
    "conversion": lambda rightful, canary: {"_target_": rightful, "_convert_": "all"},
    "an interpolation": lambda rightful, canary: {"_target_": rightful, "tokenizer": "${oc.env:HOME}"},
    "one in a key's value": lambda rightful, canary: {"_target_": rightful, "bert": {"a": ["x${oc.env:HOME}"]}},
    "no name": lambda rightful, canary: {"_target_": ["pathlib.Path.touch"], "self": str(canary)},
    "a module that runs": lambda rightful, canary: {"_target_": "canary_module.Method"},
    "a class beside the registered one": lambda rightful, canary: {"_target_": rightful.rpartition(".")[0] + ".Batch"},
    "a module of the suite": lambda rightful, canary: {"_target_": "vgbench.cli.main.main", "argv": ["list"]},
}


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that must not come into being; ``canary_module`` makes it when it is imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "canary_module.py").write_text(f"open({str(tmp_path / 'EXECUTED')!r}, 'w').close()")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    return tmp_path / "EXECUTED"


def refused(arguments: list[str], file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert file in message and len(message.splitlines()) == 1


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_model_calls_nothing(hostile: Hostile, canary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metadata = {"vgbench": json.dumps({"method": hostile(ALVG, canary)})}
    save_file({"a": torch.zeros(1)}, "model.safetensors", metadata=metadata)
    refused(["export", "model.safetensors", "out.safetensors"], "model.safetensors", capsys)
    Image.new("RGB", (32, 32)).save("a.jpg")
    refused(["predict", "a.jpg", "dog", "method=alvg", "checkpoint=model.safetensors"], "model.safetensors", capsys)
    refused(["eval", "method=alvg", "dataset=refshapes", "checkpoint=model.safetensors"], "model.safetensors", capsys)
    assert not canary.exists()


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_records_call_nothing(hostile: Hostile, canary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    committed = min(Path(str(files("vgbench.leaderboards"))).rglob("record.json"))
    for name in "ab":
        record = json.loads(committed.read_text())
        record["config"]["dataset"] = hostile(REFSHAPES, canary)
        Path(name).mkdir()
        Path(name, "record.json").write_text(json.dumps(record))
    refused(["compare", "a", "b", "--slices"], "a/record.json", capsys)
    assert not canary.exists()


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_run_folder_is_compared_and_not_called(hostile: Hostile, canary: Path) -> None:
    Path("config.yaml").write_text(
        json.dumps({"method": hostile(ALVG, canary), "dataset": hostile(REFSHAPES, canary), "seed": "${oc.env:HOME}"})
    )
    assert stored_config(Path("config.yaml"))["seed"] == "${oc.env:HOME}"
    assert not canary.exists()


@pytest.mark.parametrize(
    "text",
    ["", "{", "1", "[]", "method: 1\ndataset: {}", "method: {}", "a: !!python/object/apply:os.getcwd []", "\0", "a: ${",
     "method: {}\ndataset: {1: a, b: c}", "method: {a: &x [1]}\ndataset: {a: *x}", "[" * 3000],
)  # fmt: skip
def test_a_damaged_configuration_of_a_run_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml: not a readable configuration"):
        stored_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "text", ["{", "1", '"x"', "[]", "{}", "null", '{"method": null}', '{"method": "x"}', "[" * 9999]
)
def test_damaged_metadata_is_refused_by_name(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, file, metadata={"vgbench": text})
    refused(["export", str(file), str(tmp_path / "out.safetensors")], str(file), capsys)


@pytest.mark.parametrize("options", [{"no_such_option": 1}, {"image_size": "x"}, {"width": -3}, {"tokenizer": "???"}])
def test_values_that_a_method_cannot_take_are_refused_by_name(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, file, metadata={"vgbench": json.dumps({"method": {"_target_": ALVG, **options}})})
    refused(["export", str(file), str(tmp_path / "out.safetensors")], str(file), capsys)


def test_registered_classes_with_plain_values_are_what_a_file_may_name() -> None:
    plain = {"_target_": ALVG, "a": None, "b": [1, 2.5, {"c": True}], "d": "text of $5"}
    assert stored_method(plain, "m") == plain
    node = {"_target_": REFSHAPES, "data_root": "x"}
    assert stored_dataset(node, "r") == node
    with pytest.raises(UserError, match=r"^r: .*not a registered dataset"):
        stored_dataset(plain, "r")
    assert make_dataset({"_target_": REFSHAPES}, "r").name == "refshapes"


def test_a_subclass_must_be_registered_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from vgbench.methods.alvg import ALVG as registered

    class Other(registered):
        name = "other"

    monkeypatch.setattr(sys.modules[__name__], "Other", Other, raising=False)
    Other.__qualname__ = "Other"
    node = {"_target_": f"{__name__}.Other"}
    with pytest.raises(UserError, match="not a registered method"):
        stored_method(node, "m")
    monkeypatch.setitem(methods._added, "other", Other)
    assert stored_method(node, "m") == node


def test_a_file_does_not_say_which_program_is_run() -> None:
    node = {"_target_": "vgbench.methods.mmdet.MMDet", "config": "beside_the_model.py", "top": 5}
    assert buildable_method(node, "m") == {"_target_": node["_target_"], "top": 5}
