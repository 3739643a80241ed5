"""What is checked of a method on a card; `class TestNAME(OnTheCard)` runs it for one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch

from vgbench import optim
from vgbench.batches.synthetic import synthetic_batch
from vgbench.cli import main
from vgbench.config.compose import compose
from vgbench.conform.run import run_case
from vgbench.layers.casts import cast_weights_once, one_cast_per_step
from vgbench.method import GroundingMethod
from vgbench.records import store
from vgbench.training.setup import build_method

CASES = Path(__file__).parents[1] / "conformance"
FEW = ("recipe.epochs=1", "recipe.batch_size=8", "eval.splits=[val]", "eval.control=null", "eval.examples=1")
FEW += ("eval.bootstrap=20", "workers=0", "logger.every_n_steps=1", "trainer=gpu")
MARKS = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def small(method: str) -> GroundingMethod:
    """The small preset with random weights; no dropout, so that two devices compute the same."""
    config = compose([f"method={method}", "dataset=refshapes", "weights=null"])
    torch.manual_seed(0)
    built = build_method(config.method)
    for module in built.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return built


def losses_and_gradients(method: GroundingMethod, device: str) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    method.to(device).eval()
    batch = synthetic_batch(method, 4, (128, 128)).to(device)
    torch.manual_seed(1)
    losses = method(batch)
    losses["total"].backward()
    gradients = {name: p.grad.cpu() for name, p in method.named_parameters() if p.grad is not None}
    return {name: float(value) for name, value in losses.items()}, gradients


class OnTheCard:
    """The tests of one method."""

    method: ClassVar[str]
    draws_on_the_device: ClassVar[bool] = False  # its losses differ from the CPU's; the conformance cases compare it

    @pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
    def test_it_trains_and_evaluates(self, precision: str, data: list[str], tmp_path: Path) -> None:
        options = [*FEW, f"runs={tmp_path}", f"trainer.precision={precision}"]
        assert main(["run", f"method={self.method}", *data, *options]) == 0
        record = store.read(tmp_path / f"{self.method}-refshapes")
        assert record.training is not None and record.training.steps and record.training.precision == precision
        assert all(abs(value) < 1e4 for value in record.training.final_losses.values())
        assert record.environment.hardware.gpu and record.results

    def test_it_trains_compiled(self, data: list[str], tmp_path: Path) -> None:
        options = [f"runs={tmp_path}", "trainer.precision=bf16-mixed", "compile=true"]
        assert main(["run", f"method={self.method}", *data, *FEW, *options]) == 0
        assert store.read(tmp_path / f"{self.method}-refshapes").results

    def test_losses_and_gradients_are_those_of_the_cpu(self) -> None:
        """float32, TF32 off."""
        if self.draws_on_the_device:
            pytest.skip("it draws negatives and masked words on the device: the conformance cases compare it")
        ours, gradients = losses_and_gradients(small(self.method), "cuda")
        theirs, expected = losses_and_gradients(small(self.method), "cpu")
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=2e-4, abs=2e-5), name
        scale = max(float(value.abs().max()) for value in expected.values())
        for name, value in expected.items():
            torch.testing.assert_close(gradients[name], value, rtol=1e-2, atol=1e-4 * scale)

    def test_predictions_are_those_of_the_cpu(self) -> None:
        results = []
        for device in ("cuda", "cpu"):
            model = small(self.method).to(device).eval()
            with torch.set_grad_enabled(model.requires_grad_at_inference):
                results.append(model.predict(synthetic_batch(model, 3, (128, 128)).to(device)))
        ours, theirs = results
        for output, predictions in theirs.items():
            for mine, other in zip(ours[output], predictions, strict=True):
                torch.testing.assert_close(mine.scores, other.scores, rtol=1e-3, atol=1e-4)
                torch.testing.assert_close(mine.boxes, other.boxes, rtol=1e-3, atol=0.05)

    def test_nothing_in_a_training_step_waits_for_the_device(self) -> None:
        model = small(self.method).cuda().train()
        cast_weights_once(model.compiled_blocks())
        batch = synthetic_batch(model, 4, (128, 128)).to("cuda")
        optimizer = optim.build_optimizer(model.param_groups(1e-4), torch.optim.AdamW)

        def step() -> None:
            with torch.autocast("cuda", torch.bfloat16), one_cast_per_step():
                total = model(batch)["total"]
            total.backward()
            optim.clip_gradients(optimizer, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        step()  # what is made once (states, tables of positions) may be made by waiting
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_conformance_on_the_card(self) -> None:
        """Every case of the method, with the tolerances that are stated for CUDA, TF32 off."""
        failures = {}
        for folder in sorted(CASES.glob(f"{self.method}-*/case.yaml")):
            result = run_case(folder.parent, device="cuda")
            if not (result.judged and result.passed):
                failures[folder.parent.name] = result.failures
        assert not failures
