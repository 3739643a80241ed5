"""Predictions on their way from the device to disk, the host's part beside the next batches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from vgbench.core.processes import usable_cores
from vgbench.types import Prediction

__all__ = ["HostPart", "PredictionPipeline"]

HostPart = Callable[[], Mapping[str, list[Prediction]]]  # what GroundingMethod.start_prediction leaves for the host


class PredictionPipeline:
    """Runs the host's part of predicting in threads; batches come out in the order in which they went in.

    Args:
        add: takes the keys of a batch, how many of its samples could not be read, and its predictions by output.
        threads: None: one for every four cores that this process may use, one to four.
    """

    def __init__(
        self, add: Callable[[Sequence[str], int, Mapping[str, list[Prediction]]], None], threads: int | None = None
    ) -> None:
        self._add = add
        threads = threads or min(4, max(1, usable_cores() // 4))
        self._most = threads + 1  # batches that wait; a heat map of each sample is in memory so long
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="predictions")
        self._batches: deque[tuple[Sequence[str], int, Future[Mapping[str, list[Prediction]]]]] = deque()

    def put(self, keys: Sequence[str], skipped: int, host_part: HostPart) -> float:
        """Hand over a batch; returns the seconds that this waited because the threads do not keep pace."""
        self._batches.append((keys, skipped, self._threads.submit(_without_gradients, host_part)))
        return self._take_out(self._most)

    def finish(self) -> float:
        """Wait for all batches; returns the seconds that took. What a host part raised is raised here or in ``put``."""
        try:
            return self._take_out(0)
        finally:
            self._threads.shutdown(cancel_futures=True)

    def _take_out(self, most: int) -> float:
        """Batches that are ready, and those beyond ``most``, go on; the seconds waited for them."""
        started = time.perf_counter()
        while self._batches and (len(self._batches) > most or self._batches[0][2].done()):
            keys, skipped, predictions = self._batches.popleft()
            self._add(keys, skipped, predictions.result())
        return time.perf_counter() - started


def _without_gradients(host_part: HostPart) -> Mapping[str, list[Prediction]]:
    with torch.inference_mode():  # of its thread
        return host_part()
