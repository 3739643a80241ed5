"""The command line as a user meets it: help, composed configuration, errors in one line with exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vgbench.cli import data
from vgbench.cli.main import COMMANDS, build_parser, main


def vgbench(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vgbench.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom vgbench.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', sorted({'torch', 'hydra', 'lightning', 'pandas', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout


@pytest.mark.parametrize("command", sorted(command.NAME for command in COMMANDS))
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"example: vgbench {command}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["run", "method=alvgg"],
            ["method=alvgg: there is no such method; did you mean alvg? there are: alvg,", "vglaw"],
        ),
        (["run", "method=3"], ["configuration: Config group override must be a string"]),
        (["run", "recipe.epocs=3"], ["recipe.epocs: unknown key; did you mean recipe.epochs?"]),
        (["data", "stats", "dataset=nowhere"], ["dataset=nowhere: there is no such dataset; there are:", "refcoco+, "]),
        (
            ["run", "train.exclude_leaked=true"],
            ["train.exclude_leaked: unknown key; did you mean recipe.exclude_leaked?"],
        ),
        (["bench", "batch_size=3"], ["batch_size: unknown key; did you mean bench.batch_size"]),
        (["run", "dataset=grefshapes", "some.thing=3"], ["some.thing: unknown key; --cfg job shows all keys"]),
        (["run", "recipe.lr=abc"], ["recipe.lr=abc", "number"]),
        (["run", "recipe.batch_size=0"], ["recipe.batch_size=0", "at least 1"]),
        (["bench", "bench.precision=[foo]"], ["bench.precision", "foo", "bf16-mixed"]),
        (["run", "dataset=refcoco", "method=alvg"], ["data_root"]),
        (["eval", "method=alvg", "dataset=refshapes"], ["checkpoint="]),
        (["eval", "method=alvg", "dataset=refshapes", "checkpoint=nowhere.pth"], ["nowhere.pth"]),
        (["data", "verify"], ["dataset=NAME"]),
        (["data", "verify", "dataset=refcoco", "data_root=/nowhere"], ["/nowhere"]),
        (["data", "verify", "dataset=refcoco", "layout=refer"], ["layout=", "dataset.layout="]),
        (["data", "list", "split=val"], ["data list", "split="]),
        (["conform", "nowhere"], ["nowhere/case.yaml"]),
        (["compare", "nowhere", "--pictures", "p"], ["--slices"]),
        (["new", "dataset", "mydata", "/dev/null/there"], ["/dev/null/there", "Not a directory"]),
        (["compare", "nowhere"], ["nowhere"]),
        (["compare"], ["no folder runs/ here", "--published"]),
        (["score", "nowhere.jsonl", "dataset=refshapes", "split=val"], ["nowhere.jsonl"]),
        (["predict", "nowhere.jpg", "red circle", "checkpoint=shipped"], ["nowhere.jpg"]),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(
    arguments: list[str], words: list[str], tmp_path: Path
) -> None:
    done = vgbench(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("vgbench: error:"), done.stderr
    for word in words:
        assert word in lines[0]
    assert not (tmp_path / "runs").exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = vgbench("--debug", "conform", "nowhere", cwd=tmp_path)
    assert "Traceback" in done.stderr and "case.yaml" in done.stderr


def test_cfg_job_prints_the_composed_configuration_with_its_recipe(tmp_path: Path) -> None:
    done = vgbench("run", "method=alvg", "dataset=refcoco+", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    import yaml

    config = yaml.safe_load(done.stdout)
    assert config["recipe"]["epochs"] == 30 and config["recipe"]["clip_norm"] == 0.15
    assert config["recipe"]["schedule"]["milestones"] == [25]


def test_list_names_methods_and_datasets(tmp_path: Path) -> None:
    done = vgbench("list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("alvg", "simvg", "refcoco+", "grefcoco", "refshapes", "alvg-refcoco"):
        assert word in done.stdout


@pytest.mark.parametrize("width", ["80", "120"])
def test_help_says_which_keys_there_are_and_fits_the_terminal(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    for words in [[name.NAME] for name in COMMANDS] + [["data", name] for name in data.actions()]:
        with pytest.raises(SystemExit):
            build_parser().parse_args([*words, "--help"])
        lines = capsys.readouterr().out.splitlines()
        wide = [line for line in lines if len(line) > int(width) and not line.startswith("  vgbench ")]
        assert not [line for line in wide if "{" not in line], words  # argparse does not break choices
        keys = next((line for line in lines if line.startswith("  key=value")), "  key=value   x")
        assert keys.split()[1:], words  # what to type is said for every command that takes keys
