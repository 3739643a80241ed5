"""``vgbench bench suite=NAME``: many measurements in a row, each written down as soon as it is made."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from vgbench.bench import measure
from vgbench.bench.combination import Combination, device_name, measured
from vgbench.bench.loading import loading_rate
from vgbench.config.compose import compose
from vgbench.config.paths import quoted
from vgbench.core.processes import child_environment
from vgbench.records import store
from vgbench.training.speed import set_float32

__all__ = ["run_suite"]

SHOWN = {
    "train samples/s": "train {:.0f}/s",
    "inference samples/s": "inference {:.0f}/s",
    "share of peak": "{:.1%} of peak",
    "step s": "step {:.4f} s",
    "host s": "host {:.4f} s",
    "launches per step": "{:.0f} launches",
    "first step s": "first step {:.1f} s",
    "peak memory GiB": "{:.1f} GiB",
}


class Report:
    """Lines of JSON in a file, and short ones on the screen."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.started = time.perf_counter()

    def add(self, kind: str, what: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        line = {"kind": kind, "at s": round(time.perf_counter() - self.started, 1), **what, **result}
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        name = ", ".join(str(value) for value in what.values() if value not in ([], {}))
        figures = [form.format(result[key]) for key, form in SHOWN.items() if result.get(key) is not None]
        rest = [str(result[key]) for key in ("device", "rates", "error", "skipped", "message") if key in result]
        print(f"{line['at s']:6.1f} s  {kind}: {name}: {', '.join(figures + rest)}", flush=True)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started


def run_suite(config: DictConfig) -> None:
    """Measure the items of ``config.suite`` in their order, as far as its time allows; then its runs, end to end."""
    GlobalHydra.instance().clear()  # the command's own configuration is composed; those of the items come now
    suite: Any = OmegaConf.to_container(config.suite, resolve=True)
    device = measure.device_of(config.trainer.accelerator)
    report = Report(Path(config.out) if config.out else None)
    items = [{**suite["defaults_of_items"], **item} for item in suite["items"]]
    peaks = {}
    for precision in dict.fromkeys(item["precision"] for item in items):
        set_float32(precision)
        peaks[precision] = measure.matmul_rate(device, measure.dtype_of(precision), suite.get("matrix"))
    rates = {precision: f"{rate / 1e12:.0f} TFLOP/s" for precision, rate in peaks.items()}
    report.add("machine", {"torch": torch.__version__}, {"device": device_name(device), "rates": rates})
    for item in items:
        what = {key: item[key] for key in ("method", "precision", "compile", "batch", "parts", "overrides")}
        if report.seconds + item["seconds"] > suite["seconds"]:
            report.add("bench", what, {"skipped": "no time left"})
            continue
        report.add("bench", what, _item(item, config, device, peaks[item["precision"]]))
    for name in dict.fromkeys(item["method"] for item in items):
        plain = compose([f"method={name}", *config.suite.overrides], "bench")
        rate = loading_rate(Combination(plain, "32-true", False, {}, 1).build(device), (480, 640), 1.0)
        report.add("loader", {"method": name}, {"samples/s per worker": rate, "message": f"{rate:.0f}/s per worker"})
    for item in suite["runs"]:
        what = {key: item[key] for key in ("method", "overrides")}
        if report.seconds + item["seconds"] > suite["seconds"]:
            report.add("run", what, {"skipped": "no time left"})
        else:
            report.add("run", what, end_to_end(item, suite))


def _item(item: Mapping[str, Any], config: DictConfig, device: torch.device, peak: float) -> dict[str, Any]:
    accelerator = f"trainer.accelerator={config.trainer.accelerator}"
    composed = compose([f"method={item['method']}", accelerator, *config.suite.overrides, *item["overrides"]], "bench")
    combination = Combination(
        composed,
        item["precision"],
        item["compile"],
        {},
        item["batch"],
        item["parts"],
        checkpointing=composed.bench.checkpointing,
    )
    try:
        return measured(combination, device, peak)
    except Exception as error:  # the rest of the suite is worth more than a traceback
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}


def end_to_end(item: Mapping[str, Any], suite: Mapping[str, Any]) -> dict[str, Any]:
    """`vgbench run` in a process of its own on rendered images: samples/s of training and evaluation, start-up."""
    with tempfile.TemporaryDirectory() as folder:
        data = [f"dataset={suite['dataset']}", f"dataset.images={{{suite['images']}}}", f"dataset.side={suite['side']}"]
        data += [
            f"dataset.data_root={folder}",
            f"dataset.cache_dir={folder}",
            f"run_dir={quoted(Path(folder) / 'run')}",
        ]
        short = ["recipe.epochs=1", "eval.splits=[val]", "eval.control=null", "eval.bootstrap=20", "eval.examples=0"]
        command = [sys.executable, "-m", "vgbench.cli", "run", f"method={item['method']}", *data, *short]
        started = time.perf_counter()
        done = subprocess.run(
            [*command, *item["overrides"]],
            env=child_environment(),
            capture_output=True,
            text=True,
            timeout=item["seconds"] * 2,
            check=False,
        )
        seconds = time.perf_counter() - started
        if done.returncode:
            return {"error": done.stderr.strip().splitlines()[-1][:300] if done.stderr else "no message"}
        record = store.read(Path(folder) / "run")
    stall_lines = [line for line in done.stdout.splitlines() if "waiting for data" in line]
    assert record.training is not None
    return {
        "train samples/s": record.cost.train_samples_per_s,
        "inference samples/s": record.cost.inference_samples_per_s,
        "training s": record.training.wall_s,
        "whole s": seconds,
        "message": stall_lines[0] if stall_lines else f"data kept up; {seconds:.0f} s in all",
    }
