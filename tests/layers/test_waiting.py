"""Nothing in a training step may wait for the device: counted on the CPU by the operators that would."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.layers.samples import METHODS, before_a_step
from vgbench import optim
from vgbench.batches.synthetic import synthetic_batch
from vgbench.config.compose import compose
from vgbench.layers.casts import cast_weights_once, one_cast_per_step
from vgbench.training.setup import build_method

aten: Any = torch.ops.aten
WAITING = (
    aten._local_scalar_dense,  # .item(), float(tensor), bool(tensor), if tensor:
    aten.nonzero,
    aten.masked_select,
    aten.unique_consecutive,
    aten._unique2,
    aten.unique_dim,
    aten.multinomial,  # looks at its weights
    aten.repeat_interleave,
    aten.equal,
)


class Waits(TorchDispatchMode):
    """Names of the operators whose result's value or size the host has to know."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = function.overloadpacket in (aten.index, aten.index_put_, aten.index_put) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        # a tensor of Python numbers is made on the host and copied: torch.tensor(list, device=...), new_tensor
        copied = function.overloadpacket is aten.lift_fresh and args[0].numel() > 1
        if by_mask or copied or function.overloadpacket in WAITING:
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", METHODS)
def test_nothing_in_a_training_step_waits_for_the_device(name: str) -> None:
    """Single targets: several per expression are matched on the host, after one copy."""
    method, batch = before_a_step(name)
    optimizer = optim.build_optimizer(method.param_groups(1e-4), torch.optim.AdamW)
    with Waits() as waits:
        method(batch)["total"].backward()
        optim.clip_gradients(optimizer, 1.0)
    assert waits.found == []


@pytest.mark.parametrize("name", METHODS)
def test_nothing_in_a_step_of_mixed_precision_waits_for_the_device(name: str) -> None:
    """Weights are cast once, as a training does it."""
    method, batch = before_a_step(name)
    cast_weights_once(method.compiled_blocks())
    with Waits() as waits:
        with torch.autocast("cpu", torch.bfloat16), one_cast_per_step():
            total = method(batch)["total"]
        total.backward()
    assert waits.found == []


@pytest.mark.parametrize("name", METHODS)
def test_no_gradient_looks_at_values(name: str) -> None:
    """Without a dispatch mode, under which PyTorch takes other formulas of gradients: that of ``prod`` counts zeros."""
    method, batch = before_a_step(name)
    assert looked_at(lambda: method(batch)["total"].backward()) == set()


def looked_at(work: Callable[[], Any]) -> set[str]:
    """The operators among those ``work`` calls that bring a value or a size to the host."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
        work()
    names = {str(operator).replace("aten.", "aten::") for operator in WAITING}
    names.remove("aten::repeat_interleave")  # also the name of the one that repeats a known number of times
    return names & {event.name for event in recorded.events() or []}


def test_the_gradient_of_a_product_would_be_seen() -> None:
    x = torch.ones(3, 2, requires_grad=True)
    assert looked_at(x.prod(-1).sum().backward) == {"aten::_local_scalar_dense"}


@pytest.fixture
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has no mixed precision: not even asking for it is allowed."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device=None: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


@pytest.mark.parametrize(
    "name", ["alvg", "simvg", "resvg", "vglaw", "amc", "alvg num_queries=10", "simvg num_queries=10"]
)
def test_a_training_step_needs_nothing_but_the_device(name: str, no_autocast: None) -> None:
    """On a device without values: a tensor left on the host, or a look at a value, stops the step."""
    method_name, *options = name.split()
    overrides = [f"method={method_name}", "dataset=refshapes", "weights=null"]
    method = build_method(compose([*overrides, *(f"method.{option}" for option in options)]).method).train()
    batch = synthetic_batch(method, 3, (96, 128))
    method.to("meta")
    method.on_step(0, 0, 10)
    optimizer = optim.build_optimizer(method.param_groups(1e-4), torch.optim.AdamW)
    total = method(batch.to("meta"))["total"]
    total.backward()
    optim.clip_gradients(optimizer, 1.0)
    assert total.device.type == "meta"
    with pytest.raises(RuntimeError):
        method(batch)


def test_the_counter_sees_what_waits() -> None:
    x = torch.arange(4.0)
    with Waits() as waits:
        float(x[0])
        x[x > 1]
        x.new_tensor([1.0, 2.0])
        torch.nonzero(x)
        x[torch.arange(2)]
    assert len(waits.found) >= 4
