"""The price of adaptive weights: ways to apply them compared, and memory per sample beside the plain ViT's.

``python -m vgbench.methods.vglaw.bench`` prints the tables of the card (``--tiny`` for small sizes).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from vgbench.methods.vglaw.method import VGLAW
from vgbench.methods.vglaw.model import adapted_projection

__all__ = ["explicit_projection", "projection_table", "saved_bytes", "saved_bytes_table"]


def explicit_projection(layer: nn.Linear, tokens: Tensor, S: Tensor, core: Tensor, D: Tensor) -> Tensor:
    """:func:`adapted_projection` with one explicit weight ``W0 + S Phi_b D`` per sample."""
    weight = layer.weight + (S @ core) @ D
    return torch.baddbmm(layer.bias, tokens, weight.transpose(1, 2))


def static_projection(layer: nn.Linear, tokens: Tensor, S: Tensor, core: Tensor, D: Tensor) -> Tensor:
    """The plain ViT's projection, for comparison."""
    return layer(tokens)


PROJECTIONS = {"static (plain ViT)": static_projection, "low rank": adapted_projection, "explicit": explicit_projection}


class _Saved:
    """Bytes that autograd keeps for the backward pass, every storage once, parameters left out."""

    def __init__(self, module: nn.Module) -> None:
        self.known = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
        self.bytes = 0
        self.tensors: list[Tensor] = []  # kept alive, or their addresses could be used again

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.known:
            self.known.add(storage.data_ptr())
            self.bytes += storage.nbytes()
            self.tensors.append(tensor)
        return tensor


def saved_bytes(module: nn.Module, work: Callable[[], Any]) -> int:
    """Activation memory of a training step: bytes kept from ``work()``'s forward pass for its backward pass.

    Independent of device and allocator; what a step needs beyond weights, gradients and optimiser state, apart from
    short-lived buffers.
    """
    saved = _Saved(module)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        work()
    return saved.bytes


def _seconds(works: Sequence[Callable[[], Any]], device: torch.device, repeats: int) -> list[float]:
    """Fastest of ``repeats`` runs of each, in turn (a slow moment of the machine hits all); the first do not count.

    Processor time on the CPU, which other processes change least.
    """
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    best = [float("inf")] * len(works)
    for repeat in range(repeats + 1):
        for index, work in enumerate(works):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            start = clock()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repeat:
                best[index] = min(best[index], clock() - start)
    return best


def projection_table(
    batch: int, tokens: int = 784, dim: int = 768, rank: int = 32, device: str = "cpu", repeats: int = 8
) -> list[dict[str, Any]]:
    """Forward and backward of one block's q/k/v projection: milliseconds and kept megabytes, per sample."""
    where = torch.device(device)
    layer = nn.Linear(dim, 3 * dim).to(where)
    factors = nn.ParameterList([torch.randn(3 * dim, rank) / rank, torch.randn(rank, dim) / dim**0.5]).to(where)
    x = torch.randn(batch, tokens, dim, device=where, requires_grad=True)
    core = torch.randn(batch, rank, rank, device=where, requires_grad=True)
    forwards = [partial(project, layer, x, factors[0], core, factors[1]) for project in PROJECTIONS.values()]
    steps = [lambda forward=forward: forward().sum().backward() for forward in forwards]
    seconds = _seconds(forwards, where, repeats), _seconds(steps, where, repeats)
    parameters = nn.ModuleList([layer, factors])
    return [
        {
            "projection": name,
            "batch": batch,
            "forward ms/sample": 1e3 * inference / batch,
            "forward + backward ms/sample": 1e3 * training / batch,
            "kept MB/sample": saved_bytes(parameters, forward) / batch / 1e6,
        }
        for name, forward, inference, training in zip(PROJECTIONS, forwards, *seconds, strict=True)
    ]


def saved_bytes_table(method: VGLAW, batch: int = 1) -> list[dict[str, Any]]:
    """Kept memory of the visual encoder in training: plain, and with the generated weights applied either way."""
    visual, generator = method.model.visual_encoder.train(), method.model.weight_generator
    weight = visual.patch_embed.proj.weight
    image = torch.randn(batch, 3, method.image_size, method.image_size, device=weight.device)
    text_dim = generator.layer_embedding.shape[-1]
    rows = []
    for name, projection in PROJECTIONS.items():
        gathered = torch.randn(len(visual.blocks), batch, text_dim, device=weight.device, requires_grad=True)

        def work(projection: Callable[..., Tensor] = projection, gathered: Tensor = gathered) -> Tensor:
            cores = generator(gathered)

            def project(block: int, layer: nn.Linear, tokens: Tensor) -> Tensor:
                return projection(layer, tokens, generator.S, cores[block], generator.D)

            return visual(image, project)

        rows.append({"visual encoder": name, "kept MB/sample": saved_bytes(method.model, work) / batch / 1e6})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="small sizes instead of the official ones")
    options = parser.parse_args()
    tiny: dict[str, Any] = {"image_size": 128, "dim": 96, "depth": 4, "heads": 4, "window_size": 4, "rank": 8}
    method = VGLAW(**tiny, global_blocks=(1, 3)) if options.tiny else VGLAW()
    sizes: dict[str, Any] = {"tokens": 64, "dim": 96, "rank": 8} if options.tiny else {}
    rows = [row for batch in options.batch for row in projection_table(batch, device=options.device, **sizes)]
    print(tabulate(rows, headers="keys", floatfmt=".2f"))
    print(tabulate(saved_bytes_table(method.to(options.device)), headers="keys", floatfmt=".1f"))


if __name__ == "__main__":
    main()
