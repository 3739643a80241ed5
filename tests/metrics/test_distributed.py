"""Two processes with gloo give exactly the numbers of one."""

import multiprocessing
import os
import socket

import numpy as np
import torch
from torch import distributed

from vgbench.data import rle
from vgbench.data.table import AnnotationTable
from vgbench.metrics.bootstrap import intervals
from vgbench.metrics.evaluator import Evaluator
from vgbench.types import Prediction

SPECS = ["rec", "rec/gt_clip+batch_mean@4", "res", "grec", "gres", "pointing", "phrase"]
N = 23


def split():
    random = np.random.default_rng(0)
    rows, predictions = [], []
    for index in range(N):
        low, size = random.uniform(0, 20, 2), random.uniform(5, 25, 2)
        box = np.concatenate([low, low + size])
        found = box + random.normal(0, 3, 4)
        found[2:] = np.maximum(found[:2], found[2:])
        truth, answer = (rle.encode(random.random((50, 60)) < p) for p in random.random(2))
        rows.append(
            {
                "key": f"e{index}", "image_id": index // 3, "image": "", "width": 60, "height": 50, "expression": "",
                "boxes": [box], "masks": [truth["counts"]], "polygons": [1], "ann_ids": [], "categories": ["people"],
                "ref_id": None, "sent_id": None, "group": 0, "source": "", "split": "val",
            }
        )  # fmt: skip
        point = (int(found[0]) + 3, int(found[1]) + 3)
        boxes = torch.tensor(found, dtype=torch.float32)[None]
        predictions.append(Prediction(boxes, torch.rand(1), mask=answer, point=point))
    return AnnotationTable.from_rows(rows, {"dataset": "test", "split": "val", "task": "rec"}), predictions


def evaluate(rows, batch):
    torch.manual_seed(0)
    table, predictions = split()
    evaluator = Evaluator(table, SPECS)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        evaluator.update([f"e{i}" for i in part], [predictions[i] for i in part])
    outcomes = evaluator.outcomes()
    images = table.column("image_id")
    bounds = {spec: intervals(result.ratios, images[result.rows], 50) for spec, result in outcomes.items()}
    computed = {spec: {k: v.item() for k, v in metric.compute().items()} for spec, metric in evaluator.metrics.items()}
    return {
        "compute": evaluator.compute(),
        "metrics": computed,
        "bounds": bounds,
        "rows": outcomes["rec"].rows.tolist(),
    }


def worker(rank, port, shares, queue):
    torch.set_num_threads(1)  # a forked process must not wait for its parent's thread pool
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    queue.put((rank, evaluate(shares[rank], 4)))
    distributed.destroy_process_group()


def two_processes(shares):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=worker, args=(rank, port, shares, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    results = dict(queue.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(timeout=30)
    return results


def test_a_padded_sampler_changes_nothing():
    alone = evaluate(list(range(N)), 5)
    # Interleaved as torch's sampler does it, and padded with the first expression to equal lengths.
    both = two_processes([list(range(0, N, 2)), [*range(1, N, 2), 0]])
    assert repr(both[0]) == repr(both[1]) == repr(alone)
    assert alone["rows"] == list(range(N))


def test_a_process_without_expressions():
    alone = evaluate(list(range(N)), 5)
    both = two_processes([[], list(range(N))])
    assert repr(both[0]) == repr(both[1]) == repr(alone)
