"""The run folder that all processes of a run agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vgbench.config.identity import config_hash, resolved, training_differences
from vgbench.config.stored import stored_config
from vgbench.core.errors import UserError
from vgbench.core.files import NO_ROOM, remove_leftovers, write_atomically
from vgbench.training.launch import connect

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CONFIG_FILE = "config.yaml"  # in a run folder


JOB_FILE = "slurm_job.txt"  # in a run folder: the SLURM job that made it


def continues(config: DictConfig, prefix: str) -> bool:
    """Whether a run goes on in a folder that is there: by ``resume=true``, or because SLURM started its job again."""
    if config.resume or int(os.environ.get("SLURM_RESTART_COUNT") or 0) < 1:
        return bool(config.resume)
    return any(_job(folder) == os.environ.get("SLURM_JOB_ID") for folder in numbered_folders(_base(config, prefix)))


def _job(folder: Path) -> str | None:
    file = folder / JOB_FILE
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def _base(config: DictConfig, prefix: str) -> Path:
    """The run folder's name before it is numbered."""
    return Path(config.run_dir) if config.run_dir else Path(config.runs) / prefix


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
    base = _base(config, prefix)
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
    _hold(folder)
    _write_config(folder, node)
    if job := os.environ.get("SLURM_JOB_ID"):
        write_atomically(folder / JOB_FILE, f"{job}\n".encode())
    return folder


_held: dict[Path, int] = {}


def _hold(folder: Path) -> None:
    """Keep other runs out of the folder until this process ends, where the file system has locks.

    Raises:
        UserError: if another run is at work there.
    """
    if fcntl is None or folder.resolve() in _held:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(f"{folder}: another run is at work there; wait for its end, or give run_dir=FOLDER") from None
    except OSError:  # a file system without locks
        os.close(handle)
        return
    _held[folder.resolve()] = handle
    os.register_at_fork(after_in_child=lambda: os.close(handle))  # a loader's process may live on for a moment


@contextmanager
def room_in(folder: Path, goes_on: str) -> Iterator[None]:
    """
    Args:
        goes_on: how the run goes on once there is room again.

    Raises:
        UserError: naming the run folder, if there is no room for a file of it.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        file = Path(str(error.filename)).name if error.filename else "a file of it"
        raise UserError(
            f"{folder}: {file} could not be written ({error.strerror}); make room, then {goes_on}"
        ) from error


def numbered_folders(base: Path) -> list[Path]:
    """The run folders of one name, oldest first: ``base``, ``base-2`` ..."""
    others = [path for path in base.parent.glob(f"{base.name}-*") if path.name[len(base.name) + 1 :].isdecimal()]
    return [path for path in (base, *sorted(others, key=lambda path: (len(path.name), path.name))) if path.is_dir()]


def _folder_to_resume(base: Path, node: dict[str, Any]) -> Path:
    """The newest folder whose training ``node`` continues: the same configuration first, else one of the same training.

    Raises:
        UserError: if there is none; the message names what differs.
    """
    folders = [path for path in reversed(numbered_folders(base)) if (path / CONFIG_FILE).exists()]
    stored = {path: config for path in folders if (config := run_config(path)) is not None}
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
    elif base.is_dir() and not any(path for path in base.iterdir() if not path.name.startswith(".")):
        folder = base  # killed before its configuration was written: it begins
    else:
        raise UserError(
            f"resume=true, but no run folder {base}* has this configuration; start without resume, or give run_dir="
        )
    _hold(folder)
    remove_leftovers(folder)
    if stored.get(folder) != node:
        _write_config(folder, node)
    return folder


def run_config(folder: Path) -> dict[str, Any] | None:
    """The configuration of a run folder, or None if it was cut off."""
    try:
        node = dict(stored_config(folder / CONFIG_FILE))
    except UserError:
        return None
    return node if "seed" in node and "method" in node else None


def _write_config(folder: Path, node: dict[str, Any]) -> None:
    write_atomically(folder / CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.create(node)).encode())
