"""``GroundingMeter`` on two processes (gloo): the numbers of one process that saw everything, whoever saw what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import vgbench

TARGET = [0.0, 0.0, 10.0, 10.0]
# IoU 1, 0.8, 0.2 and 0; the last is off by the whole box
ANSWERS = [TARGET, [0.0, 0.0, 10.0, 8.0], [0.0, 0.0, 10.0, 2.0], [20.0, 20.0, 30.0, 30.0]]
TASKS = ("rec", "res", "grec")
#: How many of the four expressions the first process sees, the second sees the others.
SHARES = {"equal": 2, "unequal": 3, "nothing for the second": 4, "nothing for the first": 0}
#: By hand. oIoU: (100 + 80 + 20 + 0) / (100 + 100 + 100 + 200).
BY_HAND = {"rec": {"prec@0.5": 50.0, "miou": 50.0}, "res": {"miou": 50.0, "oiou": 40.0}, "grec": {"pr@f1": 50.0}}


def mask(box: list[float]) -> torch.Tensor:
    x1, y1, x2, y2 = map(int, box)
    pixels = torch.zeros(40, 40, dtype=torch.bool)
    pixels[y1:y2, x1:x2] = True
    return pixels


def feed(meter: Any, numbers: range, batch: int = 2) -> None:
    for start in range(numbers.start, numbers.stop, batch):
        boxes = [ANSWERS[number] for number in range(start, min(start + batch, numbers.stop))]
        preds = [{"boxes": torch.tensor([box]), "scores": torch.ones(1), "mask": mask(box)} for box in boxes]
        meter.update(preds, [{"boxes": torch.tensor([TARGET]), "masks": mask(TARGET)[None]} for _ in boxes])


def values(meter: Any) -> dict[str, float]:
    return {name: float(value) for name, value in meter.compute().items()}


def worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for share, first in SHARES.items():
        for task in TASKS:
            meter = vgbench.GroundingMeter(task)
            feed(meter, range(first) if rank == 0 else range(first, 4))
            results.setdefault(share, {})[task] = values(meter)
    again = vgbench.GroundingMeter("rec")  # goes on after a computation, as in a loop that validates each epoch
    feed(again, range(2) if rank == 0 else range(0))
    halfway = values(again)
    feed(again, range(0) if rank == 0 else range(2, 4))
    results["in two parts"] = {"rec": values(again), "halfway": halfway}
    again.reset()
    results["nothing for anybody"] = {"rec": values(again)}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, dict[str, float]]]]:
    folder = tmp_path_factory.mktemp("processes")
    mp.start_processes(worker, (str(folder),), nprocs=2, start_method="fork")
    return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("task", TASKS)
def test_both_processes_have_the_numbers_of_one(results: list[Any], share: str, task: str) -> None:
    one = vgbench.GroundingMeter(task)
    feed(one, range(4))
    whole = values(one)
    for name, value in BY_HAND[task].items():
        assert whole[name] == pytest.approx(value)
    for result in results:
        assert result[share][task] == pytest.approx(whole, nan_ok=True)


def test_a_meter_goes_on_after_it_was_read(results: list[Any]) -> None:
    for result in results:
        assert result["in two parts"]["halfway"]["miou"] == pytest.approx(90.0)
        assert result["in two parts"]["rec"]["miou"] == pytest.approx(50.0)
        assert all(value != value for value in result["nothing for anybody"]["rec"].values())  # not defined
