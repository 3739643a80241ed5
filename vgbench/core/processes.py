"""Which of the processes of a launch this one is, before and after they are connected, and the cores it may use."""

from __future__ import annotations

import os
import sys

#: Global rank in the environment, by launcher: torchrun and whoever imitates it, srun, mpirun.
RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")

#: Number of processes that a launcher started, likewise.
COUNTS = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def process_rank() -> int:
    """0 for the first process of a launch, more for all others, as the launcher told it.

    Lightning's own processes know their place on their node, and which node it is.
    """
    for name in RANKS:
        if name in os.environ:
            return int(os.environ[name])
    return int(os.environ.get("NODE_RANK", 0)) + int(os.environ.get("LOCAL_RANK", 0))


def usable_cores() -> int:
    """Processor cores that this process may use: a scheduler hands out fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def launched_processes() -> int:
    """How many processes the launcher started; 1 if there is none."""
    return max((int(os.environ[name]) for name in COUNTS if name in os.environ), default=1)


def child_environment() -> dict[str, str]:
    """The environment in which a Python process imports what this one does.

    Python looks for the modules of a command (``-c``, ``-m``) in the current folder first: in a checkout of VGBench
    that would be other code than what is installed. From Python 3.11 on it can be told not to.
    """
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
