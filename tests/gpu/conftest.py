"""The GPU check: `pytest -m gpu`. Every method at its small preset trains, resumes, evaluates and predicts on a CUDA
device, in every precision, eager and compiled; its numbers are those of the CPU; nothing in a step waits for it.

A file for each method, so that they run beside each other (`pytest -n` distributes files).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch


@pytest.fixture(scope="module")
def data(few_scenes: Callable[[str], list[str]]) -> list[str]:
    return few_scenes("train:24,val:8,testA:3,testB:3")


@pytest.fixture(autouse=True)
def float32_is_float32() -> Iterator[None]:
    """Comparisons with the CPU are made without TF32, whatever a run before this test has set."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    yield
