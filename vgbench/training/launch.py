"""The processes of a run, whatever started them: connected before the run folder is made, watched until the end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from lightning.pytorch.strategies import Strategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher, _SubprocessScriptLauncher
from omegaconf import DictConfig

from vgbench.core.errors import Stopped, UserError
from vgbench.core.processes import launched_processes
from vgbench.core.stop import current_request
from vgbench.training.trainer import trial_trainer

PARENT = "VGBENCH_PARENT"  # environment variable: id of the process that started this one
LOOK_EVERY = 1.0  # seconds between two looks at the other processes
_children: list[subprocess.Popen] = []
_connected = threading.Event()
_ending = threading.Event()  # this process has said why all of them end


class Processes:
    """The connected processes of a run."""

    def __init__(self, strategy: Strategy | None = None) -> None:
        self.strategy = strategy  # of one process: None

    def agree(self, make: Callable[[], str]) -> str:
        """What ``make`` returns on process 0, on all of them.

        Raises:
            UserError: on all of them, if ``make`` does; with a message on process 0.
        """
        if self.strategy is None:
            return make()
        text, error = None, None
        if self.strategy.is_global_zero:
            try:
                text = make()
            except (UserError, OSError) as problem:
                error = problem
                _ending.set()
        text = self.strategy.broadcast(text)
        if error is not None:
            raise error
        if text is None:
            raise UserError("")  # process 0 says why
        return text


def connect(config: DictConfig) -> Processes:
    """Start the other processes if nobody has, and connect all; in a sweep they are there already.

    Raises:
        UserError: if the launcher's processes do not fit the ``trainer`` node.
    """
    trainer = trial_trainer(config)
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher):
        return Processes()
    environment = launcher.cluster_environment
    try:
        environment.validate_settings(num_devices=launcher.num_processes, num_nodes=launcher.num_nodes)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"trainer: {error}") from None
    if not environment.creates_processes_externally:
        os.environ[PARENT] = str(os.getpid())
        launcher._call_children_scripts()
        current_request().forward = launcher.kill
        _children.extend(launcher.procs)
        _watch_children()
    elif os.environ.get(PARENT) == str(os.getppid()) and not _connected.is_set():
        _watch_parent(os.getppid())
    _connected.set()
    trainer.strategy.setup_environment()
    return Processes(trainer.strategy)


def check_launch(config: DictConfig) -> None:
    """Look at the ``trainer`` node, Lightning's opinion of it included, and at who launched this process.

    Raises:
        UserError: if Lightning does not take it, if its processes would be copies of this one, or if each launched
            process would train by itself.
    """
    trainer = trial_trainer(config)
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise UserError(
            f"trainer.strategy={config.trainer.strategy}: processes that are copies of the first are not supported; "
            "take trainer=ddp, which starts its own (in a notebook: !vgbench run trainer=ddp ...)"
        )
    launched, processes = launched_processes(), trainer.world_size
    if launched > 1 and launched != processes:
        raise UserError(
            f"{launched} processes were launched, but trainer.devices and trainer.num_nodes make {processes}: each "
            f"group would train the same thing; take trainer=ddp trainer.devices=N with {launched} in all, or start "
            "it once"
        )


def lost_process() -> UserError | Stopped | None:
    """What ended this process if another one failed before it; connections break a moment before that is known."""
    deadline = time.monotonic() + (2 * LOOK_EVERY if _children else 0)
    while not any(codes := [child.poll() for child in _children]) and time.monotonic() < deadline:
        time.sleep(0.1)
    failed = next(((number, code) for number, code in enumerate(codes, 1) if code), None)
    if failed is None or _ending.is_set():
        return None
    number, code = failed
    goes_on = "resume=true goes on from the last checkpoint"
    if code < 0:
        return Stopped(-code, f"process {number} was killed by signal {-code}; {goes_on}")
    return UserError(f"process {number} ended with exit code {code}; {goes_on}")


def _watch_children() -> None:
    """When one of the processes fails, end all: the others would wait for it in a collective for ever."""

    def look() -> None:
        while not any(codes := [child.poll() for child in _children]):
            if all(code == 0 for code in codes):
                return
            time.sleep(LOOK_EVERY)
        time.sleep(3 * LOOK_EVERY)  # who is not waiting says it better
        if _ending.is_set() or current_request().signal is not None:
            return
        print(f"vgbench: error: {lost_process()}", file=sys.stderr)
        for child in _children:
            child.kill()
        os._exit(1)

    threading.Thread(target=look, daemon=True, name="watch").start()


def _watch_parent(parent: int) -> None:
    """End this process when the one that started it is gone."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY)
        os._exit(1)

    threading.Thread(target=look, daemon=True, name="watch").start()
