"""What makes the command line easy: names that are nearly right, machines' output, a run in seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vgbench.cli.completion import overrides
from vgbench.cli.list import LISTS
from vgbench.cli.main import main
from vgbench.core.console import Pace, text_table

SMALL = ["++dataset.images={train: 4, val: 4, testA: 3, testB: 3}"]


def test_commands_have_a_did_you_mean(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lst"]) == 2
    assert "no command 'lst'; did you mean 'list'?" in capsys.readouterr().err


def test_a_bare_run_says_what_to_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run"]) == 2
    words = capsys.readouterr().err
    assert "method=alvg|" in words and "vgbench demo" in words and not list(tmp_path.iterdir())


def test_missing_arguments_do_not_name_what_may_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict"]) == 2
    words = capsys.readouterr().err
    assert "no image and no expression" in words and "key=value" not in words


def test_help_of_a_data_action_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", "verify", "--help"])
    words = capsys.readouterr().out
    assert "--decode" in words and "--yes" not in words and "Counts against the published ones" in words
    assert main(["data", "verify", "dataset=refshapes", "--yes"]) == 2
    assert "--yes is for data download only" in capsys.readouterr().err


def test_lists_and_doctor_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert "alvg" in content["methods"] and content["datasets"]["refshapes"]["embedded"]
    assert "giou" in content["metrics"]["rec"] and "qwen3-vl" in content["styles"]
    assert "qwen2_5_vl" in content["protocols"]["qwen2.5-vl"]["models"]
    assert "typos" in content["probes"]["words"]["kinds"]
    for what in LISTS:
        assert main(["list", what, "--json"]) == 0
        assert list(json.loads(capsys.readouterr().out)) == [what]
    assert main(["doctor", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["versions"]["python"] and "shipped" in content["methods"]["alvg"]
    assert "vgbench data download" in content["datasets"]["refcoco"]
    assert main(["compare", "--committed", "--json", "--all-metrics"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]


def test_verify_and_score_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["dataset=refshapes", *SMALL, f"dataset.cache_dir={tmp_path}"]
    assert main(["data", "verify", *data, "split=val", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"]
    assert main(["score", "trivial", *data, "split=val", "eval.bootstrap=0", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["expressions"] > 0


def test_answers_of_a_model_are_pointed_to_their_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"expression": "red circle", "response": "[1, 2, 3, 4]"}\n')
    data = ["dataset=refshapes", *SMALL, f"dataset.cache_dir={tmp_path}"]
    assert main(["score", str(file), *data, "split=val"]) == 2
    words = capsys.readouterr().err
    assert "style= or format=" in words and words.count("\n") == 1


def test_completion_knows_names_and_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"method=alvg", "dataset=refcoco", "smoke=true"} <= set(overrides("meth"))
    assert "recipe=alvg-refcoco" in overrides("recipe=a")
    assert main(["completion", "bash"]) == 0
    assert "vgbench" in capsys.readouterr().out


def test_lines_of_a_log_come_in_time() -> None:
    assert Pace(0).due() and not Pace(100).due()


def test_text_table_aligns_numbers_right() -> None:
    assert text_table([["a", "1.5"], ["bb", "10"]], ["", "x"]) == "      x\n--  ---\na   1.5\nbb   10"


def test_a_smoke_run_goes_through_everything_and_is_no_row(tmp_path: Path) -> None:
    def vgbench(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vgbench.cli", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    options = ["method=alvg", "dataset=refshapes", "trainer=cpu", "workers=0", f"dataset.cache_dir={tmp_path}"]
    done = vgbench("run", *options, "smoke=true", "eval.splits=[val]", "eval.control=null")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "smoke-alvg-refshapes"
    record = json.loads((folder / "record.json").read_text())
    assert record["training"]["steps"] == 3 and "smoke run" in record["notes"][0]
    assert (folder / "predictions" / "val.parquet").is_file() and "numbers mean nothing" in done.stdout
    compared = vgbench("compare", "--committed")
    assert "smoke" not in compared.stdout and "1 smoke runs are left out" in compared.stderr
