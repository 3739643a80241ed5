"""Runs that are told to stop (SIGTERM, Ctrl-C): saved at the end of a step while training, ended at once elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from vgbench.core.errors import Stopped
from vgbench.core.processes import process_rank

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """What a signal asked of this process.

    Attributes:
        signal: the first that came, or None.
        defers: whether somebody ends the run at the next good moment; else a signal ends it at once, as a second does.
        describe: how far the run got, for the line that is printed; set by whoever knows.
        forward: passes SIGTERM on to processes that this one started, or None.
        requeues: the signal at which SLURM is asked to start the job again.
        listens: whether signals arrive here at all.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.defers = False
        self.listens = False
        self.requeues: int | None = None
        self.describe: Callable[[], str] = lambda: "stopped"
        self.forward: Callable[[int], object] | None = None
        self._process = os.getpid()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if os.getpid() != self._process:  # a loader's process, forked from this one
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        first = self.signal is None
        if not first and process_rank() != 0:  # process 0 passes on what reached this one too
            return
        self.signal = self.signal or number
        if self.forward and number == signal.SIGTERM:  # Ctrl-C reaches the whole group by itself
            self.forward(number)
        if not (first and self.defers):
            self.end()

    def end(self) -> None:
        """
        Raises:
            Stopped: always.
        """
        self.defers = False
        number, text = self.signal or signal.SIGTERM, ""
        if process_rank() == 0:
            text = self.describe()
            if self.signal is not None and self.signal == self.requeues:
                text += f"; {requeue_job()}"
        raise Stopped(number, text)


def requeue_job() -> str:
    """Ask SLURM to put the job of this process back into its queue; a line on what it said."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"job {job} could not be requeued ({error})"
    return f"job {job} is requeued" if done.returncode == 0 else f"job {job} could not be requeued ({done.stderr})"


_requests: list[StopRequest] = []


def current_request() -> StopRequest:
    """That of the run at hand; one that no signal reaches where nobody listens (a notebook, a test)."""
    return _requests[-1] if _requests else StopRequest()


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Turn signals into :class:`Stopped` until the end of the block. Outside the main thread nothing is listened to."""
    request = StopRequest()
    _requests.append(request)
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, request.handle) for number in SIGNALS}
        request.listens = True
    try:
        yield request
    finally:
        _requests.pop()
        for number, handler in before.items():
            signal.signal(number, handler)
