"""Runs under way, as their logs tell it, and the local address."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from vgbench.leaderboard.serve import progress_page, running


def run_folder(root: Path, name: str, log: str | None) -> Path:
    folder = root / name
    (folder / "logs").mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 1\n")
    if log is not None:
        (folder / "logs" / "metrics.csv").write_text(log)
    return folder


def test_runs_without_a_record_are_under_way(tmp_path: Path) -> None:
    log = "epoch,step,train/total,val/rec/prec@0.5\n0,9,2.5,\n0,9,,61.25\n1,19,1.75,\n1,2"  # the end is being written
    run_folder(tmp_path, "<b>one", log)
    (run_folder(tmp_path, "done", log) / "record.json").write_text("{}")
    run_folder(tmp_path, "begun", None)
    runs = {run.folder.name: run for run in running([tmp_path])}
    assert set(runs) == {"<b>one", "begun"}
    one = runs["<b>one"]
    assert (one.values["train/total"], one.values["val/rec/prec@0.5"]) == (1.75, 61.25) and runs["begun"].step is None
    page = progress_page(runs.values())
    assert "&lt;b&gt;one" in page and "<b>one" not in page and "61.25" in page and "script-src 'none'" in page


def test_the_address_shows_them(tmp_path: Path) -> None:
    run_folder(tmp_path, "one", "epoch,step,train/total\n0,9,2.5\n")
    command = [sys.executable, "-m", "vgbench.cli", "compare", str(tmp_path), "--serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            (address,) = re.findall(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())
            assert "2.5" in urllib.request.urlopen(address, timeout=60).read().decode()
            assert b"No run is finished yet" in urllib.request.urlopen(f"{address}leaderboard", timeout=60).read()
            try:
                urllib.request.urlopen(f"{address}../../etc/passwd", timeout=60)
                raise AssertionError("answered")
            except urllib.error.HTTPError as error:
                assert error.code == 404
        finally:
            server.send_signal(2)
            started = time.monotonic()
            server.wait(timeout=60)
    assert time.monotonic() - started < 60 and server.returncode == 130
