"""Two processes (gloo, on the CPU) against one with the joined batch: losses, gradients, sharded parameters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh

from vgbench import optim
from vgbench.batches.synthetic import synthetic_batch
from vgbench.config.compose import compose
from vgbench.method import GroundingMethod
from vgbench.methods.amc.step import Draws, Pairs
from vgbench.training.setup import build_method
from vgbench.training.sharding import clip_sharded, separated, shard, sharded_like, whole
from vgbench.types import Batch

METHODS = ("alvg", "simvg", "resvg", "vglaw", "amc")
SAMPLES, PROCESSES = 4, 2
# Terms that are made of a process's own batch, as in the official code: AMC's contrast against its batch and the queue,
# SimVG's weight of the two losses of the token branch.
OWN = {"amc": {"ita"}, "simvg": {"loss_tgt", "loss_kd"}}


def small(name: str) -> GroundingMethod:
    """The small preset with random weights; no dropout, and batch norms of fixed statistics (they are per process)."""
    torch.manual_seed(0)
    method = build_method(compose([f"method={name}", "dataset=refshapes", "weights=null"]).method).train()
    for module in method.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "drop_path"):
            module.drop_path = torch.nn.Identity() if isinstance(module.drop_path, torch.nn.Module) else 0.0
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    return method


def batch_of(method: GroundingMethod, rank: int | None = None) -> Batch:
    """The whole batch, or the part of one process."""
    torch.manual_seed(1)
    batch = synthetic_batch(method, SAMPLES, (96, 128))
    batch.boxes[:, :, 2] -= torch.arange(SAMPLES)[:, None] * 3.0
    if rank is None:
        return batch
    rows = slice(rank * SAMPLES // PROCESSES, (rank + 1) * SAMPLES // PROCESSES)
    return replace(batch.map(lambda tensor: tensor[rows]), geometry=batch.geometry[rows], keys=batch.keys[rows])


def losses_of(name: str, method: Any, batch: Batch) -> dict[str, torch.Tensor]:
    """The losses; AMC's with negatives and masked words that are the same on one process and two."""
    if name != "amc":
        return method(batch)
    neighbours = torch.arange(len(batch)) ^ 1
    ids, labels = batch.text_ids.clone(), torch.full_like(batch.text_ids, -100)
    labels[:, 1], ids[:, 1] = ids[:, 1], method.words.mask_id
    mask = torch.zeros(len(batch), *batch.image.shape[-2:])
    mask[:, 10:20, 10:20] = 1
    pairs = Pairs(batch.image, batch.text_ids, batch.text_pad, mask)
    return method.training_losses(pairs, Draws(negatives=(neighbours, neighbours), masked_words=(ids, labels)))


def total_of(name: str, losses: dict[str, torch.Tensor]) -> torch.Tensor:
    """The total without the terms of ``OWN``; of SimVG's token branch the terms without their weight."""
    total = losses["total"] - sum(losses[key] for key in OWN.get(name, ()))
    return total + sum(value for key, value in losses.items() if key.startswith("token_"))


def step_of(name: str, method: GroundingMethod, batch: Batch) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    losses = losses_of(name, method, batch)
    total_of(name, losses).backward()
    return {key: float(value.detach()) for key, value in losses.items()}, {
        key: p.grad for key, p in method.named_parameters() if p.grad is not None
    }


def mean(value: float) -> float:
    tensor = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(tensor)
    return float(tensor) / PROCESSES


def worker(rank: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", RANK=str(rank), WORLD_SIZE=str(PROCESSES))
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    results: dict[str, Any] = {}
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for name in METHODS:
        method = small(name)
        losses, gradients = step_of(name, method, batch_of(method, rank))
        averaged = {}
        for key, gradient in gradients.items():
            dist.all_reduce(gradient)
            averaged[key] = gradient / PROCESSES
        results[name] = {
            "losses": {key: mean(value) for key, value in losses.items()},
            "gradients": averaged,
            "buffers": {key: value.clone() for key, value in method.named_buffers()},
            "sharded": sharded_step(name, mesh, rank),
        }
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")
    dist.barrier()
    dist.destroy_process_group()


def sharded_step(name: str, mesh: Any, rank: int) -> dict[str, Any]:
    """A step of FSDP with clipping and an optimiser: gradients before, the whole state after."""
    method = small(name)
    batch = batch_of(method, rank)
    forward = method.forward
    if name == "amc":  # FSDP's hooks are those of ``forward``
        method.forward = lambda batch: losses_of(name, method, batch)  # type: ignore[method-assign]
    shard(method, mesh)
    optimizer = optim.build_optimizer(separated(method.param_groups(1e-3)), torch.optim.AdamW)
    losses = method(batch)
    total_of(name, losses).backward()
    gradients = {key: whole(p.grad).clone() for key, p in method.named_parameters() if p.grad is not None}
    norm = clip_sharded([p for group in optimizer.param_groups for p in group["params"]], 0.5)
    optimizer.step()
    method.forward = forward  # type: ignore[method-assign]
    with torch.set_grad_enabled(method.requires_grad_at_inference):
        predictions = method.eval().start_prediction(batch)()  # as evaluation calls it
    state = {key: whole(value) for key, value in method.state_dict().items()}
    parameter = next(method.parameters())
    assert torch.equal(whole(sharded_like(whole(parameter.detach()), parameter)), whole(parameter.detach()))
    return {"gradients": gradients, "norm": norm, "state": state, "predictions": len(next(iter(predictions.values())))}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    # not forked: another test of this process may have run a backward pass, which a child of its cannot do again
    mp.spawn(worker, (str(folder),), nprocs=PROCESSES)
    yield torch.load(Path(folder) / "results.pt", weights_only=False)


@pytest.fixture(scope="module", params=METHODS)
def method_results(request: pytest.FixtureRequest, results: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return request.param, results[request.param]


def same(ours: torch.Tensor, theirs: torch.Tensor, scale: float, name: str) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-6 * scale, msg=lambda text: f"{name}: {text}")


def test_two_processes_compute_what_one_does(method_results: tuple[str, dict[str, Any]]) -> None:
    name, two = method_results
    method = small(name)
    losses, gradients = step_of(name, method, batch_of(method))
    own = OWN.get(name, set())
    for key in losses.keys() - own - ({"total"} if own else set()):
        assert two["losses"][key] == pytest.approx(losses[key], rel=1e-5, abs=1e-6), key
    scale = max(float(gradient.abs().max()) for gradient in gradients.values())
    assert two["gradients"].keys() == gradients.keys()
    for key, gradient in gradients.items():
        same(two["gradients"][key], gradient, scale, key)
    for key, value in method.named_buffers():  # AMC: the queue holds the features of both
        torch.testing.assert_close(two["buffers"][key], value, msg=key)


def test_sharded_parameters_make_the_same_step(method_results: tuple[str, dict[str, Any]]) -> None:
    name, two = method_results
    method = small(name)
    _, gradients = step_of(name, method, batch_of(method))
    scale = max(float(gradient.abs().max()) for gradient in gradients.values())
    sharded = two["sharded"]
    assert sharded["gradients"].keys() == gradients.keys()
    for key, gradient in gradients.items():
        same(sharded["gradients"][key], gradient, scale, key)
    optimizer = optim.build_optimizer(method.param_groups(1e-3), torch.optim.AdamW)
    for key, parameter in method.named_parameters():
        parameter.grad = sharded["gradients"].get(key)
    assert float(sharded["norm"]) == pytest.approx(float(optim.clip_gradients(optimizer, 0.5)), rel=1e-5)
    optimizer.step()
    state = method.state_dict()
    assert sharded["state"].keys() == state.keys() and sharded["predictions"] == SAMPLES // PROCESSES
    for key, value in state.items():
        torch.testing.assert_close(sharded["state"][key], value, msg=lambda text, key=key: f"{key}: {text}")


CONFIGURATIONS = {
    "alvg": [
        "",
        "num_queries=5",
        "masks=false",
        "enhance=false",
        "score_attention_weight=0 decoder_attention_weight=0",
    ],
    "simvg": ["", "num_queries=5", "token_weight=0 distill_weight=0", "distill_weight=0", "decoder_weight=0"],
    "vglaw": ["", "mode=rec"],
    "amc": ["", "mask_consistency=false"],
}
CONFIGURED = [(name, options) for name, items in CONFIGURATIONS.items() for options in items]


@pytest.mark.parametrize(("name", "options"), CONFIGURED)
def test_every_trained_parameter_gets_a_gradient(name: str, options: str) -> None:
    """What ``skips_parameters = False`` says: DDP need not look for parameters without."""
    torch.manual_seed(0)
    overrides = [f"method.{option}" for option in options.split()]
    method = build_method(compose([f"method={name}", "dataset=refshapes", "weights=null", *overrides]).method).train()
    assert not method.skips_parameters
    batch = synthetic_batch(method, 2, (96, 128))
    for epoch, targets in ((0, True), (9, False)):
        method.zero_grad(set_to_none=True)
        method.on_step(epoch, 0, 10)
        batch.valid &= targets
        method(batch)["total"].backward()
        names = {id(parameter): key for key, parameter in method.named_parameters()}
        assert [names[id(parameter)] for parameter in method.trainable() if parameter.grad is None] == []
