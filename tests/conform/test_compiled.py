"""The official numbers again with compiled blocks (inductor, on the CPU): slow, a C++ compiler is needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from vgbench.conform.run import run_case
from vgbench.layers.blocks import compile_blocks
from vgbench.method import GroundingMethod

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler"),
]

CASES = Path(__file__).parents[1] / "conformance"
WITHOUT_MODEL = ("preprocess", "metrics", "tokenizer", "beit3")


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Every method that a case builds has its blocks compiled; the numbers of blocks."""
    blocks: list[int] = []
    evaluating = torch.nn.Module.eval

    def eval_compiled(self: GroundingMethod) -> Any:
        blocks.append(compile_blocks(self.compiled_blocks()))
        return evaluating(self)

    torch._dynamo.reset()
    monkeypatch.setattr(GroundingMethod, "eval", eval_compiled, raising=False)
    yield blocks
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "case",
    sorted(
        path.parent.name
        for path in CASES.glob("*/case.yaml")
        if not any(word in path.parent.name for word in WITHOUT_MODEL)
    ),
)
def test_compiled_blocks_hold_the_official_numbers(case: str, compiled: list[int]) -> None:
    result = run_case(CASES / case)
    assert result.passed, result.failures
    assert compiled and compiled[0] > 0
