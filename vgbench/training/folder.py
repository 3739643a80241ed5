"""The run folder that all processes of a run agree on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vgbench.config.identity import config_hash, resolved, training_differences
from vgbench.config.stored import stored_config
from vgbench.core.errors import UserError
from vgbench.core.files import remove_leftovers, write_atomically
from vgbench.training.launch import connect

CONFIG_FILE = "config.yaml"  # in a run folder


def run_folder(config: DictConfig, prefix: str) -> Path:
    """The run folder that all processes of a run agree on: process 0 makes or finds it, the others are told."""
    return Path(connect(config).agree(lambda: str(_own_folder(config, prefix))))


def _own_folder(config: DictConfig, prefix: str) -> Path:
    """Make the folder of a new run, or find the one to resume.

    An existing run is never written over: a taken name gets a number. ``resume=true`` takes the newest folder of the
    same name whose configuration is the same.

    Raises:
        UserError: if there is nothing to resume.
    """
    node = resolved(config)
    base = Path(config.run_dir) if config.run_dir else Path(config.runs) / prefix
    if config.resume and (base.exists() or not config.run_dir):  # the folder that is asked for may still be to make
        return _folder_to_resume(base, node)
    number = 1
    while True:
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            number += 1
    _write_config(folder, node)
    return folder


def _folder_to_resume(base: Path, node: dict[str, Any]) -> Path:
    """The newest folder whose training ``node`` continues: the same configuration first, else one of the same training.

    Raises:
        UserError: if there is none; the message names what differs.
    """
    numbered = [base, *sorted(base.parent.glob(f"{base.name}-[0-9]*"), key=lambda path: (len(path.name), path.name))]
    folders = [path for path in reversed(numbered) if (path / CONFIG_FILE).exists()]
    stored = {path: config for path in folders if (config := _stored_config(path)) is not None}
    fitting = [path for path, config in stored.items() if not training_differences(config, node)]
    if fitting:
        same = [path for path in fitting if config_hash(stored[path]) == config_hash(node)]
        folder = (same or fitting)[0]
    elif folders and base.name in (path.name for path in folders if path not in stored) and not stored:
        folder = base  # its configuration was cut off, the run goes on all the same
    elif stored:
        path, config = next(iter(stored.items()))
        differences = "; ".join(training_differences(config, node))
        raise UserError(
            f"resume=true, but no run folder {base}* has this configuration; {path}: {differences}; repeat its "
            f"command, or start without resume (weights={path} starts from its model)"
        )
    else:
        raise UserError(
            f"resume=true, but no run folder {base}* has this configuration; start without resume, or give run_dir="
        )
    remove_leftovers(folder)
    if stored.get(folder) != node:
        _write_config(folder, node)
    return folder


def _stored_config(folder: Path) -> dict[str, Any] | None:
    """The configuration of a run folder, or None if it was cut off."""
    try:
        node = dict(stored_config(folder / CONFIG_FILE))
    except UserError:
        return None
    return node if "seed" in node and "method" in node else None


def _write_config(folder: Path, node: dict[str, Any]) -> None:
    write_atomically(folder / CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.create(node)).encode())
