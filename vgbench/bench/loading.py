"""How fast one loader process is."""

from __future__ import annotations

import io
import time

import numpy as np
import torch
from PIL import Image

from vgbench.batches.synthetic import synthetic_sample
from vgbench.method import GroundingMethod

__all__ = ["loading_rate"]


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
            pixels = torch.from_numpy(np.array(Image.open(buffer).convert("RGB"))).permute(2, 0, 1)
            fresh = dict(sample)
            fresh["image"] = type(sample["image"])(pixels)
            transform(fresh)  # type: ignore[arg-type]
            count += 1
        return count / (time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
