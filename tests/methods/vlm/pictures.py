"""Random pictures, batches of them, and boxes as lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vgbench.batches.collate import collate
from vgbench.batches.samples import plain_sample
from vgbench.methods.answering.method import AnsweringMethod
from vgbench.types import Batch, Prediction


def pictures(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    """Random images of (width, height)."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8) for width, height in sizes
    ]


def batch_of(method: AnsweringMethod, images: Sequence[torch.Tensor], texts: Sequence[str]) -> Batch:
    samples = [method.eval_transform()(plain_sample(*pair)) for pair in zip(images, texts, strict=True)]
    batch = collate(samples, method.tokenize)
    assert batch is not None
    return batch


def boxes(prediction: Prediction) -> list[list[float]]:
    return np.asarray(prediction.boxes, np.float64).round(3).tolist()
