"""Position tables on other grids and gathering by offsets, against PyTorch's own operations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vgbench.layers.gather import gather_last
from vgbench.layers.resize import resize_bicubic


@pytest.mark.parametrize("grid", [(28, 28), (7, 20), (14, 14), (3, 1)])
def test_resized_tables_and_their_gradients_are_those_of_interpolate(grid: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(14, 10, 6, generator=generator, requires_grad=True)
    weight = torch.randn(*grid, 6, generator=generator)
    ours = resize_bicubic(table, grid)
    channels_first = table.permute(2, 0, 1)[None]
    theirs = F.interpolate(channels_first, grid, mode="bicubic", align_corners=False)[0].permute(1, 2, 0)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad((value * weight).sum(), table)[0] for value in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_a_table_first_resized_while_evaluating_can_be_trained() -> None:
    table = torch.randn(5, 5, 3, requires_grad=True)
    with torch.inference_mode():
        resize_bicubic(table, (9, 11))
    resize_bicubic(table, (9, 11)).sum().backward()
    assert table.grad is not None


@pytest.mark.parametrize("compiled", [False, True])
def test_gathering_and_its_gradient_are_those_of_gather(compiled: bool) -> None:
    values = torch.randn(2, 3, 4, 9, requires_grad=True)
    index = torch.randint(0, 9, (1, 1, 4, 5))
    function = torch.compile(gather_last, backend="aot_eager", fullgraph=True) if compiled else gather_last
    ours, theirs = function(values, index), values.gather(-1, index.expand(2, 3, 4, 5))
    assert torch.equal(ours, theirs)
    weight = torch.randn_like(theirs)
    gradients = [torch.autograd.grad((value * weight).sum(), values)[0] for value in (ours, theirs)]
    torch.testing.assert_close(*gradients)
