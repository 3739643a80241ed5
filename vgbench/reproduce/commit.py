"""Records that are committed with the suite."""

from __future__ import annotations

import shutil
from pathlib import Path

from vgbench.records import store
from vgbench.reproduce.plan import Step


def commit(step: Step, folder: Path) -> Path:
    """Copy the record of a step that has one to ``folder`` (a folder per run), without what only this machine has:
    predictions and paths.

    Returns:
        The path of the copy.
    """
    assert step.record is not None and step.record.folder is not None
    target = folder / step.job.name
    copy = store.read(step.record.folder)
    for key in ("run_dir", "runs"):
        copy.config[key] = None
    for result in copy.results:
        result.predictions = None
    copy.notes.append("predictions are not kept here; `vgbench reproduce` writes them again")
    if target.exists():
        shutil.rmtree(target)
    return store.write(copy, target)
