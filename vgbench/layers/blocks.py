"""What is done to the repeated blocks of a model, one by one: compilation, and recomputation in the backward pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["BlockCall", "CompileMode", "checkpoint_blocks", "compile_blocks"]

CompileMode = Literal["default", "graphs"]

RECOMPILE_LIMIT = 64  # shapes, modes and precisions of one block's code; torch's 8 is meant for whole models


def compile_blocks(blocks: Iterable[nn.Module], mode: CompileMode = "default", backend: str = "inductor") -> int:
    """Compile each block in place: state-dict names stay, and blocks of one class with equal shapes share one code.

    A model of twelve equal layers is then compiled in the time of one. Nothing is compiled before the first call; the
    first shape of a block is compiled as it is, the second (the length of a text) for any size.

    Args:
        blocks: modules that are called as such (``block(x)``).
        mode: "graphs" also records CUDA graphs of every block, which only pays where launches are what is waited for.
        backend: of torch.compile; "eager" and "aot_eager" show whether blocks can be compiled, without compiling them.

    Returns:
        The number of blocks.
    """
    dynamo: Any = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, RECOMPILE_LIMIT)
    dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, 16 * RECOMPILE_LIMIT)
    count = 0
    for block in blocks:
        options: Any = {"mode": "reduce-overhead"} if mode == "graphs" else {}
        block.compile(backend=backend, **options)
        count += 1
    return count


def checkpoint_blocks(blocks: Iterable[nn.Module]) -> int:
    """Make each block keep its inputs only and run again in the backward pass: less memory, a third more arithmetic.

    In place, state-dict names stay; random draws (dropout) are the same in both runs. Returns the number of blocks.
    """
    count = 0
    for block in blocks:
        _Recomputed(block).take_over()
        count += 1
    return count


class BlockCall:
    """Stands in for the calls of a block. Can be pickled, as a model must be for loader processes that are not forked.

    Attributes:
        block: the block.
        inner: what was called in its place before: its compiled code, which layers share and which this stays outside
            of, or a ``forward`` of its own; None: that of its class.
    """

    def __init__(self, block: nn.Module) -> None:
        self.block = block
        self.inner: Any = block._compiled_call_impl or vars(block).get("forward")

    def take_over(self) -> None:
        """From now on the block is called through this."""
        if self.block._compiled_call_impl is not None:
            self.block._compiled_call_impl = self  # type: ignore[assignment]
        else:
            self.block.forward = self  # type: ignore[method-assign]

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """What the block computes."""
        if self.inner is not None:
            return self.inner(*arguments, **options)
        return type(self.block).forward(self.block, *arguments, **options)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.forward(*arguments, **options)


class _Recomputed(BlockCall):
    """Runs again in the backward pass."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*arguments, **options)
        return checkpoint(self.forward, *arguments, use_reentrant=False, **options)
