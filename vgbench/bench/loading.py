"""How fast one loader process is."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from vgbench.batches.collate import collate
from vgbench.batches.synthetic import synthetic_sample
from vgbench.method import GroundingMethod
from vgbench.types import Sample

__all__ = ["loading_rate"]

BATCH = 16


def loading_rate(method: GroundingMethod, size: tuple[int, int], seconds: float = 2.0) -> float:
    """Samples per second that one process makes for training: JPEG (in memory) decoded, transformed, collated.

    Args:
        method: whose transform is measured.
        size: (height, width) of the picture in pixels.
        seconds: how long to measure; the first batch is left out.
    """
    sample = synthetic_sample(method, size)
    buffer = io.BytesIO()
    Image.fromarray(sample["image"].permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=90)
    transform = method.train_transform()

    def load() -> Sample:
        pixels = torch.from_numpy(np.array(Image.open(buffer).convert("RGB"))).permute(2, 0, 1)
        return transform({**sample, "image": tv_tensors.Image(pixels), "late_normalization": True})

    def tokenize(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        ids = torch.zeros(len(texts), method.text_shape[0], dtype=torch.long)
        return ids, ids.bool()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        collate([load() for _ in range(BATCH)], tokenize)
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            collate([load() for _ in range(BATCH)], tokenize)
            count += BATCH
        return count / (time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
