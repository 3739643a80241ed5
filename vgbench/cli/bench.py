"""``vgbench bench``: what a method costs."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from vgbench.cli import hydra_job

NAME = "bench"
HELP = "Measure training and inference speed, memory and FLOPs."
EXAMPLE = "vgbench bench method=alvg trainer.precision=bf16-mixed bench.batch_size=2"
TAKES_PLUGINS = True

add_arguments = hydra_job.add_arguments


def execute(arguments: Namespace) -> int:
    """Measure, print the table."""
    return hydra_job.execute(arguments, _measure, config_name="bench")


def _measure(config: Any) -> None:
    from vgbench.bench.bench import bench

    bench(config)
