"""``vgbench stress``: does a model ground, or does it guess?"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from vgbench.cli import hydra_job

NAME = "stress"
HELP = "Ask a model changed questions whose right answer is known: does it ground, or does it guess?"
EXAMPLE = "vgbench stress method=alvg dataset=refshapes checkpoint=shipped probes=mirror,swap,words:typos"
TAKES_PLUGINS = True


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command."""
    hydra_job.add_arguments(parser)


def execute(arguments: Namespace) -> int:
    """Ask the probes; writes a run folder."""
    arguments.overrides = [_spelt(item) for item in arguments.overrides]
    return hydra_job.execute(arguments, _stress)


def _spelt(item: str) -> str:
    """``probes=a,b`` as Hydra's list."""
    key, _, value = item.partition("=")
    if key != "probes":
        return item
    names = ",".join(f"'{name.strip()}'" for name in value.strip("[]").split(","))
    return f"eval.stress=[{names}]"


def _stress(config: Any) -> float:
    from vgbench.training.run import stress

    return stress(config).primary
