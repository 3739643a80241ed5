"""``vgbench completion``: what a shell needs to complete commands, options and names."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from vgbench.cli.command import Parser

NAME = "completion"
HELP = "Print what a shell needs to complete commands, options and names."
EXAMPLE = 'vgbench completion bash   (put eval "$(vgbench completion bash)" into ~/.bashrc)'
TAKES_PLUGINS = False

GROUPS = ("method", "dataset", "trainer", "logger")


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument("shell", nargs="?", choices=["bash", "zsh", "fish", "powershell"], default="bash")


def execute(arguments: Namespace) -> int:
    """Print the shell code."""
    import argcomplete

    shell = "bash" if arguments.shell == "zsh" else arguments.shell  # argcomplete's code for bash is for zsh too
    print(argcomplete.shellcode(["vgbench"], shell=shell))
    return 0


def answer(parser: Parser) -> None:
    """Answer the shell, which runs ``vgbench`` with a variable set, and end the process."""
    import argcomplete

    for action in parser._actions:
        for choice in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
            choice.complete()
            choice.command = None  # its arguments are there now
            for own in choice._actions:
                if own.dest == "overrides":
                    own.completer = overrides
    argcomplete.autocomplete(parser)


def overrides(prefix: str, **_: Any) -> list[str]:
    """``method=alvg``, ``dataset=refcoco``, ...: the choices of the groups, and the other keys that are often set."""
    from vgbench.config.compose import options, recipes

    names = [f"{group}={name}" for group in GROUPS for name in options(group)]
    names += [f"recipe={name}" for name in recipes()] if prefix.startswith("recipe") else ["recipe="]
    return [*names, "data_root=", "checkpoint=", "weights=", "pretrained=", "smoke=true", "resume=true", "seed="]
