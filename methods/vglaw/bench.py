"""The price of adaptive weights: ways to apply them compared, and memory per sample beside the plain ViT's.

``vgbench bench method=vglaw`` prints the tables of the card.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vgbench.layers.memory import saved_bytes
from vgbench.methods.vglaw.model import VGLAWNetwork, adapted_projection

__all__ = ["encoder_table", "explicit_projection", "projection_table"]


def explicit_projection(layer: nn.Linear, tokens: Tensor, S: Tensor, core: Tensor, D: Tensor) -> Tensor:
    """:func:`adapted_projection` with one explicit weight ``W0 + S Phi_b D`` per sample."""
    weight = layer.weight + (S @ core) @ D
    return torch.baddbmm(layer.bias, tokens, weight.transpose(1, 2))


def static_projection(layer: nn.Linear, tokens: Tensor, S: Tensor, core: Tensor, D: Tensor) -> Tensor:
    """The plain ViT's projection, for comparison."""
    return layer(tokens)


PROJECTIONS = {"static (plain ViT)": static_projection, "low rank": adapted_projection, "explicit": explicit_projection}


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
    batch: int, tokens: int, dim: int, rank: int, device: torch.device, repeats: int = 8
) -> list[dict[str, Any]]:
    """Forward and backward of one block's q/k/v projection: milliseconds and kept megabytes, per sample."""
    layer = nn.Linear(dim, 3 * dim).to(device)
    factors = nn.ParameterList([torch.randn(3 * dim, rank) / rank, torch.randn(rank, dim) / dim**0.5]).to(device)
    x = torch.randn(batch, tokens, dim, device=device, requires_grad=True)
    core = torch.randn(batch, rank, rank, device=device, requires_grad=True)
    forwards = [partial(project, layer, x, factors[0], core, factors[1]) for project in PROJECTIONS.values()]
    steps = [lambda forward=forward: forward().sum().backward() for forward in forwards]
    seconds = _seconds(forwards, device, repeats), _seconds(steps, device, repeats)
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


def encoder_table(network: VGLAWNetwork, image_size: int) -> list[dict[str, Any]]:
    """The visual encoder in training: bytes kept for the backward pass and multiply-adds of the forward pass, per
    sample; the plain ViT, and with weights generated and applied either way.
    """
    visual, generator = network.visual_encoder.train(), network.weight_generator
    device, text_dim = visual.patch_embed.proj.weight.device, generator.layer_embedding.shape[-1]
    image = torch.randn(1, 3, image_size, image_size, device=device)
    gathered = torch.randn(len(visual.blocks), 1, text_dim, device=device, requires_grad=True)

    def adapted(projection: Callable[..., Tensor]) -> Tensor:
        cores = generator(gathered)
        return visual(image, projection, [(generator.S, core, generator.D) for core in cores.unbind()])

    rows: list[dict[str, Any]] = []
    for name, projection in PROJECTIONS.items():
        with FlopCounterMode(display=False) as counter:
            work = partial(visual, image) if projection is static_projection else partial(adapted, projection)
            saved_mb = saved_bytes(network, work) / 1e6
        plain = rows[0]["kept MB/sample"] if rows else saved_mb
        row = {"weights": name, "kept MB/sample": saved_mb, "against plain": f"{saved_mb / plain - 1:+.1%}"}
        rows.append(row | {"multiply-adds G/sample": counter.get_total_flops() / 2e9})
    return rows
