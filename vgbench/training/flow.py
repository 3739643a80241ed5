"""``vgbench run flow=NAME dataset=...``: a named sequence of training runs, later ones starting from earlier models.

A flow is a file ``configs/flow/NAME.yaml``::

    # One line that says what it is.
    method: simvg
    stages:
      stage1: ["recipe=stage/simvg-stage1-{dataset}"]
      stage2: ["recipe=stage/simvg-stage2-{dataset}", "weights={stage1}"]

Every stage is a list of overrides of ``vgbench run``. ``{dataset}`` is the dataset of the command line, ``{stage1}``
the run folder of that earlier stage. Stages run one after another, each as an ordinary ``vgbench run`` in a process of
its own and in ``<runs>/flow-<name>-<dataset>/<stage>``. What is finished there is skipped, what was stopped is resumed.

This module imports neither torch nor Lightning: the memory belongs to the stages.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from vgbench.config.compose import check_recipe, compose, expand, split_overrides
from vgbench.config.identity import config_hash, resolved, training_differences
from vgbench.config.paths import quoted
from vgbench.config.stored import stored_config
from vgbench.core.errors import UserError
from vgbench.core.processes import child_environment
from vgbench.core.stop import listening
from vgbench.records.record import FILE_NAME

__all__ = ["Flow", "Stage", "names", "plan", "read", "run"]

State = Literal["finished", "resume", "start"]

# Options of a dataset that all stages share, whatever dataset they are on; its other options go to its own stages.
SHARED_OPTIONS = ("dataset.data_root", "dataset.image_root", "dataset.cache_dir", "dataset.on_bad_sample")


@dataclass(frozen=True)
class Flow:
    """A flow as its file has it: ``about`` is the comment at the top, ``stages`` the overrides by stage."""

    name: str
    about: str
    method: str
    stages: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Stage:
    """A stage with everything filled in.

    Attributes:
        name: of the stage.
        overrides: of ``vgbench run``, the run folder among them.
        folder: its run folder.
        sources: earlier stages whose models it starts from.
    """

    name: str
    overrides: tuple[str, ...]
    folder: Path
    sources: tuple[str, ...]


def _folder() -> Path:
    return Path(str(files("vgbench.configs"))) / "flow"


def names() -> list[str]:
    """All flows."""
    return sorted(file.stem for file in _folder().glob("*.yaml"))


def read(name: str) -> Flow:
    """The flow of that name.

    Raises:
        UserError: if there is none.
    """
    file = _folder() / f"{name}.yaml"
    if name not in names():
        raise UserError(f"flow={name}: there is no such flow; choose from {', '.join(names())}")
    text = file.read_text(encoding="utf-8")
    about = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    node: Any = OmegaConf.to_container(OmegaConf.create(text))
    return Flow(name, about, node["method"], {stage: tuple(items) for stage, items in node["stages"].items()})


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def plan(overrides: Sequence[str]) -> tuple[Flow, list[Stage]]:
    """The stages of ``flow=NAME dataset=NAME [key=value | STAGE:key=value]...``.

    An override goes to every stage, with ``STAGE:`` before it to that stage only.

    Raises:
        UserError: if the flow or the dataset is missing, or an override is one that the flow sets itself.
    """
    own, rest = split_overrides(expand(overrides), "flow", "dataset", "runs", "run_dir", "resume")
    flow = read(own["flow"])
    if not own.get("dataset"):
        raise UserError(f"flow={flow.name} needs dataset=NAME; vgbench list datasets shows them")
    dataset = own["dataset"]
    for_one: dict[str, list[str]] = {name: [] for name in flow.stages}
    for_all = []
    for item in rest:
        stage, colon, override = item.partition(":")
        if colon and stage in for_one:
            for_one[stage] += expand([override])
        else:
            for_all.append(item)
    base = Path(own["run_dir"]) if "run_dir" in own else Path(own.get("runs", "runs")) / f"flow-{flow.name}-{dataset}"
    folders = {name: base / name for name in flow.stages}
    stages = []
    for name, items in flow.stages.items():
        filled = [item.replace("{dataset}", dataset) for item in items]
        sources = tuple(other for other in folders if any(f"{{{other}}}" in item for item in items))
        for other in sources:
            filled = [item.replace(f"{{{other}}}", str(folders[other])) for item in filled]
        fixed = {"method", *map(_key, filled)}
        given = for_all
        if "dataset" in fixed:
            given = [item for item in for_all if not _key(item).startswith("dataset.") or _key(item) in SHARED_OPTIONS]
        else:
            filled.insert(0, f"dataset={dataset}")
        for item in (*given, *for_one[name]):
            if _key(item) in fixed | {"dataset", "runs", "run_dir", "resume", "checkpoint"}:
                raise UserError(f"{item}: stage {name} of flow={flow.name} sets {_key(item)} itself; leave it out")
        place = (f"runs={quoted(base.parent)}", f"run_dir={quoted(folders[name])}")
        whole = (f"method={flow.method}", *filled, *given, *for_one[name], *place)
        check_recipe(whole)
        stages.append(Stage(name, whole, folders[name], sources))
    return flow, stages


def state(stage: Stage) -> State:
    """What is left to do of a stage, from what is in its folder.

    Raises:
        UserError: if the folder holds a run of another configuration, or something else.
    """
    wanted = resolved(compose(stage.overrides))
    file = stage.folder / "config.yaml"
    if not file.exists():
        if stage.folder.exists() and any(stage.folder.iterdir()):
            raise UserError(f"{stage.folder}: not a run folder (no config.yaml); remove it, or give run_dir=FOLDER")
        return "start"
    stored = stored_config(file)
    if differences := training_differences(stored, wanted):
        raise UserError(
            f"{stage.folder}: made with another configuration ({'; '.join(differences)}); repeat the first "
            "command, or give run_dir=FOLDER for a new sequence, or remove this stage and the later ones"
        )
    if (stage.folder / FILE_NAME).exists() and config_hash(stored) == config_hash(wanted):
        return "finished"
    return "resume" if any((stage.folder / "checkpoints").glob("*.ckpt")) else "start"


def states(stages: Sequence[Stage]) -> dict[str, State]:
    """:func:`state` of every stage, before any of them runs.

    Raises:
        UserError: as :func:`state`, or if a stage has begun although one that it starts from is not finished.
    """
    found = {stage.name: state(stage) for stage in stages}
    for stage in stages:
        for source in stage.sources:
            if found[source] != "finished" and (stage.folder / "config.yaml").exists():
                raise UserError(
                    f"{stage.folder}: began from a model of stage {source} that is no longer there; remove this folder"
                )
    return found


def run(overrides: Sequence[str], show: bool = False) -> int:
    """Run what is left of a flow; with ``show``, print the composed stages instead.

    Returns:
        The exit code: 0, or that of the stage that failed.

    Raises:
        UserError: as :func:`plan` and :func:`states`, or if the launcher has started several processes already.
    """
    flow, stages = plan(overrides)
    if show:
        for stage in stages:
            config = compose(stage.overrides)
            plain = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
            print(f"--- # {stage.name}: vgbench run {shlex.join(stage.overrides)}\n{OmegaConf.to_yaml(plain)}", end="")
        return 0
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        raise UserError(
            f"flow={flow.name} starts its own processes: start it once (trainer.devices=N starts N per stage), or "
            "launch its stages yourself; --cfg job prints their commands"
        )
    todo = states(stages)
    if sum(todo[stage.name] != "finished" for stage in stages) > 1:  # a single one looks for itself
        code = _child([sys.executable, "-m", "vgbench.cli", "run", "--check", *overrides])
        if code:
            return code
    for number, stage in enumerate(stages, 1):
        label = f"flow {flow.name}, stage {number} of {len(stages)}, {stage.name}"
        if todo[stage.name] == "finished":
            print(f"{label}: finished already, {stage.folder}", flush=True)
            continue
        print(f"{label}: {'resumed' if todo[stage.name] == 'resume' else 'started'}", flush=True)
        if todo[stage.name] == "start" and stage.folder.exists():
            shutil.rmtree(stage.folder)  # it was stopped before its first checkpoint
        resume = ["resume=true"] if todo[stage.name] == "resume" else []
        code = _child([sys.executable, "-m", "vgbench.cli", "run", *stage.overrides, *resume])
        if code == 0 and not (stage.folder / FILE_NAME).exists():
            code = 1
        if code:
            print(f"{label}: stopped (exit code {code}); the same command goes on from there", file=sys.stderr)
            return code
    return 0


def check(overrides: Sequence[str]) -> int:
    """Look at everything that any stage will need, before one of them runs; what an earlier stage makes is left out.

    Raises:
        UserError: naming the stage.
    """
    from vgbench.training.run import rehearse

    flow, stages = plan(overrides)
    for stage in stages:
        made = {f"weights={quoted(other.folder)}" for other in stages}
        config = compose([item for item in stage.overrides if item not in made])
        try:
            rehearse(config)
        except UserError as error:
            raise UserError(f"flow {flow.name}, stage {stage.name}: {error}") from None
    return 0


def _child(command: Sequence[str]) -> int:
    """Run a command to its end; if this process is told to stop, the command is told too, and waited for."""
    with listening() as request, subprocess.Popen(command, env=child_environment()) as child:
        request.forward = child.send_signal  # Ctrl-C reaches the child by itself
        request.defers = True
        code = child.wait()
        if code == 0 and request.signal is not None:  # it had just ended
            code = 128 + request.signal
    return code if code >= 0 else 128 - code
