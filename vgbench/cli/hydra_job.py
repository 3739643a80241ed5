"""What ``run``, ``eval`` and ``bench`` share: Hydra composes the configuration and calls them once per sweep point."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from vgbench.cli.sweep import sweep_points
from vgbench.config.compose import check_recipe, expand, recipe_files, split_overrides
from vgbench.config.paths import with_quoted_paths
from vgbench.core.errors import Stopped, UserError

OVERRIDES = "Anything can be overridden in Hydra's syntax (key=value, +key=value, ~key); -m sweeps over a,b,c."


def add_arguments(parser: ArgumentParser, keys: str) -> None:
    """Overrides, ``--multirun`` and ``--cfg``; ``keys``: which overrides a newcomer looks for."""
    parser.description = f"{parser.description} {OVERRIDES}"
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=f"{keys}; all keys: --cfg job")
    parser.add_argument("-m", "--multirun", action="store_true", help="run every combination of a,b,c values")
    parser.add_argument("--cfg", choices=["job", "hydra", "all"], help="print the composed configuration and stop")


def execute(arguments: Namespace, work: Callable[[Any], Any], config_name: str = "run", prefix: str = "") -> int:
    """Call ``work`` with the composed configuration; what it returns is the value of a sweep point.

    Args:
        prefix: of the run folders of a sweep's points.
    """
    import hydra

    from vgbench.config.plugins import load, prepare
    from vgbench.core.stop import listening

    own, overrides = split_overrides(arguments.overrides, "sweep")
    argv = with_quoted_paths(recipe_files(prepare(expand(overrides))), sweep=arguments.multirun)
    check_recipe(overrides)
    points = sweep_points(arguments, argv, own.get("sweep"), prefix if config_name == "run" else None)
    arguments_of_hydra = [*argv, *(["--cfg", arguments.cfg] if arguments.cfg else [])]
    if arguments.multirun:
        arguments_of_hydra += ["--multirun"]
    own_argv, sys.argv = sys.argv, [f"vgbench {arguments.command}", *arguments_of_hydra]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach us, we make one line of them
    failures: list[Exception] = []
    plugins, multirun = list(arguments.plugin), arguments.multirun

    def job(config: Any) -> Any:
        sys.argv = own_argv  # Lightning starts the other processes of a node with it
        for spec in plugins:  # a launcher's process knows nothing of them
            load(spec)
        try:
            return points(config, work) if points else work(config)
        except Exception as error:
            reason = _lost_process(error) or error
            if isinstance(reason, Stopped) or multirun:
                raise reason from None
            failures.append(reason)  # Hydra would print a line of its own
            return None

    with listening(), _unchecked_help(), points.table() if points else nullcontext():
        hydra.main(version_base="1.3", config_path="pkg://vgbench.configs", config_name=config_name)(job)()
    if failures:
        raise failures[0]
    return 0


@contextmanager
def _unchecked_help() -> Iterator[None]:
    """Hydra 1.3 gives argparse a help text that is no string, and that nobody is shown here; Python 3.14 refuses it
    (https://github.com/facebookresearch/hydra/issues/3121)."""
    if not hasattr(ArgumentParser, "_check_help"):
        yield
        return
    setattr(ArgumentParser, "_check_help", lambda *_: None)  # noqa: B010 (unknown to type checkers)
    try:
        yield
    finally:
        delattr(ArgumentParser, "_check_help")  # that of its base class is back


def _lost_process(error: Exception) -> UserError | Stopped | None:
    """What to say instead of an error that is the consequence of another process's end."""
    if isinstance(error, (UserError, ImportError)):
        return None
    from vgbench.training.launch import lost_process

    return lost_process()
