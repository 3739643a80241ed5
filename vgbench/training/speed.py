"""How a run uses its device: compiled and recomputed blocks, and what float32 means."""

from __future__ import annotations

import warnings

import torch
from omegaconf import DictConfig

from vgbench.core.errors import UserError
from vgbench.layers.blocks import checkpoint_blocks, compile_blocks
from vgbench.layers.casts import cast_weights_once
from vgbench.method import GroundingMethod

__all__ = ["LONG_RUN", "compiles", "evaluation_batch", "precision_notes", "prepare_blocks"]
__all__ += ["compute_device", "set_float32"]

LONG_RUN = (
    300  # optimiser steps from which ``compile: auto`` compiles: the first step then takes the best part of a minute
)

COMPILE = (True, False, "auto", "graphs")


# On a GPU smaller batches wait for the host, on the CPU larger ones need memory.
EVALUATION_BATCH = {"cuda": 64, "cpu": 16}


def compute_device(config: DictConfig) -> torch.device:
    """Where a process computes: on a GPU, unless there is none or ``trainer`` is the CPU's."""
    on_cpu = config.trainer.accelerator == "cpu" or not torch.cuda.is_available()
    return torch.device("cpu" if on_cpu else "cuda")


def evaluation_batch(config: DictConfig) -> int:
    """Samples per batch of scoring and predicting: ``eval.batch_size``, where "auto" is :data:`EVALUATION_BATCH`."""
    if config.eval.batch_size != "auto":
        return int(config.eval.batch_size)
    return EVALUATION_BATCH[compute_device(config).type]


def set_float32(precision: str) -> bool:
    """Let float32 products on CUDA be TF32 in mixed precision, and nowhere else; returns whether they are."""
    tf32 = str(precision).endswith("-mixed")
    with warnings.catch_warnings():  # PyTorch 2.9 warns of these switches, and Lightning still reads them
        warnings.filterwarnings("ignore", message=".*TF32")
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
    return tf32


def precision_notes(config: DictConfig) -> tuple[str, ...]:
    """What the record says of float32 on a GPU: whether its products were cut to TF32."""
    if compute_device(config).type == "cpu":
        return ()
    tf32 = set_float32(str(config.trainer.precision))
    return ("float32 products on the GPU were TF32" if tf32 else "float32 products on the GPU were float32 (no TF32)",)


def compiles(choice: bool | str, method: GroundingMethod, device: torch.device, steps: int) -> bool:
    """Whether a run of ``steps`` optimiser steps compiles, by its ``compile`` option."""
    if choice not in COMPILE:
        raise UserError(f"compile={choice}: choose auto, true, false or graphs")
    if choice == "auto":
        return device.type == "cuda" and steps >= LONG_RUN and any(True for _ in method.compiled_blocks())
    return bool(choice)


def prepare_blocks(config: DictConfig, method: GroundingMethod, device: torch.device, steps: int) -> bool:
    """What ``compile`` and ``checkpointing`` ask for, and weights cast once, in place; returns whether anything is
    compiled."""
    compiled = compiles(config.compile, method, device, steps)
    if compiled and not compile_blocks(method.compiled_blocks(), "graphs" if config.compile == "graphs" else "default"):
        method.compile()  # a plug-in that names no blocks
    if config.checkpointing and not checkpoint_blocks(method.checkpointed_blocks()):
        raise UserError(f"checkpointing=true: {method.name} names no layers that could be recomputed")
    autocast = str(config.trainer.precision).endswith("-mixed")
    if autocast and config.compile != "graphs" and not config.checkpointing:  # these want weights where they always are
        cast_weights_once(method.compiled_blocks())
    return compiled
