"""What is looked at before anything is trained or a folder is made: every name that a run will need at any time."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from difflib import get_close_matches

import lightning as L
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig

from vgbench import optim
from vgbench.config.identity import method_class
from vgbench.core.errors import UserError
from vgbench.data.dataset import GroundingData
from vgbench.method import EvaluationOnly, GroundingMethod
from vgbench.metrics.catalog import make_metric
from vgbench.probes.catalog import parse_all
from vgbench.training.data import scored_splits
from vgbench.training.ending import endings
from vgbench.training.evaluation import metrics_by_output
from vgbench.training.launch import check_launch
from vgbench.training.setup import BEST, LAST
from vgbench.training.speed import COMPILE

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
SHORT_PRECISIONS = ("32", "bf16", "16")  # Lightning's short forms of the same
SEEDS = 2**32


def check_machine(config: DictConfig) -> None:
    """Precision, devices, loader processes and seed.

    Raises:
        UserError: naming the key, and what it could be.
    """
    precision = str(config.trainer.precision)
    if precision not in (*PRECISIONS, *SHORT_PRECISIONS):
        raise UserError(f"trainer.precision={precision}: choose from {', '.join(PRECISIONS)}")
    workers = config.workers
    if workers != "auto" and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 0):
        raise UserError(f"workers={workers}: give a whole number of at least 0, or auto")
    if config.seed >= SEEDS:
        raise UserError(f"seed={config.seed}: give a whole number below {SEEDS}")
    every = config.checkpoint_every
    if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        raise UserError(f"checkpoint_every={every}: give a whole number of at least 1, or null")
    allowed = inspect.signature(L.Trainer.__init__).parameters
    for key in config.trainer:
        if key not in allowed:
            close = get_close_matches(str(key), [name for name in allowed if name != "self"], n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"trainer.{key}: Lightning's Trainer has no such argument{hint}")
    check_launch(config)


def check_training(config: DictConfig) -> None:
    """What a training is told besides the numbers of :func:`vgbench.training.setup.check_numbers`.

    Raises:
        UserError: naming the key, and what it could be; or that the method is not trained here.
    """
    cls = method_class(config.method)
    if issubclass(cls, EvaluationOnly):  # before its options are taken for those of a training
        raise UserError(cls.no_training)
    recipe = config.recipe
    words = {
        "recipe.sampling": (recipe.sampling, ("object", "expression")),
        "checkpoint": (config.checkpoint, (None, BEST, LAST)),
        "compile": (config.compile, COMPILE),
    }
    for key, (value, allowed) in words.items():
        if value not in allowed:
            names = ", ".join("null" if word is None else str(word).lower() for word in allowed)
            hint = "; to start from a model, give weights=" if key == "checkpoint" else ""
            raise UserError(f"{key}={value}: choose from {names}{hint}")
    for key, value, most in (("recipe.ema", recipe.ema, 1.0), ("recipe.clip_norm", recipe.clip_norm, float("inf"))):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < most:
            raise UserError(f"{key}={value}: give a number above 0{' and below 1' if most == 1 else ''}, or null")
    endings(recipe, "")


def check_recipe_parts(config: DictConfig, method: GroundingMethod) -> None:
    """Make schedule and optimiser once, and ask whether the method can do what ``checkpointing`` wants.

    Raises:
        UserError: if one of them does not take its options.
    """
    recipe = config.recipe
    try:
        instantiate(recipe.schedule)(0, 0, 1)
    except (HydraException, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"recipe.schedule: {error.__cause__ or error}") from None
    try:
        optim.build_optimizer(method.param_groups(recipe.lr), instantiate(recipe.optimizer, _convert_="all"))
    except (HydraException, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"recipe.optimizer: {error.__cause__ or error}") from None
    if config.checkpointing and not any(True for _ in method.checkpointed_blocks()):
        raise UserError(f"checkpointing=true: {method.name} names no layers that could be recomputed")


def check_splits(config: DictConfig, dataset: GroundingData, training: bool = False) -> None:
    """The splits that are trained, validated and scored on, and those that get a control.

    Raises:
        UserError: for a split that the dataset does not have.
    """
    control = config.eval.control
    keys = {"eval.splits": scored_splits(config, dataset), "eval.control": as_list(control)}
    if training:
        keys |= {"recipe.train_split": [config.recipe.train_split], "recipe.val_split": [config.recipe.val_split]}
    for key, names in keys.items():
        for name in names:
            if name not in dataset.splits:
                close = get_close_matches(str(name), dataset.splits, n=1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise UserError(
                    f"{key}: {dataset.name} has no split {name!r}; {hint}there are: {', '.join(dataset.splits)}"
                )


def check_stress(config: DictConfig) -> None:
    """The probes of ``eval.stress``, and how they are asked.

    Raises:
        UserError: for a probe, kind or severity that there is not, or a number that is none.
    """
    try:
        parse_all(as_list(config.eval.stress))
    except UserError as error:
        raise UserError(f"eval.stress: {error}") from None
    for key, least in (("stress_seed", 0), ("stress_limit", 1)):
        value = config.eval[key]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise UserError(f"eval.{key}={value}: give a whole number of at least {least}")


def check_price(config: DictConfig) -> None:
    """``eval.price``.

    Raises:
        UserError: if it is not two numbers of at least 0 under their names.
    """
    price = config.eval.price
    if price is None:
        return
    valid = isinstance(price, DictConfig) and set(price) == {"input", "output"}
    numbers = price.values() if valid else ()
    if not valid or any(
        isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number < float("inf")
        for number in numbers
    ):
        raise UserError(f"eval.price={price}: give US dollars per million tokens: eval.price={{input:1,output:4}}")


def as_list(value: object) -> list[str]:
    """A list in a configuration; a single name is a list of one, null an empty one."""
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, (list, tuple, ListConfig)) else [str(value)]


def check_monitor(config: DictConfig, method: GroundingMethod, metrics: Sequence[str]) -> None:
    """``recipe.monitor`` against what a validation computes.

    Raises:
        UserError: if it is no metric of ``metrics``; the message lists them.
    """
    monitor = config.recipe.monitor
    if monitor is None:
        return
    outputs = metrics_by_output(method, metrics)
    output, colon, name = str(monitor).rpartition(":")
    several = len(outputs) > 1
    task, slash, metric = name.partition("/")
    tasks = [spec for specs in outputs.values() for spec in specs if "/" not in spec]
    fits = bool(slash and metric) and task in tasks and (not colon or (several and output in outputs))
    if not fits:
        close = f"; did you mean {tasks[0]}/{monitor}?" if not slash and tasks else ""
        choices = ", ".join(f"{task}/{make_metric(task).task.primary}" for task in dict.fromkeys(tasks))
        raise UserError(f"recipe.monitor={monitor}: give TASK/METRIC of what is validated, e.g. {choices}{close}")
