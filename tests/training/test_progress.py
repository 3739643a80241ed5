"""What is seen of a run: lines in a log, a bar on a terminal that leaves nothing behind."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from vgbench.cli.main import main
from vgbench.core import console
from vgbench.training import progress
from vgbench.training.progress import Bar, LogLines

CENTRE = ["--plugin", str(Path(__file__).parents[1] / "examples" / "centre.py"), "method=centre"]
FEW = ["recipe.batch_size=2", "recipe.epochs=2", "+trainer.limit_train_batches=4", "eval.splits=[val]", "eval.limit=8"]
FEW += ["eval.examples=0", "eval.bootstrap=0", "eval.control=null", "eval.batch_size=2", "trainer=cpu", "workers=0"]
FEW += ["logger.every_n_steps=1"]


class Clock:
    """Stands still but for what a batch is said to take."""

    now = 1000.0

    def __init__(self) -> None:
        self.seconds = {"train": 20, "validation": 0, "test": 10}

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A batch of the training takes 20 s, one of a validation what the clock says, one of an evaluation 10 s."""
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    monkeypatch.setattr(progress, "time", clock)
    for kind in ("train", "validation", "test"):
        name = f"on_{kind}_batch_end"
        original = getattr(LogLines, name)

        def slow(*arguments: Any, original: Any = original, kind: str = kind, **options: Any) -> None:
            clock.now += clock.seconds[kind]
            original(*arguments, **options)

        monkeypatch.setattr(LogLines, name, slow)
    return clock


def command(few_scenes: Callable[[str], list[str]], folder: Path) -> list[str]:
    return ["run", *CENTRE, *few_scenes("train:12,val:2,testA:1,testB:1"), *FEW, f"run_dir={folder}"]


@pytest.mark.parametrize(("colour", "validation"), [("NO_COLOR", 0), ("FORCE_COLOR", 30)])
def test_a_log_has_a_line_every_half_minute_and_nothing_else(
    colour: str,
    validation: int,
    clock: Clock,
    few_scenes: Callable[[str], list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By hand: two batches of two samples in 40 s are 0.1 samples/s; six steps of 20 s are left after two."""
    monkeypatch.setenv(colour, "1")
    clock.seconds["validation"] = validation
    assert main(command(few_scenes, tmp_path / "run")) == 0
    output = capfd.readouterr()
    text = output.out + output.err
    lines = [re.sub(r"loss [\d.]+", "loss L", line) for line in output.out.splitlines() if line.startswith("epoch ")]
    if validation:  # its time is none of the rate, but of what is left
        assert len(lines) == 4 and all("loss L, 0.1 samples/s" in line for line in lines)
        assert re.search(r"^validation: batch 1 of \d+$", output.out, re.M)
    else:
        assert "validation:" not in output.out
    assert validation or lines == [
        "epoch 1/2, step 2/4, loss L, 0.1 samples/s, 0:02:00 left",
        "epoch 1/2, step 4/4, loss L, 0.1 samples/s, 0:01:20 left",
        "epoch 2/2, step 2/4, loss L, 0.1 samples/s, 0:00:40 left",
        "epoch 2/2, step 4/4, loss L, 0.1 samples/s, 0:00:00 left",
    ]
    assert "evaluation on val: batch 3 of 4" in output.out
    assert not re.search(r"[\x1b\r\x08━─]", text)  # no bar and no colour


@pytest.mark.parametrize(
    ("out", "error", "term", "kind"),
    [
        (True, True, "xterm", Bar),
        (True, False, "xterm", Bar),
        (False, True, "xterm", LogLines),  # vgbench run > log; vgbench run | tee log
        (False, False, "xterm", LogLines),
        (True, True, "dumb", LogLines),
    ],
)
def test_the_bar_goes_where_it_can_be_drawn(
    out: bool, error: bool, term: str, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: out)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: error)
    monkeypatch.setenv("TERM", term)
    assert type(progress.progress()) is kind


@pytest.mark.slow
def test_a_bar_without_colours_on_a_terminal_and_no_bar_in_a_file(
    few_scenes: Callable[[str], list[str]], tmp_path: Path
) -> None:
    """Standard output is a terminal, then a file beside a terminal."""
    words = [sys.executable, "-m", "vgbench.cli", *command(few_scenes, tmp_path / "run")]
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "100"}
    process = subprocess.Popen(words, stdout=follower, stderr=follower, stdin=follower, env=environment)
    os.close(follower)
    shown = b""
    with suppress(OSError):  # the end of a terminal
        while part := os.read(leader, 65536):
            shown += part
    assert process.wait() == 0
    text = shown.decode()
    assert "epoch 1/2 ━" in text and not re.search(r"\x1b\[(?:\d+;)*(?:[34]\d|9\d)[;m]", text)
    leader, follower = pty.openpty()
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([*words, f"run_dir={tmp_path}/two"], stdout=log, stderr=follower, env=environment, check=True)
    assert not re.search(r"[\x1b\r━]", (tmp_path / "log").read_text())
