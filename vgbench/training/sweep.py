"""A sweep is one folder with a run folder per point: what is finished is not done again, what was stopped goes on."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, open_dict

from vgbench.config.identity import config_hash, resolved, training_differences
from vgbench.config.stored import stored_config
from vgbench.core.errors import UserError
from vgbench.metrics.tasks import task_of
from vgbench.records import store
from vgbench.records.record import FILE_NAME, Record
from vgbench.training.folder import CONFIG_FILE
from vgbench.training.logs import say
from vgbench.training.setup import choices

NO_PART = ("hydra", "runs=", "workers=", "logger", "resume=")  # overrides that do not make it another sweep


@dataclass(frozen=True)
class Sweep:
    """The points of one ``-m`` command.

    Attributes:
        name: of its folder below ``runs``; the same for the same command with more values.
        keys: what is swept over, in the order of the command.
    """

    name: str
    keys: tuple[str, ...]

    @classmethod
    def of(cls, overrides: Sequence[str], name: str | None = None) -> Sweep:
        """The sweep of a command line; its values decide nothing about its name, so that more can follow."""
        from hydra.core.override_parser.overrides_parser import OverridesParser

        parsed = OverridesParser.create().parse_overrides(list(overrides))
        keys = tuple(override.get_key_element() for override in parsed if override.is_sweep_override())
        fixed = [item for item in overrides if item.partition("=")[0].lstrip("+~") not in keys]
        identity = "\n".join(sorted([*keys, *(item for item in fixed if not item.startswith(NO_PART))]))
        return cls(name or f"sweep-{hashlib.sha256(identity.encode()).hexdigest()[:8]}", keys)

    def folder(self, config: DictConfig, overrides: Sequence[str], prefix: str) -> Path:
        """The run folder of a point: ``runs/SWEEP/METHOD-DATASET-KEYVALUE...``."""
        values = dict(item.lstrip("+").split("=", 1) for item in overrides if "=" in item)
        groups = ("method", "dataset")
        parts = [f"{key.rpartition('.')[2]}{values.get(key, '')}" for key in self.keys if key not in groups]
        point = "-".join([f"{prefix}{choices(config)['method']}", choices(config)["dataset"], *parts])
        return Path(config.runs) / self.name / re.sub(r"[^\w.+-]", "_", point)


def sweep_point(config: DictConfig, folder: Path, work: Callable[[DictConfig], float]) -> float:
    """Do the point of a sweep whose run folder is ``folder``, unless it is done; a stopped one is resumed.

    Returns:
        the number to look at first.

    Raises:
        UserError: if another training stands in the folder.
    """
    with open_dict(config):
        config.run_dir = str(folder)
    if (folder / CONFIG_FILE).is_file():
        node = resolved(config)
        record = _record(folder)
        if record is not None and _same(folder, node):
            say(f"{folder}: done already")
            return _primary(record)
        with open_dict(config):
            config.resume = True
    return work(config)


def _record(folder: Path) -> Record | None:
    try:
        return store.read(folder) if (folder / FILE_NAME).is_file() else None
    except UserError:
        return None  # damaged: what is missing is done again


def _same(folder: Path, node: Mapping[str, object]) -> bool:
    try:
        stored = dict(stored_config(folder / CONFIG_FILE))
    except UserError:
        return False
    return config_hash(stored) == config_hash(node) and not training_differences(stored, node)


def _primary(record: Record) -> float:
    """As the run itself returned it: of the first task of the last split."""
    last = [result for result in record.results if result.split == record.results[-1].split]
    value = last[0].metrics.get(task_of(last[0].task).primary or "") if last else None
    return math.nan if value is None or value.value is None else value.value
