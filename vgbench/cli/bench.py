"""``vgbench bench``: what a method costs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from vgbench.cli import hydra_job

NAME = "bench"
HELP = "Measure training and inference speed, memory and FLOPs."
EXAMPLE = "vgbench bench method=alvg trainer.precision=bf16-mixed bench.batch_size=2"
TAKES_PLUGINS = True

KEYS = (
    "method=NAME; bench.batch_size=, bench.precision=[32-true,bf16-mixed], bench.compile=[false,true], "
    "bench.options=[{},{dropout:0}], bench.json=FILE, trainer=gpu|cpu|auto; suite=NAME: many measurements, "
    "out=FILE"
)


def add_arguments(parser: ArgumentParser) -> None:
    """Those of every job."""
    hydra_job.add_arguments(parser, KEYS)


def execute(arguments: Namespace) -> int:
    """Measure, print the table."""
    return hydra_job.execute(arguments, _measure, config_name="bench")


def _measure(config: Any) -> None:
    from vgbench.bench.bench import bench

    bench(config)
