"""``vgbench export``: a model as one file."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from vgbench.core.errors import UserError
from vgbench.training import weights
from vgbench.training.setup import checkpoint_node, checkpointed_method


def export(config: DictConfig, file: Path, half: bool, slim: bool = False) -> int:
    """Write the model of ``checkpoint`` as one safetensors file that ``weights=`` and ``checkpoint=`` take.

    Args:
        half: store as float16.
        slim: leave out what only training needs.

    Raises:
        UserError: if the file has another ending or exists already.
    """
    if file.suffix != ".safetensors":
        raise UserError(f"{file}: a model is written as .safetensors; rename the file")
    if file.exists():
        raise UserError(f"{file}: exists already; remove it, or give another name")
    method, path, _ = checkpointed_method(config)
    state, left_out = weights.slim(method) if slim else (method.state_dict(), ())
    weights.save(state, checkpoint_node(config, path), file, half)
    without = f", without {', '.join(left_out)}" if left_out else ""
    count = sum(parameter.numel() for name, parameter in method.named_parameters() if name in state)
    print(f"{file}: {method.name}, {count:,} parameters{without}, {file.stat().st_size / 1e6:.2f} MB")
    return 0
