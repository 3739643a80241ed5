"""Compiled runs: what is compiled is a step on a whole batch, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from vgbench.cli import main
from vgbench.layers.blocks import compile_blocks
from vgbench.records import store
from vgbench.training import speed


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    # traced as inductor's would be, but not compiled to machine code
    monkeypatch.setattr(speed, "compile_blocks", lambda blocks, mode: compile_blocks(blocks, mode, backend="eager"))
    yield
    torch._dynamo.reset()


def test_a_last_smaller_batch_and_an_evaluation_compile_nothing(
    few_scenes: Callable[[str], list[str]], tmp_path: Path
) -> None:
    data = few_scenes("train:5,val:3,testA:1,testB:1")
    few = ["eval.splits=[val]", "eval.control=null", "eval.examples=0", "eval.bootstrap=0", "workers=0", "trainer=cpu"]
    options = ["weights=null", "recipe.epochs=2", "compile=true", *few]

    assert main(["run", "method=simvg", *data, *options, "recipe.batch_size=7", f"run_dir={tmp_path / 'run'}"]) == 0
    training = store.read(tmp_path / "run").training
    assert training is not None and training.data[0].expressions % 7
    assert counters["stats"]["unique_graphs"] == 5  # those of one batch: tests/layers/test_blocks.py
