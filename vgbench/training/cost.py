"""What a method costs: memory, activations, FLOPs."""

from __future__ import annotations

import resource
import statistics
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from vgbench.method import GroundingMethod
from vgbench.types import Batch


def peak_memory() -> int:
    """Bytes: the most that was allocated on the GPU if there is one, else the process's largest resident set."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def latency(method: GroundingMethod, batch: Batch, repetitions: int = 3) -> float:
    """Seconds of ``predict`` for ``batch``: the median of some calls after a first one."""
    method.eval()
    times = []
    with torch.set_grad_enabled(method.requires_grad_at_inference):
        for _ in range(repetitions + 1):
            started = time.perf_counter()
            method.predict(batch)
            if batch.image.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def forward_flops(method: GroundingMethod, batch: Batch) -> float:
    """FLOPs of ``predict`` per sample (a multiply-add counts as two), as torch's counter sees them."""
    method.eval()
    # torch's counter wants a grad_fn of every module input that requires a gradient; a view of a parameter that is
    # taken without gradients requires one and has none
    wanted = method.requires_grad_at_inference
    parameters = [] if wanted else [parameter for parameter in method.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(wanted):
            method.predict(batch)
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
    return counter.get_total_flops() / len(batch)
