"""Weights that are cast once per step and block: autocast's numbers, in fewer operators."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.layers.samples import METHODS, before_a_step
from vgbench.layers.blocks import checkpoint_blocks, compile_blocks
from vgbench.layers.casts import cast_weights_once, one_cast_per_step
from vgbench.method import GroundingMethod
from vgbench.types import Batch


class Counts(TorchDispatchMode):
    """Conversions of single tensors."""

    casts = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.casts += function.overloadpacket is torch.ops.aten._to_copy
        return function(*args, **(kwargs or {}))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.wide, self.narrow = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8, bias=False)
        self.unused = nn.Linear(8, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        assert isinstance(self.wide.weight, nn.Parameter) != torch.is_autocast_enabled("cpu")
        return tokens + self.narrow(self.wide(self.norm(tokens)).relu())


def step(model: GroundingMethod, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients of a step in bf16."""
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16), one_cast_per_step():
        losses = model(batch)
    losses["total"].backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: value.detach() for name, value in losses.items()}, gradients


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_that_of_autocast_with_fewer_conversions(name: str) -> None:
    model, batch = before_a_step(name)
    with Counts() as plain:
        losses, gradients = step(model, batch)
    model, batch = before_a_step(name)
    assert cast_weights_once(model.compiled_blocks()) > 0
    with Counts() as counts:
        ours, ours_gradients = step(model, batch)
    assert counts.casts < 0.8 * plain.casts
    assert ours.keys() == losses.keys() and ours_gradients.keys() == gradients.keys()
    for key, value in losses.items():
        assert torch.equal(ours[key], value), key
    for key, value in gradients.items():
        assert torch.equal(ours_gradients[key], value), key


def test_weights_are_cast_anew_in_every_step_and_apart_without_gradients() -> None:
    torch.manual_seed(0)
    block, tokens = Block(), torch.randn(4, 8)
    cast_weights_once([block])
    optimizer = torch.optim.SGD(block.parameters(), lr=0.5)
    outputs, expected = [], []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16), one_cast_per_step():
            with torch.no_grad():
                block(tokens)  # what is cast here has no gradient
            output = block(block(tokens))
        inner = block.norm(tokens)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            middle = tokens + nn.functional.linear(block.wide(inner).relu(), block.narrow.weight)
            expected.append(middle + block.narrow(block.wide(block.norm(middle)).relu()))
        outputs.append(output.detach())
        output.sum().backward()
        assert block.narrow.weight.grad is not None and block.narrow.weight.grad.dtype == torch.float32
        assert block.unused.weight.grad is None
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(outputs[0], expected[0]) and torch.equal(outputs[1], expected[1])
    assert not torch.equal(outputs[0], outputs[1])
    block(tokens)  # outside of mixed precision the parameters are what they were
    assert all(isinstance(weight, nn.Parameter) for weight in (block.wide.weight, block.wide.bias))


def test_frozen_weights_get_no_gradient_and_a_failing_block_keeps_its_parameters() -> None:
    block = Block()
    cast_weights_once([block])
    block.wide.requires_grad_(False)
    names = set(dict(block.named_parameters()))
    with torch.autocast("cpu", torch.bfloat16), one_cast_per_step():
        block(torch.randn(4, 8)).sum().backward()
        with pytest.raises(RuntimeError):
            block(torch.randn(4, 7))
    assert block.wide.weight.grad is None and block.narrow.weight.grad is not None
    assert set(dict(block.named_parameters())) == names


@pytest.mark.parametrize("change", [cast_weights_once, checkpoint_blocks])
def test_a_changed_model_can_be_pickled(change: Callable[[Iterable[nn.Module]], int]) -> None:
    """Loader processes that are not forked are handed the model with its tokeniser."""
    model, batch = before_a_step("simvg")
    assert change(model.compiled_blocks()) > 0
    copy = pickle.loads(pickle.dumps(model))
    losses, _ = step(model, batch)
    ours, gradients = step(copy, batch)
    assert all(torch.equal(ours[key], value) for key, value in losses.items())
    assert gradients and all(copy.get_parameter(name).grad is not None for name in gradients)


@pytest.mark.parametrize("name", ["simvg", "amc"])
def test_compiled_blocks_take_them_too(name: str) -> None:
    """The same graphs as before, the same numbers; on the CPU without code generation."""
    results = []
    for once in (False, True):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        model, batch = before_a_step(name)
        compile_blocks(model.compiled_blocks(), backend="aot_eager")
        if once:
            cast_weights_once(model.compiled_blocks())
        losses, gradients = step(model, batch)
        results.append((losses, gradients, torch._dynamo.utils.counters["stats"]["unique_graphs"]))
    torch._dynamo.reset()
    (losses, gradients, graphs), (ours, ours_gradients, ours_graphs) = results
    assert graphs == ours_graphs > 0
    for key, value in losses.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-3, atol=1e-5, msg=key)
    scale = max(float(value.abs().max()) for value in gradients.values())
    for key, value in gradients.items():
        torch.testing.assert_close(ours_gradients[key], value, rtol=2e-2, atol=1e-3 * scale, msg=key)
