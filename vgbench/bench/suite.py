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
from vgbench.core.errors import UserError
from vgbench.core.processes import child_environment
from vgbench.records import store
from vgbench.training.speed import set_float32

__all__ = ["run_suite"]

SHOWN = {
    "train samples/s": "train {:.0f}/s",
    "inference samples/s": "inference {:.0f}/s",
    "share of peak": "{:.1%} of peak",
    "share of bench": "{:.1%} of the step's rate in vgbench bench",
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
    """Measure the items of ``config.suite`` in their order, as far as its time allows; then what loading costs."""
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
    steps: dict[tuple[Any, ...], float] = {}  # of `vgbench bench`, for the runs that follow
    for item in items:
        kind, last = ("run", "run") if item["run"] is not None else ("bench", "overrides")
        what = {key: item[key] for key in ("method", "precision", "compile", "batch", "parts", last)}
        if report.seconds + item["seconds"] > suite["seconds"]:
            report.add(kind, what, {"skipped": "no time left"})
            continue
        result = _result(item, config, suite, device, peaks[item["precision"]])
        setting = tuple(item[key] for key in ("method", "precision", "compile", "batch"))
        rate = result.get("train samples/s")
        if kind == "bench" and rate and not item["overrides"]:
            steps[setting] = rate
        elif kind == "run" and rate and setting in steps:
            result["share of bench"] = rate / steps[setting]
        report.add(kind, what, result)
    for name in dict.fromkeys(item["method"] for item in items):
        report.add("loader", {"method": name}, _loader(name, config, device))


def _loader(name: str, config: DictConfig, device: torch.device) -> dict[str, Any]:
    plain = compose([f"method={name}", *config.suite.overrides], "bench")
    rate = loading_rate(Combination(plain, "32-true", False, {}, 1).build(device), (480, 640), 1.0)
    return {"samples/s per worker": rate, "message": f"{rate:.0f}/s per worker"}


def _result(
    item: Mapping[str, Any], config: DictConfig, suite: Mapping[str, Any], device: torch.device, peak: float
) -> dict[str, Any]:
    """The figures of an item, or its error: the rest of the suite is worth more than a traceback."""
    try:
        if item["run"] is not None:
            return end_to_end(item, suite, device)
        return _step_and_inference(item, config, device, peak)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}


def _step_and_inference(
    item: Mapping[str, Any], config: DictConfig, device: torch.device, peak: float
) -> dict[str, Any]:
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
    return measured(combination, device, peak)


def end_to_end(item: Mapping[str, Any], suite: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """`vgbench run` and `vgbench eval` in processes of their own on rendered images.

    Returns:
        Samples/s of the training, how long it waited for data, and seconds of the evaluation with its metrics and
        intervals, start-up of its process left out.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = [f"dataset={suite['dataset']}", f"dataset.images={{{suite['images']}}}", f"dataset.side={suite['side']}"]
        data += [f"dataset.data_root={folder}", f"dataset.cache_dir={folder}"]
        common = [f"method={item['method']}", *data, "eval.splits=[val]", "eval.control=null", "eval.examples=0"]
        common += [f"trainer.accelerator={'gpu' if device.type == 'cuda' else 'cpu'}", *item["run"]]
        common += [f"trainer.precision={item['precision']}", f"compile={str(item['compile']).lower()}"]
        training = [f"recipe.batch_size={item['batch']}", "recipe.epochs=1", "recipe.eval_every=2", "eval.limit=16"]
        started = time.perf_counter()
        said = _vgbench("run", *common, *training, f"run_dir={quoted(folder / 'run')}")
        trained = time.perf_counter()
        _vgbench("eval", *common, f"checkpoint={quoted(folder / 'run')}", f"run_dir={quoted(folder / 'eval')}")
        evaluated = time.perf_counter()
        record, evaluation = store.read(folder / "run"), store.read(folder / "eval")
    stalls = [line for line in said.splitlines() if "waiting for data" in line]
    expressions = evaluation.results[0].expressions
    return {
        "train samples/s": record.cost.train_samples_per_s,
        "run s": trained - started,
        "eval expressions": expressions,
        "eval s": evaluation.cost.wall_s,
        "eval inference samples/s": evaluation.cost.inference_samples_per_s,
        "eval s with start-up": evaluated - trained,
        "message": f"{stalls[0] if stalls else 'data kept up'}; {expressions:,} expressions evaluated in "
        f"{evaluation.cost.wall_s:.1f} s",
    }


def _vgbench(*arguments: str) -> str:
    """What the command prints. Raises UserError with its last line if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "vgbench.cli", *arguments], env=child_environment(), capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(f"vgbench {arguments[0]}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return done.stdout
