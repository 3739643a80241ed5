"""Times of a training step and of prediction, without waiting for the device between their parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from vgbench import optim
from vgbench.batches.synthetic import synthetic_batch
from vgbench.core.errors import UserError
from vgbench.layers.casts import one_cast_per_step
from vgbench.layers.memory import saved_bytes
from vgbench.method import GroundingMethod
from vgbench.training.cost import peak_memory
from vgbench.training.pipeline import PredictionPipeline
from vgbench.types import Batch

__all__ = ["Setting", "StepCost", "Timeline", "count_launches", "device_of", "dtype_of", "evaluation_seconds"]
__all__ += ["inference", "matmul_rate", "step_cost", "synchronize", "tiled_batch", "training"]

DISTINCT = 8  # made-up samples of a batch; larger batches repeat them


@dataclass(frozen=True)
class Setting:
    """How a method runs while it is measured.

    Attributes:
        device: where.
        dtype: of autocast; float32: none.
        warmup, steps: calls before, and calls that are timed.
    """

    device: torch.device
    dtype: torch.dtype
    warmup: int
    steps: int

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


@dataclass(frozen=True)
class StepCost:
    """FLOPs of a training step, and bytes that it keeps between forward and backward pass, per sample."""

    flops: float
    kept: float


class Timeline:
    """Moments on the device: events on CUDA, so that nothing waits until the times are read; else the clock."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._marks: list[Any] = []

    def mark(self) -> None:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def seconds(self) -> np.ndarray:
        """Between neighbouring marks."""
        pairs = list(zip(self._marks[:-1], self._marks[1:], strict=True))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return np.array([first.elapsed_time(second) / 1e3 for first, second in pairs])
        return np.array([second - first for first, second in pairs])


def device_of(accelerator: str) -> torch.device:
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=gpu, but torch sees no CUDA device; use trainer=cpu")
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def dtype_of(precision: str) -> torch.dtype:
    dtypes = {"32-true": torch.float32, "32": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    if str(precision) not in dtypes:
        raise UserError(f"bench.precision: {precision!r} is not one of {', '.join(dtypes)}")
    return dtypes[str(precision)]


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int | None = None) -> float:
    """FLOP/s of one large square matrix product: the practical peak of the device in that type."""
    size = size or (8192 if device.type == "cuda" else 2048)
    a = torch.randn(size, size, device=device, dtype=dtype)
    b = torch.randn(size, size, device=device, dtype=dtype)
    line = Timeline(device)
    line.mark()
    for _ in range(6):
        a @ b
        line.mark()
    return float(2 * size**3 / line.seconds()[1:].min())


def tiled_batch(method: GroundingMethod, size: int, image: tuple[int, int]) -> Batch:
    """:func:`synthetic_batch` of any size in little time: a few samples, repeated."""
    few = synthetic_batch(method, min(size, DISTINCT), image)
    times = -(-size // len(few))
    rows: dict[str, Any] = {name: (list(getattr(few, name)) * times)[:size] for name in ("geometry", "keys", "texts")}
    return replace(few.map(lambda tensor: tensor.repeat(times, *[1] * (tensor.ndim - 1))[:size]), **rows)


def step_cost(method: GroundingMethod, batch: Batch, setting: Setting) -> StepCost:
    losses: dict[str, torch.Tensor] = {}

    def forward() -> None:
        with setting.autocast():
            losses.update(method(batch))

    with FlopCounterMode(display=False) as counter:
        activation_bytes = saved_bytes(method, forward)
        losses["total"].backward()
    method.zero_grad(set_to_none=True)
    return StepCost(counter.get_total_flops() / len(batch), activation_bytes / len(batch))


def training(
    method: GroundingMethod, optimizer: torch.optim.Optimizer, clip_norm: float | None, batch: Batch, setting: Setting
) -> dict[str, Any]:
    """Rows of the table about training: whole steps of the recipe's optimiser, with nothing between them."""
    device, parts = setting.device, ("forward", "backward", "optimiser")
    total = setting.warmup + setting.steps

    def step(line: Timeline) -> None:
        with setting.autocast(), one_cast_per_step():
            loss = method(batch)["total"]
        line.mark()
        loss.backward()
        line.mark()
        if clip_norm:
            optim.clip_gradients(optimizer, clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        line.mark()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    for number in range(max(1, setting.warmup)):
        method.on_step(0, number, total)
        step(Timeline(device))
        if number == 0:
            synchronize(device)
            first = time.perf_counter() - started
    synchronize(device)
    line = Timeline(device)
    line.mark()
    started = time.perf_counter()
    for number in range(setting.warmup, total):
        method.on_step(0, number, total)
        step(line)
    host = time.perf_counter() - started
    synchronize(device)
    wall = (time.perf_counter() - started) / setting.steps
    medians = np.median(line.seconds().reshape(setting.steps, len(parts)), axis=0)
    return {
        "step s": wall,
        **{f"{name} s": float(value) for name, value in zip(parts, medians, strict=True)},
        "host s": host / setting.steps,
        "first step s": first,
        "train samples/s": len(batch) / wall,
        "peak memory GiB": peak_memory() / 2**30,
        "launches per step": count_launches(lambda: step(Timeline(device)), device),
    }


def inference(
    method: GroundingMethod, batch: Batch, setting: Setting, outputs: Sequence[str] | None = None
) -> list[float]:
    """Seconds of each timed ``predict``; what it returns is on the host, so that every call waits for the device."""

    def predict() -> None:
        with setting.autocast(), torch.set_grad_enabled(method.requires_grad_at_inference):
            method.predict(batch, outputs) if outputs else method.predict(batch)

    seconds = []
    for number in range(setting.warmup + setting.steps):
        synchronize(setting.device)
        started = time.perf_counter()
        predict()
        synchronize(setting.device)
        if number >= setting.warmup:
            seconds.append(time.perf_counter() - started)
    return seconds


def evaluation_seconds(method: GroundingMethod, batch: Batch, setting: Setting) -> float:
    """Seconds per batch of predicting many, as an evaluation does it: the host's part beside the next batches."""

    def predict(times: int) -> None:
        pipeline = PredictionPipeline(lambda keys, skipped, predictions: None)
        for _ in range(times):
            with setting.autocast(), torch.set_grad_enabled(method.requires_grad_at_inference):
                host_part = method.start_prediction(batch)
            synchronize(setting.device)
            pipeline.put(batch.keys, 0, host_part)
        pipeline.finish()

    predict(setting.warmup)
    started = time.perf_counter()
    predict(setting.steps)
    return (time.perf_counter() - started) / setting.steps


def count_launches(work: Callable[[], Any], device: torch.device) -> int:
    """Kernels, copies and fills that ``work`` starts on a GPU; on the CPU the operators it calls."""
    if device.type != "cuda":
        with _Operators() as operators:
            work()
        return operators.count
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        work()
        synchronize(device)
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in recorded.events() or [])


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))
