"""``vgbench doctor``: the files that methods and data sets lack, where they are published, and what takes them in."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from tests.data.samples import write_refer
from vgbench.cli import main
from vgbench.core.registry import datasets, methods


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["doctor", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_method_names_its_vocabulary_and_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "simvg"]) == 0
    words = capsys.readouterr().out
    store = "https://conversationhub.blob.core.windows.net/beit-share-public/beit3"  # as the README of BEiT-3 has it
    assert f"beit3.spm (vocabulary): {store}/sentencepiece/beit3.spm -> method.tokenizer=beit3.spm\n" in words
    assert f"{store}/pretraining/beit3_large_patch16_224.pth -> pretrained=beit3_large_patch16_224.pth\n" in words
    assert "versions:" not in words and "alvg" not in words and "datasets:" not in words


def test_files_that_go_together_are_given_as_a_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entries = {entry["file"]: entry for entry in report(capsys, "vglaw")["files"]["vglaw"]}
    assert entries["model_final_61ccd1.pkl"]["take_in"] == "pretrained=FOLDER"
    assert entries["vocab.txt"]["take_in"] == "method.tokenizer=hf://google-bert/bert-base-uncased/vocab.txt"
    start = tmp_path / "start"
    start.mkdir()
    for name in ("model_final_61ccd1.pkl", "vocab.txt"):
        (start / name).touch()
    entries = {entry["file"]: entry for entry in report(capsys, "vglaw", "--data-root", "start")["files"]["vglaw"]}
    assert entries["model_final_61ccd1.pkl"]["there"] == str(Path("start") / "model_final_61ccd1.pkl")
    assert entries["model_final_61ccd1.pkl"]["take_in"] == "pretrained=start"
    assert entries["vocab.txt"]["take_in"] == "method.tokenizer=start/vocab.txt"
    assert entries["bert-base-uncased"]["there"] is None


def test_a_data_set_names_its_files_and_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = f"vgbench data download dataset=ref-l4 data_root={tmp_path}"
    (tmp_path / "Ref-L4" / "images").mkdir(parents=True)
    content = report(capsys, "ref-l4", "--data-root", str(tmp_path))
    assert content["datasets"]["ref-l4"] == f"missing: {command}"
    missing = {entry["file"]: (entry["address"], entry["take_in"]) for entry in content["files"]["ref-l4"]}
    address = "https://huggingface.co/datasets/JierunChen/Ref-L4/resolve/main"
    assert missing == {  # the images are there
        f"Ref-L4/ref-l4-{split}.parquet": (f"{address}/ref-l4-{split}.parquet", command) for split in ("val", "test")
    }


def test_what_is_on_the_hub_alone_or_to_be_had_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    content = report(capsys, "groundingme", "flickr30k", "openref")
    entry, *_ = content["files"]["groundingme"]
    assert entry["file"].startswith("test-*.parquet")
    assert entry["address"] == "https://huggingface.co/datasets/lirang04/GroundingME"
    assert "data_root=hf://datasets/lirang04/GroundingME" in entry["take_in"]
    by_hand = [entry for entry in content["files"]["flickr30k"] if entry["use"] == "by hand"]
    assert [entry["file"] for entry in by_hand] == ["images"] and "https://shannon.cs" in by_hand[0]["address"]
    assert main(["doctor", "openref"]) == 0
    assert "fill in the form on https://huggingface.co/datasets/Wuzj/OpenRef" in capsys.readouterr().out


def test_data_that_are_there_are_said_to_be(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_refer(tmp_path)
    content = report(capsys, "refcoco", "--data-root", str(tmp_path))
    assert content["datasets"]["refcoco"].startswith("there; check it: vgbench data verify dataset=refcoco")
    assert "refcoco" not in content["files"]


def test_a_name_that_is_none_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "alvgg"]) == 2
    assert "no method and no data set is called alvgg; vgbench list names them" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(methods))
def test_every_address_is_one_and_every_option_exists(name: str) -> None:
    method = methods.load(name)
    arguments = {*method.file_options, *inspect.signature(method.__init__).parameters}
    for file in method.published_files:
        assert file.address.startswith("https://") and " " not in file.address
        option, _, argument = file.option.partition(".")
        assert file.option in ("pretrained", "checkpoint") or (option == "method" and argument in arguments)


def test_every_data_set_has_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    content = report(capsys)
    for name in datasets:
        if not datasets.load(name).embedded:  # type: ignore[attr-defined]
            assert all("http" in e["address"] or "data download" in e["address"] for e in content["files"][name]), name
