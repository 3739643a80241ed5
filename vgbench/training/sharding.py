"""Training on several processes: the model on each of them (DDP), or spread over them (FSDP2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from vgbench.method import GroundingMethod

__all__ = ["ReplicatedStrategy", "ShardedStrategy", "clip_sharded", "separated", "shard", "sharded_like", "whole"]


class ReplicatedStrategy(DDPStrategy):
    """Lightning's strategy for DDP; without looking for parameters that got no gradient where the method says so.

    ``find_unused_parameters: null`` is the method's own word, :attr:`GroundingMethod.skips_parameters`.
    """

    def __init__(self, find_unused_parameters: bool | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.find_unused_parameters = find_unused_parameters

    def _setup_model(self, model: nn.Module) -> nn.parallel.DistributedDataParallel:
        search = self.find_unused_parameters
        if search is None:
            method = getattr(self.lightning_module, "method", None)
            search = method.skips_parameters if isinstance(method, GroundingMethod) else True
        self._ddp_kwargs["find_unused_parameters"] = search
        return super()._setup_model(model)


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, sharded over all processes; checkpoints are one whole file, as without it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, **options)

    def _configure_launcher(self) -> None:
        """As DDP: the launcher of processes that somebody else started does nothing, but is there."""
        assert self.cluster_environment is not None
        self._launcher = _SubprocessScriptLauncher(self.cluster_environment, self.num_processes, self.num_nodes)

    def setup_environment(self) -> None:
        if self.lightning_module is None:  # processes are connected before there is a model
            self._setup_distributed()
            return
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        checkpoint = super().load_checkpoint(checkpoint_path, weights_only)
        self.checkpoint_io.saved_step = checkpoint.get("global_step")  # type: ignore[attr-defined]
        return checkpoint


def shard(method: GroundingMethod, mesh: DeviceMesh) -> None:
    """Shard each of the method's ``sharded_blocks`` by itself and the rest together, in place.

    Its parameters are then DTensors, except while a forward pass runs; state-dict names stay. The method's
    ``replicated_parameters``, and scalars, stay whole on every process, and their gradients are averaged.

    Args:
        mesh: of one dimension, the processes.
    """
    replicated: set[nn.Parameter] = set(method.replicated_parameters())
    replicated.update(parameter for parameter in method.parameters() if not parameter.ndim)
    for block in method.sharded_blocks():
        fully_shard(block, mesh=mesh, ignored_params=replicated)
    fully_shard(method, mesh=mesh, ignored_params=replicated)
    for forward in ("predict", "start_prediction"):
        register_fsdp_forward_method(method, forward)  # type: ignore[arg-type]

    def average(parameter: Tensor) -> None:
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad, group=mesh.get_group())
        parameter.grad /= mesh.size()

    for parameter in replicated:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(average)


def separated(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Optimiser groups that hold sharded parameters only, or whole ones only: an optimiser steps a group at once."""
    parts = []
    for group in groups:
        parameters = list(group["params"])
        for sharded in (True, False):
            part = [parameter for parameter in parameters if isinstance(parameter, DTensor) == sharded]
            if part:
                parts.append({**group, "params": part})
    return parts


def clip_sharded(parameters: Sequence[Tensor], max_norm: float) -> Tensor:
    """:func:`torch.nn.utils.clip_grad_norm_` over sharded and whole parameters together; returns the norm before."""
    parts = [
        [parameter for parameter in parameters if parameter.grad is not None and isinstance(parameter, DTensor) == kind]
        for kind in (True, False)
    ]
    norms = [whole(nn.utils.get_total_norm([p.grad for p in part if p.grad is not None])) for part in parts if part]
    total = torch.linalg.vector_norm(torch.stack(norms))
    for part in parts:
        nn.utils.clip_grads_with_norm_(part, max_norm, total)
    return total


def whole(tensor: Tensor) -> Tensor:
    """A tensor gathered from all processes; all of them must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def sharded_like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, the same on every process, spread over them as ``parameter`` is."""
    if isinstance(value, DTensor) or not isinstance(parameter, DTensor):
        return value.to(parameter.device)
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
