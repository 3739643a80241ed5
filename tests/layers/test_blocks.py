"""Compiled and recomputed blocks: same numbers, no graph breaks, one code for equal layers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.utils import counters

from vgbench.batches.synthetic import synthetic_batch
from vgbench.config.compose import compose
from vgbench.layers.blocks import checkpoint_blocks, compile_blocks
from vgbench.method import GroundingMethod
from vgbench.training.setup import build_method

# method -> number of compiled graphs of a training step of its small preset, however many layers a stack has
GRAPHS = {"alvg": 2, "simvg": 5, "resvg": 6, "vglaw": 4, "amc": 6}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def small(name: str, *overrides: str) -> GroundingMethod:
    """The small preset with random weights, without dropout: two builds compute the same."""
    config = compose([f"method={name}", "dataset=refshapes", "weights=null", *overrides])
    torch.manual_seed(0)
    method = build_method(config.method)
    for module in method.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return method.train()


def losses_and_gradients(method: GroundingMethod) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    batch = synthetic_batch(method, 3, (96, 128))
    torch.manual_seed(1)
    losses = method(batch)
    losses["total"].backward()
    gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    return {name: float(value.detach()) for name, value in losses.items()}, gradients


def assert_same_numbers(changed: GroundingMethod, plain: GroundingMethod) -> None:
    ours, gradients = losses_and_gradients(changed)
    theirs, expected = losses_and_gradients(plain)
    assert ours == {name: pytest.approx(value, rel=1e-4, abs=1e-5) for name, value in theirs.items()}
    assert gradients.keys() == expected.keys()
    scale = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-2, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("name", GRAPHS)
def test_compiled_blocks_compute_the_same_in_few_whole_graphs(name: str) -> None:
    method = small(name)
    names = list(method.state_dict())
    blocks = compile_blocks(method.compiled_blocks(), backend="aot_eager")
    assert list(method.state_dict()) == names
    assert_same_numbers(method, small(name))
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == GRAPHS[name] < blocks


@pytest.mark.parametrize("name", ["alvg", "vglaw"])
def test_layers_with_different_drop_rates_share_one_graph(name: str) -> None:
    method = small(name, "method.drop_path=0.3")
    compile_blocks(method.compiled_blocks(), backend="aot_eager")
    losses_and_gradients(method)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == GRAPHS[name]


@pytest.mark.parametrize("name", GRAPHS)
def test_recomputed_blocks_compute_the_same(name: str) -> None:
    method = small(name)
    assert checkpoint_blocks(method.checkpointed_blocks())
    assert_same_numbers(method, small(name))
