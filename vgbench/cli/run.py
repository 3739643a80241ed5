"""``vgbench run``: one training, or a flow of them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from vgbench.cli import hydra_job
from vgbench.core.errors import UserError

NAME = "run"
HELP = "Train a method on a dataset, evaluate it, write a run folder; flow=NAME: a sequence of such runs."
EXAMPLE = (
    "vgbench run method=alvg dataset=refcoco data_root=data method.tokenizer=beit3.spm "
    "pretrained=beit3_base_indomain_patch16_224.pth trainer=gpu"
)
TAKES_PLUGINS = True

KEYS = (
    "method=NAME dataset=NAME (vgbench list) data_root=FOLDER; trainer=auto|cpu|gpu|ddp|fsdp, pretrained=FILE (the "
    "parts that the authors start from) or weights=RUN|FILE|shipped (a whole model), recipe.epochs=, "
    "recipe.batch_size=, recipe.lr=, seed=, eval.splits=[val,testA], run_dir=FOLDER, resume=true, smoke=true "
    "(everything once, in seconds), logger=[csv,wandb], task=rec|grec|pointing, flow=NAME"
)


def add_arguments(parser: ArgumentParser) -> None:
    """Those of every job, and ``--check``."""
    hydra_job.add_arguments(parser, KEYS)
    parser.add_argument("--check", action="store_true", help="look at everything a run would need, and stop")


def execute(arguments: Namespace) -> int:
    """
    Raises:
        UserError: if nothing was chosen, or a flow is to be swept over.
    """
    if not any(item.startswith("flow=") for item in arguments.overrides):
        if not arguments.cfg and not arguments.overrides:
            raise UserError(_choices())
        return hydra_job.execute(arguments, _rehearse if arguments.check else _train)
    from vgbench.training import flow

    if arguments.multirun or arguments.cfg not in (None, "job"):
        raise UserError("a flow goes with neither -m nor --cfg hydra; call it once per value, or use --cfg job")
    if arguments.check:
        return flow.check(arguments.overrides)
    return flow.run(arguments.overrides, show=arguments.cfg == "job")


def train(overrides: Sequence[str]) -> int:
    """``vgbench run`` with these overrides; the exit code."""
    return hydra_job.execute(
        Namespace(command=NAME, overrides=list(overrides), multirun=False, cfg=None, plugin=[]), _train
    )


def _choices() -> str:
    """What to say to somebody who chose nothing: nobody trains what they did not choose."""
    from vgbench.core.registry import methods

    return (
        f"run: say what to train: method={'|'.join(methods)} dataset=NAME (vgbench list datasets); the first try, on "
        "embedded data and in minutes: vgbench demo, or vgbench run method=alvg dataset=refshapes"
    )


def _rehearse(config: Any) -> None:
    from vgbench.training.run import rehearse

    rehearse(config)
    print("vgbench: nothing is missing")


def _train(config: Any) -> float:
    from vgbench.training.run import run

    return run(config).primary
