"""``vgbench push``: a run to the Hugging Face Hub."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

NAME = "push"
HELP = "Send the model and the record of a run to the Hugging Face Hub, with a model card made from the record."
EXAMPLE = "vgbench push runs/alvg-refcoco hf://my-group/alvg-refcoco --private"
TAKES_PLUGINS = True


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("repo", help="hf://ORG/NAME; the token is read from HF_TOKEN or the login of huggingface_hub")
    parser.add_argument("--private", action="store_true", help="a new repository is private")
    parser.add_argument("--card", action="store_true", help="print the model card and send nothing")


def execute(arguments: Namespace) -> int:
    """Push, or print the card."""
    from vgbench.bridges import hub
    from vgbench.core.hub import Address
    from vgbench.records import store

    if arguments.card:
        print(hub.model_card(store.read(arguments.run), Address.parse(arguments.repo).repo), end="")
        return 0
    print(hub.push(arguments.run, arguments.repo, arguments.private))
    return 0
