"""Checkpoints of a training on disk: written whole or not at all, and what of them can be read."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from vgbench.checkpoints.read import load_file_of_torch
from vgbench.core.errors import UserError
from vgbench.core.files import atomic_with_digest, matches_digest
from vgbench.training.logs import say

FOLDER = "checkpoints"  # in a run folder
CONTENT = {  # of a checkpoint: key -> type
    "pytorch-lightning_version": str,
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "epoch": int,
    "global_step": int,
}
LAST_FILE = "last.ckpt"  # the end of the last epoch
STEP_FILE = "step.ckpt"  # the last one within an epoch


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints beside their target, under another name until they are on the disk.

    Attributes:
        saved_step: optimiser steps of the newest checkpoint that this process wrote or read, or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.saved_step: int | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """
        Raises:
            UserError: if the disk is full or the folder cannot be written; what was there before is still there.
        """
        target = Path(path)
        try:
            with atomic_with_digest(target) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
        except OSError as error:
            raise _unwritable(target, error) from None
        except RuntimeError as error:  # torch's writer, on whatever its file said
            if isinstance(error.__context__, OSError):
                raise _unwritable(target, error.__context__) from None
            raise
        self.saved_step = checkpoint.get("global_step")

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """What a training goes on from: tensors, numbers and plain containers, whatever the caller would allow.

        Raises:
            UserError: naming the file, if it holds anything else, is damaged, or is not the checkpoint of a training.
        """
        checkpoint = load_file_of_torch(Path(path), mapped=False)
        if not isinstance(checkpoint, dict) or not all(
            isinstance(checkpoint.get(key), kind) for key, kind in CONTENT.items()
        ):
            raise UserError(f"{path}: not the checkpoint of a training; start the run without resume=true")
        self.saved_step = checkpoint["global_step"]
        return checkpoint


def _unwritable(path: Path, error: OSError) -> UserError:
    folder = path.parent.parent
    return UserError(
        f"{folder}: {path.name} could not be written ({error.strerror or error}); make room, then go on with "
        f"resume=true run_dir={folder}"
    )


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is what was written: by its digest, or by its own checksums where it has none."""
    if not path.is_file():
        return False
    matches = matches_digest(path)
    if matches is not None:
        return matches
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, zlib.error, EOFError, RuntimeError, ValueError):
        return False


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run folder; damaged ones before it are named. None: nothing was saved there yet.

    Raises:
        UserError: if all are damaged.
    """
    files = sorted((folder / FOLDER).glob("*.ckpt"), key=lambda path: path.lstat().st_mtime, reverse=True)
    damaged: list[Path] = []
    for file in files:
        if is_whole(file):
            for other in damaged:
                say(f"WARNING {other}: damaged; goes on from {file}")
            return file
        damaged.append(file)
    if damaged:
        names = ", ".join(map(str, damaged))
        raise UserError(f"{names}: damaged, and no other checkpoint is there; start the run without resume=true")
    say(f"{folder}: no checkpoint was saved there yet; starts at the beginning")
    return None


@contextmanager
def naming_checkpoint(path: Path | None, trainer: L.Trainer) -> Iterator[None]:
    """While a training is taken up: what goes wrong before it goes on is the fault of the checkpoint, which is named.

    Raises:
        UserError: in place of whatever Lightning, torch or a callback makes of a state that is not theirs.
    """
    try:
        yield
    except (UserError, AssertionError):
        raise
    except Exception as error:
        if path is None or not trainer._checkpoint_connector._loaded_checkpoint:  # empty once all is restored
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(
            f"{path}: not a checkpoint of this training ({reason}); remove it and resume from another one, or start "
            "without resume=true"
        ) from error
