"""Nothing in a step of the real training loop waits for the device: hooks, logging, clipping, optimiser, callbacks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from tests.layers.test_waiting import Waits
from vgbench.batches.transforms import IMAGENET_MEAN, IMAGENET_STD
from vgbench.config.compose import compose
from vgbench.methods.amc.transforms import CLIP_MEAN, CLIP_STD
from vgbench.training import run
from vgbench.types import Normalization

# The optimisers as they run on CUDA: fused, or the method's own.
FUSED = ["+recipe.optimizer.fused=true"]
OPTIMIZERS = dict.fromkeys(("alvg", "simvg", "resvg", "amc"), FUSED)
OPTIMIZERS["vglaw"] = ["recipe.optimizer={_target_: vgbench.methods.vglaw.optim.AdamWeightDecay, _partial_: true}"]
FEW = ["weights=null", "recipe.batch_size=8", "recipe.epochs=1", "recipe.eval_from=5", "trainer=cpu", "workers=1"]
FEW += ["+trainer.limit_train_batches=3", "eval.splits=[val]", "eval.limit=2", "eval.examples=0", "eval.bootstrap=2"]
FEW += ["eval.control=null", "logger.every_n_steps=50"]


class WaitsInSteps(Waits):
    """Those that Lightning's loop meets between taking a batch and being done with it, and where.

    Left out: the last step of the epoch, whose losses are shown and written, and the look at the loss, which is made at
    once on the CPU only (on a GPU at a copy, some steps later).
    """

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = len(self.found)
        result = super().__torch_dispatch__(function, types, args, kwargs)
        if len(self.found) > before:
            frames = list(_frames(sys._getframe(1)))
            loop = next((f for f in frames if f.f_code.co_filename.endswith("training_epoch_loop.py")), None)
            step = loop is not None and not loop.f_locals["self"].batch_progress.is_last_batch
            names = [f"{Path(f.f_code.co_filename).name}:{f.f_lineno}" for f in frames]
            look = any(name.startswith("losses.py") for name in names)
            self.found[before:] = [f"{self.found[before]} at {' < '.join(names[:5])}"] if step and not look else []
        return result


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


@pytest.mark.parametrize(
    "method", [name if name == "alvg" else pytest.param(name, marks=pytest.mark.slow) for name in OPTIMIZERS]
)
def test_no_step_of_a_run_waits(method: str, few_scenes: Callable[[str], list[str]], tmp_path: Path) -> None:
    data = few_scenes("train:8,val:2,testA:1,testB:1")
    config = compose([f"method={method}", *data, *FEW, *OPTIMIZERS[method], f"runs={tmp_path}"])
    for constants in ((IMAGENET_MEAN, IMAGENET_STD), (CLIP_MEAN, CLIP_STD)):  # made once
        Normalization(*constants)(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    with WaitsInSteps() as waits:
        result = run.run(config)
    assert result.record is not None and result.record.training is not None and result.record.training.steps == 3
    assert waits.found == []
