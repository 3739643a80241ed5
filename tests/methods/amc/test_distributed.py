"""AMC over two processes: the queues of both are those of one process with the joined batch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vgbench.methods.amc import AMC
from vgbench.methods.amc.step import Draws, Pairs

SIZES = {
    "image_size": 16,
    "eval_size": 16,
    "patch_size": 8,
    "vision_width": 8,
    "vision_depth": 1,
    "vision_heads": 2,
    "text_width": 8,
    "text_layers": 2,
    "text_heads": 2,
    "text_ffn": 16,
    "max_positions": 8,
    "vocab_size": 20,
    "fusion_layer": 1,
    "gradcam_layer": 1,
    "embed_dim": 4,
    "queue_size": 10,
    "pad_id": 0,
    "cls_id": 2,
    "mask_id": 4,
}
HALF = 3


def batch() -> dict[str, Tensor]:
    """Six pairs with all draws of the step; negatives stay within their half."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(5, 20, (2 * HALF, 5), generator=generator)
    labels = torch.where(torch.rand(ids.shape, generator=generator) < 0.4, ids, -100)
    return {
        "image": torch.randn(2 * HALF, 3, 16, 16, generator=generator),
        "ids": ids,
        "pad": torch.zeros_like(ids, dtype=torch.bool),
        "mask": torch.eye(16).cumsum(1).expand(2 * HALF, -1, -1),
        "images": torch.tensor([1, 2, 0, 1, 2, 0]),
        "texts": torch.tensor([2, 0, 1, 2, 0, 1]),
        "masked": torch.where(labels > 0, 4, ids),
        "labels": labels,
    }


def step(method: AMC, part: dict[str, Tensor]) -> dict[str, Tensor]:
    drawn = (part["images"], part["texts"]), (part["masked"], part["labels"])
    pairs = Pairs(part["image"], part["ids"], part["pad"], part["mask"])
    return method.training_losses(pairs, Draws(negatives=drawn[0], masked_words=drawn[1]))


def build() -> AMC:
    torch.manual_seed(0)
    method = AMC(**SIZES).eval()
    method.network.queue_ptr_img.fill_(7)  # wraps around
    return method


def halves(rank: int) -> dict[str, Tensor]:
    return {name: value[rank * HALF : (rank + 1) * HALF] for name, value in batch().items()}


def work(rank: int, folder: str) -> None:
    """Two steps in one of two processes, through DistributedDataParallel as the runner does it."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.method = build()

        def forward(self, part: dict[str, Tensor]) -> Tensor:
            return step(self.method, part)["total"]

    module = Wrapped().eval()
    parallel = torch.nn.parallel.DistributedDataParallel(module)
    totals = []
    for _ in range(2):
        total = parallel(halves(rank))
        total.backward()
        totals.append(total.detach())
    gradients = {name: p.grad for name, p in module.method.network.named_parameters() if p.grad is not None}
    state = {name: value for name, value in module.method.network.state_dict().items() if "queue" in name}
    torch.save({"totals": totals, "gradients": gradients, "state": state}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_keep_the_queues_of_the_joined_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]

    joined = build()
    whole = batch()
    offset = torch.arange(2 * HALF) // HALF * HALF
    whole["images"], whole["texts"] = whole["images"] + offset, whole["texts"] + offset
    first_queue = {name: value.clone() for name, value in joined.network.state_dict().items() if "queue" in name}
    gradients: dict[str, Tensor] = {}
    for number in range(2):
        # In-batch candidates are those of the own process (official), so a process's losses are those of its half.
        before = {name: value.clone() for name, value in joined.network.state_dict().items()}
        for rank in range(2):
            alone = build()
            alone.network.load_state_dict(before)
            total = step(alone, halves(rank))["total"]
            torch.testing.assert_close(found[rank]["totals"][number], total)
            total.backward()
            for name, parameter in alone.network.named_parameters():
                if parameter.grad is not None:
                    gradients[name] = gradients.get(name, 0) + parameter.grad / 2
        step(joined, whole)
    for rank in range(2):
        for name, value in joined.network.state_dict().items():
            if "queue" in name:
                torch.testing.assert_close(found[rank]["state"][name], value)
                assert not torch.equal(first_queue[name], value), name
        assert found[rank]["gradients"].keys() == gradients.keys()
        for name, value in gradients.items():
            torch.testing.assert_close(found[rank]["gradients"][name], value, rtol=1e-4, atol=1e-6)
