"""``vgbench bench``: how fast a method trains and predicts here, where the time goes, and how far from the peak.

Images are made up, weights are random: speed does not depend on them. The device's peak is measured in the same run
as the rate of one large matrix product, so the share says what is left to gain on this very machine.
"""

from __future__ import annotations

import gc
import io
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image
from tabulate import tabulate
from torch.utils.flop_counter import FlopCounterMode

from vgbench import optim
from vgbench.batches.synthetic import synthetic_batch, synthetic_sample
from vgbench.core.errors import UserError
from vgbench.method import GroundingMethod
from vgbench.records.environment import environment
from vgbench.training.cost import peak_memory, saved_bytes
from vgbench.types import Batch


def bench(config: DictConfig) -> None:
    """Measure every combination of ``bench.precision``, ``bench.compile`` and ``bench.options``; print one table, and
    those of the method itself; optionally write JSON.
    """
    options = config.bench
    if options.threads:
        torch.set_num_threads(options.threads)
    device = _device(config.trainer.accelerator)
    rows: list[dict[str, Any]] = []
    for precision in options.precision:
        peak = matmul_rate(device, _dtype(precision))
        for compiled, changed in itertools.product(options.compile, options.options):
            torch.manual_seed(config.seed)
            method: GroundingMethod = instantiate(config.method, **changed)
            row = {"method": method.name, "precision": precision, "compile": compiled, "batch": options.batch_size}
            if len(options.options) > 1:
                row["options"] = ", ".join(f"{key}={value}" for key, value in changed.items()) or "as configured"
            row |= step_times(method, config, device, precision, compiled)
            row["peak GFLOP/s"] = peak / 1e9
            row["share of peak"] = row["train GFLOP/sample"] * 1e9 * row["train samples/s"] / peak
            rows.append(row)
            del method
            gc.collect()
    method = instantiate(config.method)
    tables = method.to(device).bench_tables(device, options.batch_size)
    loading = loading_rate(method, tuple(options.image))
    hardware = environment().hardware
    name = hardware.gpu if device.type == "cuda" else f"{hardware.cpu}, {torch.get_num_threads()} threads"
    print(f"device: {name}")
    shown = [{key: _show(value) for key, value in row.items()} for row in rows]
    print(tabulate([[key, *(row.get(key, "") for row in shown)] for key in _keys(shown)]))
    print(f"JPEG decode + transform: {loading:.1f} samples/s per worker ({options.image[1]}x{options.image[0]} px)")
    for title, lines in tables.items():
        print(f"\n{title}\n{tabulate([{k: _show(v) for k, v in line.items()} for line in lines], headers='keys')}")
    if options.json:
        with open(options.json, "w") as file:
            found = {"device": name, "loading samples/s per worker": loading, "rows": rows, "tables": tables}
            json.dump(found, file, indent=1)


def _keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of all rows, in their order: losses that can be switched off are not in every row."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _device(accelerator: str) -> torch.device:
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=gpu, but torch sees no CUDA device; use trainer=cpu")
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def _dtype(precision: str) -> torch.dtype:
    known = {"32-true": torch.float32, "32": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    if str(precision) not in known:
        raise UserError(f"bench.precision: {precision!r} is not one of {', '.join(known)}")
    return known[str(precision)]


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int | None = None) -> float:
    """FLOP/s of one large square matrix product: the practical peak of the device in that type."""
    size = size or (8192 if device.type == "cuda" else 2048)
    a = torch.randn(size, size, device=device, dtype=dtype)
    b = torch.randn(size, size, device=device, dtype=dtype)
    seconds = [_timed(lambda: a @ b, device) for _ in range(6)]
    return 2 * size**3 / min(seconds[1:])


def _timed(work: Callable[[], Any], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def step_times(
    method: GroundingMethod, config: DictConfig, device: torch.device, precision: str, compiled: bool
) -> dict[str, Any]:
    """Median seconds of the parts of a training step and of prediction, memory and FLOPs."""
    options = config.bench
    dtype = _dtype(precision)
    method.to(device).train()
    groups = method.param_groups(config.recipe.lr)
    optimizer = optim.build_optimizer(groups, instantiate(config.recipe.optimizer))
    batch = synthetic_batch(method, options.batch_size, tuple(options.image)).to(device)

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

    flops, kept = _train_cost(method, batch, autocast)
    if compiled:
        method.compile()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    parts: dict[str, list[float]] = {"forward": [], "backward": [], "optimiser": []}
    for step in range(options.warmup + options.steps):
        losses: dict[str, torch.Tensor] = {}

        def forward(into: dict[str, torch.Tensor] = losses) -> None:
            with autocast():
                into.update(method(batch))

        def update() -> None:
            if config.recipe.clip_norm:
                optim.clip_gradients(optimizer, config.recipe.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        method.on_step(0, step, options.warmup + options.steps)
        times = [
            _timed(forward, device),
            _timed(lambda found=losses: found["total"].backward(), device),  # type: ignore[misc]
            _timed(update, device),
        ]
        if step >= options.warmup:
            for values, seconds in zip(parts.values(), times, strict=True):
                values.append(seconds)
    memory = peak_memory()
    method.eval()

    def predict(*outputs: Sequence[str]) -> None:
        with autocast(), torch.set_grad_enabled(method.requires_grad_at_inference):
            method.predict(batch, *outputs)

    inference = [_timed(predict, device) for _ in range(options.warmup + options.steps)][options.warmup :]
    alone = set_times(method, predict, device, options.warmup, options.steps)
    medians = {name: float(np.median(values)) for name, values in parts.items()}
    step_seconds = float(np.median(np.sum(list(parts.values()), axis=0)))
    return {
        "step s": step_seconds,
        **{f"{name} s": value for name, value in medians.items()},
        "train samples/s": len(batch) / step_seconds,
        "inference samples/s": len(batch) / float(np.median(inference)),
        **set_speeds(method, alone, len(batch)),
        "peak memory GiB": memory / 2**30,
        "kept for backward MB/sample": kept / len(batch) / 1e6,
        "train GFLOP/sample": flops / len(batch) / 1e9,
        "parameters M": sum(parameter.numel() for parameter in method.parameters()) / 1e6,
    }


def set_times(
    method: GroundingMethod, predict: Callable[[Sequence[str]], None], device: torch.device, warmup: int, steps: int
) -> dict[str, list[float]]:
    """Seconds of ``predict`` for each prediction set alone; the sets take turns, so that a busy machine hits all alike.

    Empty for a method with one set.
    """
    times: dict[str, list[float]] = {name: [] for name in method.outputs}
    if len(times) == 1:
        return {}
    for step in range(warmup + steps):
        for name, seconds in times.items():
            taken = _timed(lambda alone=(name,): predict(alone), device)  # type: ignore[misc]
            if step >= warmup:
                seconds.append(taken)
    return times


def set_speeds(method: GroundingMethod, times: dict[str, list[float]], batch: int) -> dict[str, float | str]:
    """Rows of the table: samples/s of each set alone, and how much faster than the first set, turn by turn."""
    labels = {name: method.output_labels.get(name, f"{method.name} / {name}") for name in times}
    speeds: dict[str, float | str] = {
        f"inference samples/s, {labels[name]}": batch / float(np.median(seconds)) for name, seconds in times.items()
    }
    for first, name in ((next(iter(times)), name) for name in list(times)[1:]):
        gain = float(np.median(np.divide(times[first], times[name]))) - 1
        speeds[f"{labels[name]} against {labels[first]}"] = f"{gain:+.1%}"
    return speeds


def _train_cost(method: GroundingMethod, batch: Batch, autocast: Callable[[], Any]) -> tuple[int, int]:
    """FLOPs of a training step, and the bytes that it keeps between forward and backward pass."""
    losses: dict[str, torch.Tensor] = {}

    def forward() -> None:
        with autocast():
            losses.update(method(batch))

    with FlopCounterMode(display=False) as counter:
        kept = saved_bytes(method, forward)
        losses["total"].backward()
    method.zero_grad(set_to_none=True)
    return counter.get_total_flops(), kept


def loading_rate(method: GroundingMethod, size: tuple[int, int], seconds: float = 2.0) -> float:
    """Samples per second that one process decodes from JPEG (in memory) and transforms for training."""
    sample = synthetic_sample(method, size)
    buffer = io.BytesIO()
    Image.fromarray(sample["image"].permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=90)
    transform = method.train_transform()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            pixels = torch.from_numpy(np.array(Image.open(buffer).convert("RGB"))).permute(2, 0, 1).contiguous()
            fresh = dict(sample)
            fresh["image"] = type(sample["image"])(pixels)
            transform(fresh)  # type: ignore[arg-type]
            count += 1
        return count / (time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
