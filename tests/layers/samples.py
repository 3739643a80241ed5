"""A step of each method, ready to be taken."""

from __future__ import annotations

import torch

from vgbench.batches.synthetic import synthetic_batch
from vgbench.config.compose import compose
from vgbench.method import GroundingMethod
from vgbench.training.setup import build_method
from vgbench.types import Batch

METHODS = ("alvg", "simvg", "resvg", "vglaw", "amc")


def before_a_step(name: str) -> tuple[GroundingMethod, Batch]:
    """A method of the small preset that trains, and a batch for it."""
    torch.manual_seed(0)
    method = build_method(compose([f"method={name}", "dataset=refshapes", "weights=null"]).method).train()
    method.on_step(0, 0, 10)
    return method, synthetic_batch(method, 3, (96, 128))
