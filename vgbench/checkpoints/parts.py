"""Training starts from several files: each is told by its names and loaded into the part of the model it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vgbench.checkpoints.names import LoadReport, describe_state
from vgbench.checkpoints.read import read_checkpoint
from vgbench.core.errors import UserError

__all__ = ["Part", "checkpoint_files", "load_parts"]

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Part:
    """A pretrained part of a model.

    Attributes:
        name: what it is called in messages ("BERT").
        recognises: whether a state dict is one, by its names.
        load: put it into the model, strictly.
    """

    name: str
    recognises: Callable[[State], bool]
    load: Callable[[State], LoadReport]


def checkpoint_files(path: Path) -> list[Path]:
    """The checkpoint files that ``pretrained=`` names: the file itself, or those in a folder and its direct subfolders.

    A folder in the layout of transformers counts once, by its safetensors file.
    """
    if not path.is_dir():
        return [path]
    files: list[Path] = []
    for folder in (path, *sorted(inner for inner in path.iterdir() if inner.is_dir())):
        files += sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
        files += [file for file in sorted(folder.iterdir()) if file.suffix in (".pkl", ".pth", ".pt")]
    return files


def load_parts(
    path: Path, parts: Sequence[Part], advice: str, read: Callable[[Path], State] = read_checkpoint
) -> dict[str, LoadReport]:
    """Load every file of ``path`` into the first part that recognises it.

    Args:
        path: a file or a folder, see :func:`checkpoint_files`.
        parts: what the model can start from.
        advice: what to put there, for messages ("give detr-r50*.pth and bert-base-uncased").
        read: reads a file.

    Returns:
        Name of the part -> what was loaded, for the parts that ``path`` holds.

    Raises:
        UserError: if there is no file, one is none of the parts, or two are the same.
    """
    files = checkpoint_files(path)
    if not files:
        raise UserError(f"{path}: holds no checkpoint; {advice}")
    reports: dict[str, LoadReport] = {}
    for file in files:
        state = read(file)
        part = next((part for part in parts if part.recognises(state)), None)
        if part is None:
            names = " nor ".join(part.name for part in parts)
            raise UserError(f"{file}: neither {names} but {describe_state(state)}; {advice}")
        if part.name in reports:
            raise UserError(f"{path}: holds more than one {part.name} checkpoint, {file} is the second; leave only one")
        reports[part.name] = part.load(state)
    return reports
