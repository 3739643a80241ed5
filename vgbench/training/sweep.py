"""A sweep has a run folder per point: what is finished is not done again, what was stopped goes on."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, open_dict

from vgbench.config.identity import config_hash, resolved, training_differences
from vgbench.core.errors import UserError
from vgbench.core.processes import process_rank
from vgbench.metrics.tasks import task_of
from vgbench.records import store
from vgbench.records.record import FILE_NAME, Record
from vgbench.training.folder import numbered_folders, run_config
from vgbench.training.logs import say
from vgbench.training.setup import choices

NO_PART = ("hydra", "runs=", "workers=", "logger", "resume=")  # overrides that do not make it another sweep


@dataclass(frozen=True)
class Sweep:
    """The points of one ``-m`` command.

    Attributes:
        name: the same for the same command with more values.
        keys: what is swept over, in the order of the command.
        folder_name: below ``runs``, for the run folders; None: they stand in ``runs`` itself.
    """

    name: str
    keys: tuple[str, ...]
    folder_name: str | None = None

    @classmethod
    def of(cls, overrides: Sequence[str], name: str | None = None) -> Sweep:
        """The sweep of a command line; its values decide nothing about its name, so that more can follow."""
        from hydra.core.override_parser.overrides_parser import OverridesParser

        parsed = OverridesParser.create().parse_overrides(list(overrides))
        keys = tuple(override.get_key_element() for override in parsed if override.is_sweep_override())
        fixed = [item for item in overrides if item.partition("=")[0].lstrip("+~") not in keys]
        identity = "\n".join(sorted([*keys, *(item for item in fixed if not item.startswith(NO_PART))]))
        return cls(name or hashlib.sha256(identity.encode()).hexdigest()[:8], keys, name)

    def index(self, runs: Path) -> Path:
        """The file that lists the run folders of the points, below ``runs``."""
        return runs / ".sweeps" / f"{self.name}.txt"

    def folder(self, config: DictConfig, overrides: Sequence[str], prefix: str) -> Path:
        """The run folder of a point: ``runs/[SWEEP/]METHOD-DATASET-KEYVALUE...``."""
        values = dict(item.lstrip("+").split("=", 1) for item in overrides if "=" in item)
        groups = ("method", "dataset")
        parts = [f"{key.rpartition('.')[2]}{values.get(key, '')}" for key in self.keys if key not in groups]
        point = "-".join([f"{prefix}{choices(config)['method']}", choices(config)["dataset"], *parts])
        return Path(config.runs) / (self.folder_name or "") / re.sub(r"[^\w.+-]", "_", point)


def sweep_point(config: DictConfig, base: Path, index: Path, work: Callable[[DictConfig], float]) -> float:
    """Do a point of a sweep, unless it is done; a stopped one is resumed. Its folder is written into ``index``.

    Args:
        base: its run folder; where another training stands, the folder gets a number.

    Returns:
        the number to look at first.
    """
    node = resolved(config)
    folder = _run_folder(base, node)
    with open_dict(config):
        config.run_dir = str(folder or base)
        if folder is not None:
            record = _record(folder)
            if record is not None and config_hash(run_config(folder) or {}) == config_hash(node):
                say(f"{folder}: done already")
                _note(index, folder)
                return _primary(record)
            config.resume = True
    try:
        return work(config)
    finally:
        if (begun := _run_folder(base, node)) is not None:
            _note(index, begun)


def _run_folder(base: Path, node: Mapping[str, object]) -> Path | None:
    """The folder of the training ``node`` among those called ``base``, with or without a number."""
    for folder in numbered_folders(base):
        stored = run_config(folder)
        if stored is not None and not training_differences(stored, node):
            return folder
    return None


def _note(index: Path, folder: Path) -> None:
    if process_rank() == 0:
        index.parent.mkdir(parents=True, exist_ok=True)
        with index.open("a", encoding="utf-8") as file:
            file.write(f"{folder}\n")


def _record(folder: Path) -> Record | None:
    try:
        return store.read(folder) if (folder / FILE_NAME).is_file() else None
    except UserError:
        return None  # damaged: what is missing is done again


def _primary(record: Record) -> float:
    """As the run itself returned it: of the first task of the last split."""
    last = [result for result in record.results if result.split == record.results[-1].split]
    value = last[0].metrics.get(task_of(last[0].task).primary or "") if last else None
    return math.nan if value is None or value.value is None else value.value
