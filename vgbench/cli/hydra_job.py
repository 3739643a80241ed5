"""What ``run``, ``eval`` and ``bench`` share: Hydra composes the configuration and calls them once per sweep point."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from vgbench.config.compose import check_recipe, expand, recipe_files
from vgbench.core.errors import Stopped, UserError

OVERRIDES = "Anything can be overridden in Hydra's syntax (key=value, +key=value, ~key); -m sweeps over a,b,c."


def add_arguments(parser: ArgumentParser) -> None:
    """Overrides, ``--multirun`` and ``--cfg``."""
    parser.description = f"{parser.description} {OVERRIDES}"
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("-m", "--multirun", action="store_true", help="run every combination of a,b,c values")
    parser.add_argument("--cfg", choices=["job", "hydra", "all"], help="print the composed configuration and stop")


def execute(arguments: Namespace, work: Callable[[Any], Any], config_name: str = "run") -> int:
    """Call ``work`` with the composed configuration; what it returns is the value of a sweep point."""
    import hydra

    from vgbench.config.plugins import prepare
    from vgbench.core.stop import listening

    argv = recipe_files(prepare(expand(arguments.overrides)))
    check_recipe(arguments.overrides)
    if arguments.cfg:
        argv += ["--cfg", arguments.cfg]
    if arguments.multirun:
        argv += ["--multirun"]
    own_argv, sys.argv = sys.argv, [f"vgbench {arguments.command}", *argv]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach us, we make one line of them
    failures: list[Exception] = []

    def job(config: Any) -> Any:
        sys.argv = own_argv  # Lightning starts the other processes of a node with it
        try:
            return work(config)
        except Exception as error:
            reason = _lost_process(error) or error
            if isinstance(reason, Stopped) or arguments.multirun:
                raise reason from None
            failures.append(reason)  # Hydra would print a line of its own
            return None

    with listening():
        hydra.main(version_base="1.3", config_path="pkg://vgbench.configs", config_name=config_name)(job)()
    if failures:
        raise failures[0]
    return 0


def _lost_process(error: Exception) -> UserError | Stopped | None:
    """What to say instead of an error that is the consequence of another process's end."""
    from vgbench.training.launch import lost_process

    return None if isinstance(error, UserError) else lost_process()
