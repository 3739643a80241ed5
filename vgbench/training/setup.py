"""Everything a run is built from: method, dataset, weights, tasks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from vgbench.checkpoints.names import LoadReport
from vgbench.config.identity import method_class
from vgbench.config.stored import make_method
from vgbench.core.errors import UserError
from vgbench.core.registry import methods
from vgbench.data.dataset import GroundingData
from vgbench.method import EvaluationOnly, GroundingMethod
from vgbench.metrics.catalog import make_metric, tasks
from vgbench.metrics.evaluator import authors_metrics
from vgbench.metrics.tasks import SUITE
from vgbench.training import weights
from vgbench.training.checkpoints import FOLDER, LAST_FILE
from vgbench.training.folder import numbered_folders

log = logging.getLogger(__name__)

BEST, LAST = "best", "last"  # ``checkpoint``: models of a training of ours


# Least values of the numbers that everything else is computed from; floats may be written as integers.
LEAST: dict[str, float | int] = {
    "recipe.lr": 0.0,
    "recipe.batch_size": 1,
    "recipe.epochs": 1,
    "recipe.accumulate": 1,
    "recipe.eval_every": 1,
    "recipe.eval_from": 0,
    "eval.batch_size": 1,
    "eval.bootstrap": 0,
    "eval.examples": 0,
    "seed": 0,
}
OPTIONAL = {"eval.limit": 1}  # likewise, or null
AUTOMATIC = {"eval.batch_size"}  # or "auto"


def check_numbers(config: DictConfig) -> None:
    """Look at :data:`LEAST` before anything is built.

    Raises:
        UserError: naming the key whose value is no number of its kind, or too small.
    """
    for key, least in {**LEAST, **OPTIONAL}.items():
        value = OmegaConf.select(config, key)
        if (value is None and key in OPTIONAL) or (value == "auto" and key in AUTOMATIC):
            continue
        kind = (int, float) if isinstance(least, float) else int
        if isinstance(value, bool) or not isinstance(value, kind) or value < least:
            what = "a number" if isinstance(least, float) else "a whole number"
            raise UserError(f"{key}={value}: give {what} of at least {least:g}")


def build_data(config: DictConfig) -> GroundingData:
    """The dataset of ``config.dataset``; of a smoke run a small one, where the dataset says how."""
    if not config.get("smoke"):
        return instantiate(config.dataset)
    cls: type[GroundingData] = get_class(config.dataset._target_)
    small = cls.smoke_options
    return instantiate(config.dataset, **{key: small[key] for key in small if config.dataset.get(key) is None})


def build_method(config: DictConfig | Mapping[str, Any]) -> GroundingMethod:
    """The method of ``config.method`` with its initial weights."""
    return instantiate(config)


def method_node(config: DictConfig) -> dict[str, Any]:
    """The resolved ``method`` node: what is stored beside weights."""
    node = OmegaConf.to_container(config.method, resolve=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def choices(config: DictConfig) -> dict[str, str]:
    """What was chosen in the groups: ``{"method": "alvg", "dataset": "refcoco", ...}``."""
    from hydra.core.hydra_config import HydraConfig

    node = HydraConfig.get() if HydraConfig.initialized() else config.hydra
    return dict(node.runtime.choices)


def shared_tasks(method: GroundingMethod, data: GroundingData, task: str | None) -> tuple[str, ...]:
    """The tasks to score: those that method and dataset allow and one of them names, or the one asked for.

    Raises:
        UserError: if method and dataset have none in common, or not the one asked for.
    """
    possible = [one.name for one in tasks().values() if one.applies(method.tasks, data.tasks, method.wants_masks)]
    wanted = {*method.tasks, *data.tasks} if task is None else {task}
    shared = tuple(name for name in possible if name in wanted)
    if not shared:
        raise UserError(
            f"method {method.name} does {', '.join(sorted(method.tasks))}, dataset {data.name} offers "
            f"{', '.join(data.tasks)}{f', task={task} was asked for' if task else ''}: nothing in common"
        )
    return shared


def scored_variants(
    method: GroundingMethod, data: GroundingData, scored: Sequence[str], variants: Sequence[str]
) -> tuple[str, ...]:
    """Those of ``eval.variants`` that are computed besides the metrics of the tasks ``scored``, and those that the
    authors of the dataset report.

    Variants of a task that method or dataset name, but that is not scored here, are left out: one list serves many
    datasets. A task that neither of them names (a plug-in's) is scored because its variant is asked for.

    Raises:
        UserError: for an unknown variant, or one of a plug-in's task that cannot be computed for this pair.
    """
    chosen = []
    for spec in variants:
        task = make_metric(spec).task
        if task.name in scored:
            chosen.append(spec)
        elif task.on_request or task.name not in {*SUITE, *method.tasks, *data.tasks}:
            shared_tasks(method, data, task.name)
            chosen.append(spec)
    return tuple(dict.fromkeys([*chosen, *authors_metrics(data.own_metrics, scored)]))


def checkpointed_method(config: DictConfig) -> tuple[GroundingMethod, Path | None, LoadReport]:
    """The method of ``checkpoint`` (see :func:`checkpoint_node`) with its weights, and the file that has them.

    The file is None for a method whose predictions come from a server.

    Raises:
        UserError: if there is no checkpoint, or it does not fit.
    """
    cls = method_class(config.method)
    if cls.remote:
        if config.checkpoint:
            raise UserError(
                f"checkpoint={config.checkpoint}: this method has no weights, a server predicts; leave it out"
            )
        return build_method(config.method), None, LoadReport(used=())
    # a method of others' models knows better than its missing weights what is wrong with a folder
    foreign = build_method(config.method) if issubclass(cls, EvaluationOnly) else None
    if not config.checkpoint:
        raise UserError(
            "checkpoint= is missing: give a run folder, a checkpoint file, checkpoint=shipped, or best or last of the "
            "newest run"
        )
    chosen = choices(config)
    path = (
        _own_checkpoint(config, f"{chosen['method']}-{chosen['dataset']}")
        if config.checkpoint in (BEST, LAST)
        else weights.resolve(str(config.checkpoint), chosen["method"], chosen["dataset"])
    )
    node = checkpoint_node(config, path)
    method = make_method(node, path) if weights.is_ours(path) else foreign or build_method(node)
    return method, path, weights.load(method, path)


def _own_checkpoint(config: DictConfig, name: str) -> Path:
    """The best or last model of the newest run of this method and dataset below ``runs``.

    Raises:
        UserError: if no run has one.
    """
    file = weights.MODEL_FILE if config.checkpoint == BEST else f"{FOLDER}/{LAST_FILE}"
    for folder in reversed(numbered_folders(Path(config.runs) / name)):
        if (folder / file).is_file():
            return folder / file
    raise UserError(f"checkpoint={config.checkpoint}: no run {Path(config.runs) / name}* has a {file}")


def method_name(method: GroundingMethod) -> str:
    """The registered name; of a class that is not registered, the folder that it lives in, or its module."""
    parts = type(method).__module__.split(".")
    return methods.name_of(type(method)) or (parts[2] if parts[:2] == ["vgbench", "methods"] else parts[-1])


def size_name(config: DictConfig, method: GroundingMethod) -> str:
    """The size that the chosen configuration is called after: "large" of ``method=alvg_large``, else empty."""
    chosen, own = choices(config)["method"], method_name(method)
    return chosen.removeprefix(f"{own}_") if chosen.startswith(f"{own}_") else ""


def checkpoint_node(config: DictConfig, path: Path) -> dict[str, Any]:
    """The ``method`` node that builds the model in ``path``: the one stored in a file of ours, else ``config.method``.

    Over a stored node go the options of the command line (``method.branches=[token]``) and file paths that the recipe
    gives (:attr:`GroundingMethod.file_options`).
    """
    stored = weights.method_config(path)
    given = method_node(config)
    if stored is None or given["_target_"] != stored.get("_target_"):
        return stored or given
    files = {key for key in method_class(given).file_options if given.get(key)}
    return stored | {key: given[key] for key in files | explicit_options(config)}


def explicit_options(config: DictConfig) -> set[str]:
    """Options of the method that the command line sets."""
    from hydra.core.hydra_config import HydraConfig

    node = HydraConfig.get() if HydraConfig.initialized() else config.hydra
    keys = (item.lstrip("+").partition("=")[0] for item in node.overrides.task)
    return {key.split(".")[1] for key in keys if key.startswith("method.")}


def parameter_count(method: GroundingMethod) -> int:
    return sum(parameter.numel() for parameter in method.parameters())


def load_summary(report: LoadReport) -> str:
    used, unused, adapted = (len(names) for names in (report.used, report.unused, report.adapted))
    lacks = f"; the file lacks {', '.join(report.absent)}: starts anew in training" if report.absent else ""
    return f"{used} tensors used, {unused} without effect, {adapted} adapted{lacks}"
