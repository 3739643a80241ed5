"""Every command line that README, docs and cards show: its options exist, and its keys are keys of a configuration."""

from __future__ import annotations

import re
import shlex
from argparse import Namespace
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from vgbench.cli.data import actions
from vgbench.cli.main import COMMANDS, build_parser
from vgbench.config.compose import compose, split_overrides
from vgbench.core.errors import UserError
from vgbench.reproduce.plan import OWN_KEYS

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/*/README.md"), *ROOT.glob("datasets/*.md")]
PAGES += [*ROOT.glob("vgbench/*/README.md"), *ROOT.glob("vgbench/probes/**/*.md"), ROOT / "leaderboards" / "README.md"]
OWN = ("sweep", "flow", "select", "answers", "out", "split", "probes", "style", "format", "scale", "boxes", "frame")
OWN += ("several", "match", "id", "text", "box", "sentence")


def lines_of(page: Path) -> Iterator[str]:
    """Command lines of indented and fenced blocks, continued lines joined; and those within a sentence."""
    text = re.sub(r"\\\n\s*", " ", page.read_text("utf-8"))
    for line in text.splitlines():
        found = re.match(r"(?: {4,}|\| )?(?:srun |uvx |\.venv/bin/)?(vgbench [a-z].*)", line)
        if found and line.startswith((" ", "vgbench", "srun", "uvx")):
            yield found[1]
    yield from re.findall(r"`(vgbench [a-z][^`\n]*=[^`\n]*)`", text)  # others name a command or an option


def words_of(line: str) -> list[str] | None:
    """The words behind ``vgbench``; None where it is no whole command line."""
    if "..." in line or "|" in line or "$(" in line:
        return None
    try:
        words = shlex.split(line, comments=True)[1:]
    except ValueError:
        return None
    return words if words and words[0] in {command.NAME for command in COMMANDS} else None


@cache
def documented() -> dict[str, list[str]]:
    """Command line -> pages that show it."""
    lines: dict[str, list[str]] = {}
    for page in PAGES:
        for line in lines_of(page):
            if words_of(line) is not None:
                lines.setdefault(line, []).append(str(page.relative_to(ROOT)))
    return lines


def parsed(words: list[str]) -> Namespace:
    arguments, unknown = build_parser().parse_known_args(words)
    options = [word for word in unknown if word.startswith("-")]
    assert not options, f"no option {options}"
    if hasattr(arguments, "overrides"):
        arguments.overrides += unknown
    return arguments


def check_keys(arguments: Namespace, seen: set[tuple[str, ...]]) -> None:
    """Keys and names of choices are those of a configuration, of an action of ``data``, or of the command itself."""
    overrides = [word for word in arguments.overrides if "=" in word]
    if arguments.command == "reproduce":
        _, overrides = split_overrides(overrides, *OWN_KEYS)
    elif arguments.command == "data":
        action = actions()[arguments.action]
        assert not [flag for flag in arguments.flags if flag not in action.flags]
        _, overrides = split_overrides(overrides, *action.keys)
    else:
        _, overrides = split_overrides(overrides, *OWN)
    if getattr(arguments, "multirun", False):
        overrides = [re.sub(r"=([^\[,]+),.*", r"=\1", word) for word in overrides]  # the first point of the sweep
    overrides = [re.sub(r"^\w+:", "", word) for word in overrides]  # of one stage of a flow
    overrides = [word for word in overrides if not word.startswith(("hydra.", "hydra/"))]
    named = any(word.startswith("method=") for word in overrides)
    if arguments.command in ("export", "predict") and not named:
        return  # its keys are those of the method that the run folder names
    if arguments.plugin or any(re.match(r"(method|dataset)=(my|centre|[A-Z]+$)", word) for word in overrides):
        return  # names that a reader is to fill in
    name = "bench" if arguments.command == "bench" else "run"
    choices = ("method=", "dataset=", "trainer=", "recipe=", "logger=", "suite=")
    keys = (name, *sorted(word if word.startswith(choices) else word.partition("=")[0] for word in overrides))
    if keys not in seen:  # composing takes a while, and what a value is makes no key right
        seen.add(keys)
        compose(overrides, name)


def test_there_are_many() -> None:
    assert len(documented()) > 80


def test_every_documented_command_line_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    wrong, seen = [], set[tuple[str, ...]]()
    for line, pages in documented().items():
        words = words_of(line)
        assert words is not None
        try:
            arguments = parsed(words)
            if hasattr(arguments, "overrides"):
                check_keys(arguments, seen)
        except (SystemExit, UserError, AssertionError, Exception) as error:
            reason = " ".join((capsys.readouterr().err or str(error)).split())[-300:]
            wrong.append(f"{', '.join(pages)}: {line}\n    {type(error).__name__}: {reason}")
    assert not wrong, "\n" + "\n".join(wrong)
