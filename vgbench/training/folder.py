"""The run folder that all processes of a run agree on."""

from __future__ import annotations

import os
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vgbench.config.identity import config_hash, resolved
from vgbench.config.stored import stored_config
from vgbench.core.errors import UserError
from vgbench.core.files import write_atomically


def process_rank() -> int:
    """Global rank of this process as its launcher (Lightning, torchrun, SLURM) told it, before anything is set up."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def run_folder(config: DictConfig, prefix: str) -> Path:
    """The run folder that all processes of a run agree on: process 0 makes or finds it, the others are told.

    Processes started by Lightning read it from the environment; those of torchrun or SLURM from a note under ``runs``.
    """
    launch = "-".join(os.environ.get(name, "") for name in ("SLURM_JOB_ID", "TORCHELASTIC_RUN_ID", "MASTER_PORT"))
    note = Path(config.runs) / f".launch{launch}"
    if process_rank() == 0:
        folder = _own_folder(config, prefix)
        os.environ["VGBENCH_RUN_FOLDER"] = str(folder)
        if launch.strip("-"):
            note.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(note, str(folder).encode())
        return folder
    if "VGBENCH_RUN_FOLDER" in os.environ:
        return Path(os.environ["VGBENCH_RUN_FOLDER"])
    deadline = time.monotonic() + 120
    while not (note.exists() and time.time() - note.stat().st_mtime < 600):
        if time.monotonic() > deadline:
            raise UserError(f"{note}: process 0 did not announce the run folder; is `runs` on a shared file system?")
        time.sleep(0.2)
    return Path(note.read_text())


def _own_folder(config: DictConfig, prefix: str) -> Path:
    """Make the folder of a new run, or find the one to resume.

    An existing run is never written over: a taken name gets a number. ``resume=true`` takes the newest folder of the
    same name whose configuration is the same.

    Raises:
        UserError: if there is nothing to resume.
    """
    node = resolved(config)
    base = Path(config.run_dir) if config.run_dir else Path(config.runs) / prefix
    wanted = config_hash(node)
    numbered = [base, *sorted(base.parent.glob(f"{base.name}-[0-9]*"), key=lambda path: (len(path.name), path.name))]
    if config.resume:
        for path in reversed(numbered):
            file = path / "config.yaml"
            if not file.exists():
                continue
            stored = stored_config(file)
            if config_hash(stored) == wanted and stored.get("seed") == node["seed"]:
                return path
        raise UserError(
            f"resume=true, but no run folder {base}* has this configuration; start without resume, or give run_dir="
        )
    number = 1
    while True:
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            number += 1
    write_atomically(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(node)).encode())
    return folder
