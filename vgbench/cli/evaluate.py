"""``vgbench eval``: score a checkpoint."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from vgbench.cli import hydra_job

NAME = "eval"
HELP = "Evaluate a checkpoint (ours or the authors') and write a run folder."
EXAMPLE = "vgbench eval method=alvg dataset=refcoco data_root=data checkpoint=runs/alvg-refcoco"
TAKES_PLUGINS = True

KEYS = (
    "method=NAME dataset=NAME (vgbench list) data_root=FOLDER checkpoint=RUN|FILE|hf://ORG/NAME|shipped|best|last; "
    "eval.splits=[val,testA], eval.limit=N, eval.batch_size=, eval.variants=[TASK/NAME], trainer=gpu|cpu|auto, "
    "run_dir=FOLDER; of a language model method.model=, method.protocol=, eval.price="
)


def add_arguments(parser: ArgumentParser) -> None:
    """Those of every job."""
    hydra_job.add_arguments(parser, KEYS)


def execute(arguments: Namespace) -> int:
    """Score a checkpoint; writes a run folder."""
    return hydra_job.execute(arguments, _evaluate, prefix="eval-")


def _evaluate(config: Any) -> float:
    from vgbench.training.run import evaluate

    return evaluate(config).primary
