"""The host's part of predicting runs beside the next batches, in order, and gives what ``predict`` gives."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import pytest
import torch

from vgbench.batches.synthetic import synthetic_batch
from vgbench.config.compose import compose
from vgbench.core.errors import UserError
from vgbench.training.pipeline import PredictionPipeline
from vgbench.training.setup import build_method
from vgbench.types import Prediction


class Collected:
    def __init__(self) -> None:
        self.keys: list[str] = []
        self.skipped = 0

    def add(self, keys: Sequence[str], skipped: int, predictions: Mapping[str, list[Prediction]]) -> None:
        assert len(predictions["main"]) == len(keys)
        self.keys += keys
        self.skipped += skipped


def answers(count: int) -> dict[str, list[Prediction]]:
    return {"main": [Prediction(torch.zeros(0, 4), torch.zeros(0)) for _ in range(count)]}


def test_batches_come_out_in_order_and_nobody_waits_for_the_first() -> None:
    collected, release, threads = Collected(), threading.Event(), set()
    pipeline = PredictionPipeline(collected.add, threads=2)

    def slow() -> dict[str, list[Prediction]]:
        threads.add(threading.current_thread())
        assert release.wait(20)
        return answers(2)

    def quick() -> dict[str, list[Prediction]]:
        threads.add(threading.current_thread())
        return answers(1)

    pipeline.put(["a", "b"], 0, slow)
    pipeline.put(["c"], 1, quick)  # the caller goes on while the first batch is not ready
    assert collected.keys == []
    release.set()
    pipeline.put(["d"], 0, quick)
    pipeline.finish()
    assert collected.keys == ["a", "b", "c", "d"] and collected.skipped == 1
    assert threading.main_thread() not in threads


def test_few_batches_wait() -> None:
    collected, started = Collected(), []
    pipeline = PredictionPipeline(collected.add, threads=1)
    for number in range(10):
        pipeline.put([str(number)], 0, lambda: started.append(1) or answers(1))
        assert number + 1 - len(collected.keys) <= 2
    pipeline.finish()
    assert collected.keys == [str(number) for number in range(10)]


def test_an_error_of_the_host_part_reaches_the_run() -> None:
    def broken() -> dict[str, list[Prediction]]:
        raise UserError("no such proposals")

    pipeline = PredictionPipeline(Collected().add)
    with pytest.raises(UserError, match="no such proposals"):
        for _ in range(5):
            pipeline.put(["a"], 0, broken)
        pipeline.finish()


@pytest.mark.parametrize("name", ["alvg", "vglaw", "amc", "simvg"])
def test_the_host_part_in_a_thread_gives_what_predict_gives(name: str) -> None:
    method = build_method(compose([f"method={name}", "dataset=refshapes", "weights=null"]).method).eval()
    batch = synthetic_batch(method, 3, (96, 128))
    collected: list[Mapping[str, list[Prediction]]] = []
    pipeline = PredictionPipeline(lambda keys, skipped, predictions: collected.append(predictions))
    with torch.set_grad_enabled(method.requires_grad_at_inference):
        expected = method.predict(batch)
        pipeline.put(batch.keys, 0, method.start_prediction(batch))
    pipeline.finish()
    assert collected[0].keys() == expected.keys()
    for output, predictions in expected.items():
        for ours, theirs in zip(collected[0][output], predictions, strict=True):
            assert torch.equal(torch.as_tensor(ours.boxes), torch.as_tensor(theirs.boxes))
            assert torch.equal(torch.as_tensor(ours.scores), torch.as_tensor(theirs.scores))
            assert (ours.mask, ours.canvas_mask, ours.point) == (theirs.mask, theirs.canvas_mask, theirs.point)
            assert ours.masks_at == theirs.masks_at
