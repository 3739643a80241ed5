"""The command line. Nothing heavy is imported before a command is known: ``vgbench --help`` answers at once."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence

from vgbench.cli import (
    bench,
    compare,
    completion,
    conform,
    data,
    demo,
    doctor,
    evaluate,
    export,
    list,
    new,
    predict,
    push,
    reproduce,
    run,
    score,
    stress,
)
from vgbench.cli.command import Command, Parser
from vgbench.cli.hints import config_hint, is_config_error, package_hint, place_hint, text_hint
from vgbench.core.errors import Stopped, UserError
from vgbench.core.lines import one_line
from vgbench.core.stop import listening

COMMANDS: tuple[Command, ...] = (
    *(demo, run, evaluate, stress, bench, predict, export, score),
    *(compare, reproduce, push, list, new, data, conform, doctor, completion),
)

PLUGIN = "take methods, datasets, metrics and probes from a file or package that is not installed (may be repeated)"


def build_parser() -> Parser:
    """The whole parser; the options of a command are added when it is asked for."""
    parser = Parser(
        prog="vgbench",
        description="Train, evaluate and compare visual-grounding methods under one roof.",
        epilog="first steps: vgbench demo; vgbench list; vgbench run method=alvg dataset=refshapes; vgbench compare. "
        "exit codes: 0 done; 1 done, and the answer is no (a difference with --strict, a failed case); 2 something for "
        "you to mend, said in one line; 130 interrupted; 128 + signal: stopped and saved. NO_COLOR=1: no colours.",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    choices = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in COMMANDS:
        choice = choices.add_parser(
            command.NAME, help=command.HELP, description=command.HELP, epilog=f"example: {command.EXAMPLE}"
        )
        choice.command = command
        choice.set_defaults(execute=command.execute, takes_words=command is predict)
        choice.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        if command.TAKES_PLUGINS:
            choice.add_argument("--plugin", action="append", default=[], metavar="FILE.py|PACKAGE", help=PLUGIN)
        else:
            choice.set_defaults(plugin=[])
    return parser


def _execute(arguments: argparse.Namespace) -> int:
    with listening():
        for spec in arguments.plugin:
            from vgbench.config import plugins

            plugins.load(spec)
        return arguments.execute(arguments)


def _unknown_command(words: Sequence[str]) -> str | None:
    """What to say of a command that there is not; None if there is nothing to say."""
    names = [command.NAME for command in COMMANDS]
    name = next((word for word in words if not word.startswith("-")), None)
    if name is None or name in names:
        return None
    close = difflib.get_close_matches(name, names, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"no command {name!r}; {meant}there are: {', '.join(names)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Exit code 2 and one line for what the user can mend; tracebacks only for our own bugs."""
    words = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:
        completion.answer(parser)
    if wrong := text_hint(words) or _unknown_command(words):
        print(f"vgbench: error: {wrong}", file=sys.stderr)
        return 2
    arguments, unknown = parser.parse_known_args(words)
    if hasattr(arguments, "overrides"):  # argparse gives up on key=value behind an option
        more = [item for item in unknown if not item.startswith("-") and ("=" in item or arguments.takes_words)]
        arguments.overrides += more
        unknown = [item for item in unknown if item not in more]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if arguments.version:
        from vgbench import __version__

        print(f"vgbench {__version__}")
        return 0
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        return _execute(arguments)
    except UserError as error:
        if arguments.debug:
            raise
        if str(error):  # of several processes one speaks
            print(f"vgbench: error: {one_line(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Stopped as error:
        if str(error):  # of several processes one speaks
            print(f"vgbench: {one_line(error)}", file=sys.stderr)
        return 128 + error.signal
    except KeyboardInterrupt:
        print("vgbench: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        hint = package_hint(error) or (config_hint(error, arguments) if is_config_error(error) else place_hint(error))
        if arguments.debug or hint is None:
            raise
        print(f"vgbench: error: {hint}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
