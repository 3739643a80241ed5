"""What is there already: checkpoint files, and records that belong to a job."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgbench.config.identity import method_identity
from vgbench.core.errors import UserError
from vgbench.core.files import sha256_prefix
from vgbench.leaderboard.published import published_names
from vgbench.records.record import Metric, Record, Result
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
        found = sorted(folder.rglob(name))
    else:
        found = [file for ending in ENDINGS for file in sorted(folder.rglob(name + ending))]
        found += [file for file in sorted(folder.glob(f"**/{name}/*")) if file.suffix in ENDINGS]
    if not found:
        raise UserError(f"no checkpoint {name!r} below {folder}")
    if len(found) > 1:
        raise UserError(f"{len(found)} files below {folder} answer to {name!r}: {found[0]}, {found[1]}; leave one")
    return found[0]


def plain_config(node: Any) -> dict[str, Any]:
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


def reason_against(record: Record, job: Job, config: Any, checkpoint: Path | None) -> str | None:
    """Why a record does not belong to a job; None if it does; "" if it is about something else altogether."""
    theirs = record.config
    method = theirs.get("method") or {}
    if record.provenance != "measured" or method.get("_target_") != config.method._target_:
        return ""
    limited = theirs.get("eval") or {}
    if limited.get("limit") or limited.get("shuffle_text"):
        return "only a part was evaluated, or shuffled text"
    origin = record.checkpoint.origin if record.checkpoint else None
    if job.shipped:
        if origin != "shipped":
            return ""
        assert record.checkpoint is not None
        same = checkpoint is not None and sha256_prefix(checkpoint) == record.checkpoint.sha256
        return None if same else "made with other shipped weights"
    differs = first_difference(method_identity(plain_config(config.method)), method_identity(method))
    if differs:
        return f"method.{differs}"
    if origin == "official":
        assert record.checkpoint is not None
        if checkpoint is not None:
            same = sha256_prefix(checkpoint) == record.checkpoint.sha256
            return None if same else f"evaluates another file ({record.checkpoint.name})"
        named = job.checkpoint and fnmatch.fnmatch(Path(record.checkpoint.name).stem, Path(job.checkpoint).stem)
        return None if named or record.name == job.name else f"evaluates another file ({record.checkpoint.name})"
    if origin != "trained here" or job.pretrained is None:
        return ""
    differs = first_difference(plain_config(config.recipe), theirs.get("recipe") or {}, frozenset({"seed"}))
    return f"recipe.{differs}" if differs else None


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
