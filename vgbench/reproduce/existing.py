"""What is there already: checkpoint files, and records that belong to a job."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from vgbench.config.identity import method_identity
from vgbench.config.stored import stored_method
from vgbench.core.errors import UserError
from vgbench.core.files import sha256_prefix
from vgbench.leaderboard.published import published_names
from vgbench.records.record import Checkpoint, Metric, Record, Result
from vgbench.reproduce.plan import Cell, Job

ENDINGS = (".pth", ".pt", ".ckpt", ".safetensors", ".pkl")


def find_file(folder: Path, name: str) -> Path:
    """The file called ``name`` below ``folder``; without an ending, ``name.pth`` and the like, or the only checkpoint
    in a folder of that name.

    Raises:
        UserError: if there is none, or more than one.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if (folder / name).is_file():
        return folder / name
    if Path(name).suffix in (*ENDINGS, ".zip"):
        candidates = sorted(folder.rglob(name))
    else:
        candidates = [file for ending in ENDINGS for file in sorted(folder.rglob(name + ending))]
        candidates += [file for file in sorted(folder.glob(f"**/{name}/*")) if file.suffix in ENDINGS]
    if not candidates:
        raise UserError(f"no checkpoint {name!r} below {folder}")
    if len(candidates) > 1:
        raise UserError(
            f"{len(candidates)} files below {folder} answer to {name!r}: {candidates[0]}, {candidates[1]}; leave one"
        )
    return candidates[0]


class Mismatch(Enum):
    """In what a record differs from the run that a job asks for."""

    SUBJECT = "another method, or weights from elsewhere"
    EXTENT = "a part of the data, or spoilt input"
    WEIGHTS = "other weights"
    METHOD = "another setting of the method"
    RECIPE = "another setting of the training"
    DATA = "another version of the data"


@dataclass(frozen=True)
class Misfit:
    """Why a record does not count for a job, and how a reader is told."""

    mismatch: Mismatch
    text: str


UNRELATED = Misfit(Mismatch.SUBJECT, "about something else")


def misfit(record: Record, job: Job, config: Any, checkpoint: Path | None) -> Misfit | None:
    """Why a record does not belong to a job; None if it does.

    Args:
        config: the composed configuration of the job.
        checkpoint: the file that the job evaluates, if it is here.
    """
    if record.provenance != "measured" or not names_method(record, config.method._target_):
        return UNRELATED
    method = stored_method(record.config["method"], record.name)
    evaluation = record.config.get("eval") or {}
    if evaluation.get("limit") or evaluation.get("shuffle_text"):
        return Misfit(Mismatch.EXTENT, "only a part was evaluated, or shuffled text")
    stored = record.checkpoint
    if job.shipped:
        if stored is None or stored.origin != "shipped":
            return UNRELATED
        same = checkpoint is not None and sha256_prefix(checkpoint) == stored.sha256
        return None if same else Misfit(Mismatch.WEIGHTS, "made with other shipped weights")
    difference = first_difference(method_identity(plain_config(config.method)), method_identity(method))
    if difference:
        return Misfit(Mismatch.METHOD, f"method.{difference}")
    if stored is not None and stored.origin == "official":
        same = _is_file_of(stored, job, checkpoint) or (checkpoint is None and record.name == job.name)
        return None if same else Misfit(Mismatch.WEIGHTS, f"evaluates another file ({stored.name})")
    if stored is None or stored.origin != "trained here" or job.pretrained is None:
        return UNRELATED
    difference = first_difference(plain_config(config.recipe), record.config.get("recipe") or {}, frozenset({"seed"}))
    return Misfit(Mismatch.RECIPE, f"recipe.{difference}") if difference else None


def other_questions(record: Record, config: Any) -> Misfit | None:
    """Whether the probes of a record drew other questions than a job asks for."""
    theirs, ours = record.config.get("eval") or {}, config.eval
    for key in ("stress_seed", "stress_limit"):
        if theirs.get(key) != ours.get(key):
            return Misfit(Mismatch.EXTENT, f"eval.{key}={theirs.get(key)} instead of {ours.get(key)}")
    return None


def names_method(record: Record, target: str) -> bool:
    """Whether a record is about the method with this dotted path."""
    node = record.config.get("method")
    return isinstance(node, dict) and node.get("_target_") == target


def _is_file_of(stored: Checkpoint, job: Job, checkpoint: Path | None) -> bool:
    """Whether a record's weights are the authors' file of a job: by content if it is here, else by name."""
    if checkpoint is not None:
        return sha256_prefix(checkpoint) == stored.sha256
    return job.checkpoint is not None and fnmatch.fnmatch(Path(stored.name).stem, Path(job.checkpoint).stem)


def plain_config(node: Any) -> dict[str, Any]:
    """A node of a composed configuration as plain values."""
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(node, resolve=True)
    return plain


def first_difference(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], leave_out: frozenset[str] = frozenset()
) -> str | None:
    """The first key whose values differ, as "key: theirs instead of ours", or None."""
    for key in sorted({*ours, *theirs} - leave_out):
        if ours.get(key) != theirs.get(key):
            return f"{key}: {json.dumps(theirs.get(key))} instead of {json.dumps(ours.get(key))}"
    return None


def find_result(record: Record, cell: Cell) -> tuple[Result, Metric] | None:
    """The result of a record that a cell asks for."""
    for result in record.results:
        author = None if result.embedded else result.split_by
        if cell.dataset not in published_names(result.dataset, author):
            continue
        if (result.split, result.task, result.prediction_set) != (cell.split, cell.task, cell.prediction_set):
            continue
        for name, metric in result.metrics.items():
            if name.lower() == cell.metric and metric.variant == cell.variant:
                return result, metric
    return None
