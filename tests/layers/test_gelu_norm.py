"""The kernel of norm(gelu(x)) against float64: by Triton's interpreter here, on the card in tests/gpu."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from vgbench.core.processes import child_environment
from vgbench.layers.gelu_norm import norm_of_gelu

CHECK = """
import torch
import torch.nn.functional as F
from vgbench.layers.gelu_norm import norm_of_gelu_in_one

def check(function, shape, dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(shape, generator=generator)).to(dtype).requires_grad_()
    weight, bias = (torch.randn(shape[-1], generator=generator, requires_grad=True) for _ in range(2))
    gradient = torch.randn(shape, generator=generator).to(dtype)
    ours = function(x, weight, bias, 1e-5)[0]
    ours.backward(gradient)
    exact = [value.detach().double().requires_grad_() for value in (x, weight, bias)]
    theirs = F.layer_norm(F.gelu(exact[0]), shape[-1:], exact[1], exact[2], 1e-5)
    theirs.backward(gradient.double())
    assert ours.dtype == dtype and weight.grad.dtype == torch.float32
    pairs = [(ours, theirs), *((mine.grad, other.grad) for mine, other in zip((x, weight, bias), exact))]
    for mine, other in pairs:
        error = (mine.double() - other).norm() / other.norm()
        assert error < tolerance, (shape, dtype, float(error))

compiled = torch.compile(norm_of_gelu_in_one, backend="aot_eager", fullgraph=True)
for function in (norm_of_gelu_in_one, compiled):
    check(function, (2, 300, 32), torch.float32, 1e-6)  # more rows than programs
    check(function, (3, 100), torch.float32, 1e-6)  # a width that fills no block
    check(function, (5, 64), torch.bfloat16, 6e-3)
    check(function, (5, 64), torch.float16, 6e-4)
x = torch.randn(4, 48, requires_grad=True)
torch.library.opcheck(norm_of_gelu_in_one, (x, torch.ones(48, requires_grad=True), torch.zeros(48), 1e-5))
print("equal")
"""


def test_the_kernel_and_its_gradients_are_those_of_the_two_operations() -> None:
    pytest.importorskip("triton")
    environment = {**child_environment(), "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.endswith("equal\n"), done.stderr[-2000:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_the_cpu_it_is_the_two_operations(dtype: torch.dtype) -> None:
    norm = nn.LayerNorm(24, 1e-5, dtype=dtype)
    x = torch.randn(3, 24, dtype=dtype)
    assert torch.equal(norm_of_gelu(x, norm), norm(nn.functional.gelu(x)))
