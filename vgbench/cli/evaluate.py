"""``vgbench eval``: score a checkpoint."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from vgbench.cli import hydra_job

NAME = "eval"
HELP = "Evaluate a checkpoint (ours or the authors') and write a run folder."
EXAMPLE = "vgbench eval method=alvg dataset=refcoco data_root=data checkpoint=runs/alvg-refcoco"
TAKES_PLUGINS = True

add_arguments = hydra_job.add_arguments


def execute(arguments: Namespace) -> int:
    """Score a checkpoint; writes a run folder."""
    return hydra_job.execute(arguments, _evaluate, prefix="eval-")


def _evaluate(config: Any) -> float:
    from vgbench.training.run import evaluate

    return evaluate(config).primary
