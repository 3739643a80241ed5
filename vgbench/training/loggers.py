"""Where the curves of a training and the results of a run go: Lightning's loggers, from the ``logger`` node."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from vgbench.config.identity import resolved
from vgbench.core.errors import UserError
from vgbench.core.files import write_atomically
from vgbench.core.processes import process_rank

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from vgbench.records.record import Record, Result

TRACKER_FILE = "trackers.json"  # in logs/: name of the tracker -> its name of this run
INTERVAL = "every_n_steps"  # the key of the ``logger`` node that is no logger


@dataclass(frozen=True)
class Tracker:
    """A logger that keeps runs elsewhere, under a name of its own.

    Attributes:
        id: its argument for the run that goes on.
        label: its argument for the name that people read.
        options: further arguments of a run that may go on.
    """

    id: str
    label: str
    options: Mapping[str, Any]


TRACKERS = {
    "wandb": Tracker("id", "name", {"resume": "allow"}),
    "mlflow": Tracker("run_id", "run_name", {}),
}
EXTRAS = ("tensorboard", *TRACKERS)  # the package and the extra are called like the logger


def check_loggers(config: DictConfig) -> None:
    """
    Raises:
        UserError: for an entry that is no logger, or one whose package is missing.
    """
    for name, node in _nodes(config).items():
        if not isinstance(node, Mapping) or "_target_" not in node:
            raise UserError(f"logger.{name}={node}: no logger; choose by logger=NAME or logger=[csv,{name}]")
        if name in EXTRAS and importlib.util.find_spec(name) is None:
            raise UserError(f'logger={name} needs the package "{name}"; install it with: pip install "vgbench[{name}]"')


def build_loggers(config: DictConfig, folder: Path, names: Collection[str] | None = None) -> dict[str, Logger]:
    """The loggers of a run in ``folder`` by name; a tracker goes on with the run that it has begun for this folder.

    Args:
        names: those of them only; None: all.
    """
    check_loggers(config)
    nodes = {name: node for name, node in _nodes(config).items() if names is None or name in names}
    loggers = {name: _build(name, node, config, folder) for name, node in nodes.items()}
    trackers = {name: logger for name, logger in loggers.items() if name in TRACKERS}
    for tracker in (trackers[name] for name in trackers.keys() - _identities(folder).keys()):
        tracker.log_hyperparams(resolved(config))  # once: MLflow allows no other value later
    if process_rank() == 0 and trackers:
        identities = {name: str(tracker.version) for name, tracker in trackers.items()}
        (folder / "logs").mkdir(exist_ok=True)
        write_atomically(folder / "logs" / TRACKER_FILE, json.dumps(identities, indent=1).encode())
    return loggers


def log_results(config: DictConfig, folder: Path, record: Record) -> None:
    """Write the values of every split into the run of each tracker, and end it."""
    if process_rank() or not TRACKERS.keys() & _nodes(config).keys():
        return
    values = {
        "/".join((*_place(result), name)): metric.value
        for result in record.results
        for name, metric in result.metrics.items()
        if metric.value is not None
    }
    step = record.training.steps if record.training else 0
    with tracking():
        for name, logger in build_loggers(config, folder, TRACKERS).items():
            names = {key: _plain(key) if name == "mlflow" else key for key in values}
            logger.log_metrics({names[key]: value for key, value in values.items()}, step)
            logger.finalize("success")


@contextmanager
def tracking() -> Iterator[None]:
    """End the run that W&B holds open for the process when the work in it ends: the next of a sweep is another one."""
    code = 1
    try:
        yield
        code = 0
    finally:
        wandb = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None:
            wandb.finish(exit_code=code)


def _place(result: Result) -> tuple[str, ...]:
    output = () if result.prediction_set == "main" else (result.prediction_set,)
    return (result.split, result.task, *output)


def _plain(key: str) -> str:
    """MLflow takes neither ``@`` nor brackets in names."""
    return re.sub(r"[^\w/. -]", "_", key)


def _nodes(config: DictConfig) -> dict[str, Any]:
    """Name of a logger -> its arguments; ``logger.NAME=false`` is none."""
    nodes: Any = OmegaConf.to_container(config.logger, resolve=True)
    return {name: node for name, node in nodes.items() if name != INTERVAL and node not in (None, False)}


def _build(name: str, node: Mapping[str, Any], config: DictConfig, folder: Path) -> Logger:
    options = dict(node)
    if name not in TRACKERS:
        return instantiate(options, save_dir=str(folder))
    tracker = TRACKERS[name]
    options |= tracker.options
    options[tracker.label] = options.get(tracker.label) or folder.name
    identity = _identities(folder).get(name) or (secrets.token_hex(4) if name == "wandb" else None)
    if name == "mlflow":
        database = f"sqlite:///{Path(str(config.runs)).resolve() / 'mlflow.db'}"
        options["tracking_uri"] = options.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI") or database
    else:
        options["save_dir"] = str(folder / "logs")
    return instantiate(options, **{tracker.id: identity})


def _identities(folder: Path) -> dict[str, str]:
    """What the trackers call the run of this folder; nothing that is no plain name is believed."""
    try:
        content = json.loads((folder / "logs" / TRACKER_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    names = content.items() if isinstance(content, dict) else ()
    return {name: value for name, value in names if isinstance(value, str) and re.fullmatch(r"[\w-]{1,64}", value)}
