"""The official numbers again with compiled blocks (inductor, on the CPU): slow, a C++ compiler is needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._functorch.config as functorch

from vgbench.conform.run import run_case
from vgbench.layers.blocks import compile_blocks
from vgbench.method import GroundingMethod

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler"),
]


@pytest.fixture(scope="module")
def compile_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inductor")


@pytest.fixture(autouse=True)
def compiled(compile_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Every method that a case builds has its blocks compiled; the numbers of blocks."""
    blocks: list[int] = []
    evaluating = torch.nn.Module.eval

    def eval_compiled(self: GroundingMethod) -> Any:
        blocks.append(compile_blocks(self.compiled_blocks()))
        return evaluating(self)

    torch._dynamo.reset()
    monkeypatch.setattr(GroundingMethod, "eval", eval_compiled, raising=False)
    # A case takes the gradients of several losses of one forward pass, which a training never does. Code of PyTorch's
    # common cache may be that of a training, which overwrites what it kept for the backward pass.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(compile_cache))
    with functorch.patch(donated_buffer=False):
        yield blocks
    torch._dynamo.reset()


def test_compiled_blocks_hold_the_official_numbers(
    case_name: str, conformance_case: Callable[[str], Path], compiled: list[int]
) -> None:
    if any(word in case_name for word in ("preprocess", "metrics", "tok", "beit3")):
        pytest.skip("no method is built for this case")
    result = run_case(conformance_case(case_name))
    assert result.passed, result.failures
    if result.compared:
        assert compiled and compiled[0] > 0
