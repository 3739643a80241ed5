"""``vgbench data``: look after datasets.

What it can do are the actions of this folder's modules, and those of other packages (entry-point group
``vgbench.commands``).
"""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, Namespace

from vgbench.cli import data_download, data_files, data_views
from vgbench.cli.command import Lines, Parser
from vgbench.config.actions import Action, Arguments
from vgbench.config.compose import split_overrides
from vgbench.core.errors import UserError
from vgbench.core.registry import commands

NAME = "data"
HELP = "Look after datasets."
EXAMPLE = "vgbench data verify dataset=refcoco data_root=data"
TAKES_PLUGINS = True

OWN = (
    *(data_files.LIST, data_download.DOWNLOAD, data_files.BUILD, data_files.VERIFY, data_files.CONVERT),
    *(data_views.STATS, data_views.LEAKAGE, data_views.BROWSE),
)
BRIDGES = (data_files.REGISTER_DETECTRON2,)


def actions() -> dict[str, Action]:
    """All actions by name."""
    others = [action for provider in commands for action in commands.load(provider)]
    return {action.name: action for action in (*OWN, *others, *BRIDGES)}


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command: of the action on the command line, or an overview of all."""
    choices = actions()
    words = parser.words if isinstance(parser, Parser) else ()
    name = next((word for word in words if not word.startswith("-")), None)
    action = choices.get(name) if name else None
    parser.formatter_class = Lines
    parser.add_argument("action", choices=list(choices), help=None if action is None else SUPPRESS)
    shown = choices.values() if action is None else (action,)
    if action is None:
        examples = [f"vgbench data {one.name} {one.example}".rstrip() for one in shown]
        parser.epilog = "{}\n\nof each action (its options: vgbench data ACTION --help):\n  {}".format(
            parser.epilog, "\n  ".join(examples)
        )
    else:
        parser.prog = f"{parser.prog} {action.name}"
        parser.description = " ".join((action.execute.__doc__ or HELP).split("\n\n")[0].replace("``", "").split())
        parser.epilog = f"example: vgbench data {action.name} {action.example}".rstrip()
    usages = [f"{one.name}: {one.usage}" if action is None else one.usage for one in shown if one.usage]
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="; ".join([*_common(action), *usages]))
    for one in choices.values():
        for flag, help in one.flags.items():
            text = f"{one.name}: {help}" if action is None else help if one is action else SUPPRESS
            if any(flag in known.option_strings for known in parser._actions):
                continue  # two actions have it
            if action is not None and flag in action.flags:
                text = action.flags[flag]
            parser.add_argument(flag, action="append_const", const=flag, dest="flags", default=[], help=text)


def _common(action: Action | None) -> list[str]:
    """What most actions take: of one that names a data set in a folder, and its splits if it takes some."""
    if action is not None and "data_root=" not in action.example:
        return []
    if action is not None and not action.example.startswith("dataset="):
        return ["data_root=..."]
    return ["dataset=... data_root=..." + (" [split=a,b]" if action is None or "split" in action.keys else "")]


def execute(arguments: Namespace) -> int:
    """Run one action.

    Raises:
        UserError: if an option or a key is none of this action.
    """
    choices = actions()
    action = choices[arguments.action]
    for other in choices.values():
        for flag in other.flags:
            if flag in arguments.flags and flag not in action.flags:
                raise UserError(f"data {action.name}: {flag} is for data {other.name} only")
    keys = [*action.keys, *(key for other in (*OWN, *BRIDGES) for key in other.keys)]
    own, overrides = split_overrides(arguments.overrides, *keys)
    for key in own:
        if key not in action.keys:
            key_list = ", ".join(f"{name}=" for name in action.keys) or "none"
            hint = "; which layout is read says dataset.layout=" if key == "layout" else ""
            raise UserError(f"data {action.name}: {key}= is no key of it, its own are: {key_list}{hint}")
    return action.execute(Arguments(action.name, own, tuple(overrides), frozenset(arguments.flags)))
