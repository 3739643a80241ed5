"""``vgbench stress``: does a model ground, or does it guess?"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from vgbench.cli import hydra_job
from vgbench.cli.command import Lines
from vgbench.core.errors import UserError

NAME = "stress"
HELP = "Ask a model changed questions whose right answer is known: does it ground, or does it guess?"
EXAMPLE = "vgbench stress method=alvg dataset=refshapes checkpoint=shipped probes=mirror,swap,words:typos"
TAKES_PLUGINS = True

PROBES = "probes"  # short for eval.stress
KEYS = (
    "export, score, errors, threshold or cards and what each takes (below), or method=NAME dataset=NAME (vgbench list) "
    "data_root=FOLDER checkpoint=RUN|FILE|shipped [probes=all|NAME,NAME:KIND@SEVERITY (vgbench list probes)] "
    "[eval.stress_limit=N] [eval.splits=[val]]"
)


class Part(NamedTuple):
    """What ``vgbench stress`` does besides asking a model, by the first word behind it."""

    execute: Callable[[Namespace], int]
    example: str


def _export(arguments: Namespace) -> int:
    from vgbench.cli.stress_files import export

    return export(arguments)


def _score(arguments: Namespace) -> int:
    from vgbench.cli.stress_files import score

    return score(arguments)


def _errors(arguments: Namespace) -> int:
    from vgbench.cli.stress_errors import errors

    return errors(arguments)


def _threshold(arguments: Namespace) -> int:
    from vgbench.cli.stress_errors import threshold

    return threshold(arguments)


def _cards(arguments: Namespace) -> int:
    from vgbench.core.registry import probes
    from vgbench.probes.catalog import probe_class

    for name in [item for item in arguments.overrides if "=" not in item] or list(probes):
        probe = probe_class(name)
        kinds = ", ".join(f"{kind or name} ({expectation.value})" for kind, expectation in probe.kinds.items())
        levels = f"; severities @1 to @{probe.levels}" if probe.levels else ""
        print(f"{name}: {probe.title}\n  kinds: {kinds}{levels}\n  shows: {probe.shows}\n  cannot: {probe.cannot}\n")
    return 0


PARTS = {
    "export": Part(_export, "vgbench stress export dataset=refcoco data_root=data split=val out=questions"),
    "score": Part(_score, "vgbench stress score questions answers=answers format=text scale=1000"),
    "errors": Part(_errors, "vgbench stress errors runs/alvg-refcoco runs/simvg-refcoco --ceiling ref-l4"),
    "threshold": Part(_threshold, "vgbench stress threshold runs/simvg-grefcoco select=val"),
    "cards": Part(_cards, "vgbench stress cards mirror words"),
}


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command."""
    hydra_job.add_arguments(parser, KEYS)
    parser.formatter_class = Lines
    others = "\n  ".join(part.example for part in PARTS.values())
    parser.epilog = f"{parser.epilog}\n\nmore:\n  {others}"
    parser.add_argument("--register", type=Path, metavar="DIR", help="score: write a run folder, external")
    parser.add_argument("--label", help="score: the model's name on leaderboards")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="score, errors, threshold: write the numbers there too"
    )
    parser.add_argument(
        "--ceiling",
        metavar="FILTER|DATASET",
        help="errors: a published review, or a second annotation of the same images",
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="errors: draw what every run got wrong")


def execute(arguments: Namespace) -> int:
    """Ask the probes and write a run folder, or do what the first word says.

    Raises:
        UserError: if an option belongs to another part, or a probe is not known.
    """
    first = arguments.overrides[0] if arguments.overrides else ""
    if first in PARTS:
        arguments.overrides = arguments.overrides[1:]
        return PARTS[first].execute(arguments)
    if first and "=" not in first and not first.startswith(("+", "~")):
        raise UserError(f"stress {first}: no such part; there are: {', '.join(PARTS)}, or method=... to ask a model")
    for option in ("register", "label", "json", "ceiling", "pictures"):
        if getattr(arguments, option) is not None:
            raise UserError(f"--{option} is for vgbench stress score, errors or threshold; --help shows which")
    arguments.overrides = [_spelt(item) for item in arguments.overrides]
    return hydra_job.execute(arguments, _stress)


def _spelt(item: str) -> str:
    """``probes=a,b`` as Hydra's list."""
    key, _, value = item.partition("=")
    if key != PROBES:
        return item
    names = ",".join(f"'{name.strip()}'" for name in value.strip("[]").split(","))
    return f"eval.stress=[{names}]"


def _stress(config: Any) -> float:
    from vgbench.training.run import stress

    return stress(config).primary
