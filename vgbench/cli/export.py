"""``vgbench export``: a model as one file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from vgbench.config.compose import compose
from vgbench.config.paths import quoted
from vgbench.core.errors import UserError
from vgbench.core.registry import methods

NAME = "export"
HELP = "Write a model (a run folder, or the authors' checkpoint) as one safetensors file."
EXAMPLE = "vgbench export runs/alvg-refcoco alvg.safetensors --half"
TAKES_PLUGINS = True


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument("checkpoint", help='run folder, checkpoint file, or "shipped"')
    parser.add_argument("file", type=Path, help="file to write, .safetensors")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="method=... for an official checkpoint")
    parser.add_argument("--half", action="store_true", help="store as float16: half the size")
    parser.add_argument("--slim", action="store_true", help="leave out what only training needs (a momentum model)")


def execute(arguments: Namespace) -> int:
    """Write the model of a checkpoint as one safetensors file that ``weights=`` and ``checkpoint=`` take.

    Raises:
        UserError: if the file has another ending or exists already.
    """
    from vgbench.training import weights
    from vgbench.training.setup import checkpoint_node, checkpointed_method

    file: Path = arguments.file
    config = compose([*_overrides(arguments), f"checkpoint={quoted(arguments.checkpoint)}"])
    if file.suffix != ".safetensors":
        raise UserError(f"{file}: a model is written as .safetensors; rename the file")
    if file.exists():
        raise UserError(f"{file}: exists already; remove it, or give another name")
    method, path, _ = checkpointed_method(config)
    if path is None:
        raise UserError(f"{method.name} has no weights to export: a server predicts")
    state, left_out = weights.slim(method) if arguments.slim else (method.state_dict(), ())
    weights.save(state, checkpoint_node(config, path), file, arguments.half)
    without = f", without {', '.join(left_out)}" if left_out else ""
    count = sum(parameter.numel() for name, parameter in method.named_parameters() if name in state)
    print(f"{file}: {method.name}, {count:,} parameters{without}, {file.stat().st_size / 1e6:.2f} MB")
    return 0


def _overrides(arguments: Namespace) -> list[str]:
    """The overrides, with the method that the checkpoint itself names."""
    from vgbench.training import weights

    path, overrides = Path(arguments.checkpoint), list(arguments.overrides)
    if not path.exists() or any(item.startswith("method=") for item in overrides):
        return overrides
    stored = weights.method_config(weights.resolve(str(path)))
    name = methods.name_of(methods.by_path(stored["_target_"])) if stored else None
    return [f"method={name}", *overrides] if name else overrides
