"""One measurement: a method in one way of running."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig

from vgbench import optim
from vgbench.bench import measure
from vgbench.bench.measure import Setting, StepCost
from vgbench.layers.blocks import checkpoint_blocks, compile_blocks
from vgbench.layers.casts import cast_weights_once
from vgbench.method import GroundingMethod
from vgbench.records.environment import environment
from vgbench.training.speed import set_float32
from vgbench.types import Batch

__all__ = ["Combination", "device_name", "measured"]


@dataclass(frozen=True)
class Combination:
    """What is measured: one method in one way of running.

    Attributes:
        config: of ``vgbench bench``.
        precision: "32-true", "bf16-mixed" or "16-mixed".
        compiled: with compiled blocks.
        changes: to the method's arguments.
        batch_size: samples per step.
        parts: some of "train", "inference".
        checkpointing: recompute encoder layers in the backward pass.
    """

    config: DictConfig
    precision: str
    compiled: bool
    changes: Mapping[str, Any]
    batch_size: int
    parts: Sequence[str] = ("train", "inference")
    checkpointing: bool = False

    def build(self, device: torch.device) -> GroundingMethod:
        torch.manual_seed(self.config.seed)
        get_class(self.config.method._target_)  # imported before: what a module makes for itself stays on the host
        with device:  # where drawing the initial weights is quickest
            method: GroundingMethod = instantiate(self.config.method, **self.changes)
        return method.to(device)


def device_name(device: torch.device) -> str:
    hardware = environment().hardware
    return str(hardware.gpu) if device.type == "cuda" else f"{hardware.cpu}, {torch.get_num_threads()} threads"


def measured(combination: Combination, device: torch.device, peak: float) -> dict[str, Any]:
    """One column of the table; where memory does not suffice, the key "error" says so."""
    try:
        return _measured(combination, device, peak)
    except torch.OutOfMemoryError:
        return {"error": "out of memory"}
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _measured(combination: Combination, device: torch.device, peak: float) -> dict[str, Any]:
    options = combination.config.bench
    set_float32(combination.precision)
    setting = Setting(device, measure.dtype_of(combination.precision), options.warmup, options.steps)
    method = combination.build(device)
    image = tuple(options.image)
    row: dict[str, Any] = {"method": method.name}
    cost = None
    if "train" in combination.parts:
        cost = measure.step_cost(method.train(), measure.tiled_batch(method, 2, image).to(device), setting)
    if combination.compiled and not compile_blocks(method.compiled_blocks()):
        method.compile()
    if combination.checkpointing:
        checkpoint_blocks(method.checkpointed_blocks())
    else:
        cast_weights_once(method.compiled_blocks())
    batch = measure.tiled_batch(method, combination.batch_size, image).to(device)
    if cost is not None:
        row |= _training(combination, method, batch, setting) | _costs(cost, peak)
        row["share of peak"] = cost.flops * row["train samples/s"] / peak
    if "inference" in combination.parts:
        with torch.compiler.set_stance("force_eager"):  # as an evaluation runs: it is over before compiling has paid
            row |= _inference(method.eval(), batch, setting)
    return row | {"parameters M": sum(parameter.numel() for parameter in method.parameters()) / 1e6}


def _costs(cost: StepCost, peak: float) -> dict[str, float]:
    return {
        "kept for backward MB/sample": cost.kept / 1e6,
        "train GFLOP/sample": cost.flops / 1e9,
        "peak GFLOP/s": peak / 1e9,
    }


def _training(combination: Combination, method: GroundingMethod, batch: Batch, setting: Setting) -> dict[str, Any]:
    recipe = combination.config.recipe
    optimizer = optim.build_optimizer(method.param_groups(recipe.lr), instantiate(recipe.optimizer))
    return measure.training(method.train(), optimizer, recipe.clip_norm, batch, setting)


def _inference(method: GroundingMethod, batch: Batch, setting: Setting) -> dict[str, Any]:
    row: dict[str, Any] = {"inference samples/s": len(batch) / measure.evaluation_seconds(method, batch, setting)}
    if len(method.outputs) > 1:
        row |= output_speeds(method, output_times(method, batch, setting), len(batch))
    return row


def output_times(method: GroundingMethod, batch: Batch, setting: Setting) -> dict[str, list[float]]:
    """Seconds of ``predict`` for each output alone; the outputs take turns, so that a busy machine hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in method.outputs}
    for turn in range(setting.warmup + setting.steps):
        for name, seconds in times.items():
            durations = measure.inference(method, batch, Setting(setting.device, setting.dtype, 0, 1), (name,))
            if turn >= setting.warmup:
                seconds += durations
    return times


def output_speeds(method: GroundingMethod, times: dict[str, list[float]], batch: int) -> dict[str, float | str]:
    """Rows of the table: samples/s of each output alone, and how much faster than the first, turn by turn."""
    labels = {name: method.output_labels.get(name, f"{method.name} / {name}") for name in times}
    speeds: dict[str, float | str] = {
        f"inference samples/s, {labels[name]}": batch / float(np.median(seconds)) for name, seconds in times.items()
    }
    for first, name in ((next(iter(times)), name) for name in list(times)[1:]):
        gain = float(np.median(np.divide(times[first], times[name]))) - 1
        speeds[f"{labels[name]} against {labels[first]}"] = f"{gain:+.1%}"
    return speeds
