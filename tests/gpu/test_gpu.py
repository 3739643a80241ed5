"""The GPU check: `pytest -m gpu`. Every method at its small preset trains, resumes, evaluates and predicts on a CUDA
device, in every precision, eager and compiled; its numbers are those of the CPU; nothing in a step waits for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vgbench.batches.synthetic import synthetic_batch
from vgbench.batches.transforms import IMAGENET_MEAN, IMAGENET_STD
from vgbench.cli import main
from vgbench.config.compose import compose
from vgbench.conform.run import run_case
from vgbench.method import GroundingMethod
from vgbench.records import store
from vgbench.training.setup import build_method
from vgbench.types import Normalization

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

METHODS = ("alvg", "simvg", "resvg", "vglaw", "amc")
CASES = Path(__file__).parents[1] / "conformance"
FEW = ["recipe.epochs=1", "recipe.batch_size=8", "eval.splits=[val]", "eval.control=null", "eval.examples=1"]
FEW += ["eval.bootstrap=20", "workers=0", "logger.every_n_steps=1", "trainer=gpu"]


@pytest.fixture(scope="module")
def data(few_scenes: Callable[[str], list[str]]) -> list[str]:
    return few_scenes("train:24,val:8,testA:3,testB:3")


@pytest.fixture(autouse=True)
def float32_is_float32() -> Iterator[None]:
    """Comparisons with the CPU are made without TF32, whatever a run before this test has set."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    yield


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


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("method", METHODS)
def test_it_trains_and_evaluates(method: str, precision: str, data: list[str], tmp_path: Path) -> None:
    assert main(["run", f"method={method}", *data, *FEW, f"runs={tmp_path}", f"trainer.precision={precision}"]) == 0
    record = store.read(tmp_path / f"{method}-refshapes")
    assert record.training is not None and record.training.steps and record.training.precision == precision
    assert all(abs(value) < 1e4 for value in record.training.final_losses.values())
    assert record.environment.hardware.gpu and record.results


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_compiled(method: str, data: list[str], tmp_path: Path) -> None:
    options = [f"runs={tmp_path}", "trainer.precision=bf16-mixed", "compile=true"]
    assert main(["run", f"method={method}", *data, *FEW, *options]) == 0
    assert store.read(tmp_path / f"{method}-refshapes").results


@pytest.mark.parametrize("method", [name for name in METHODS if name != "amc"])
def test_losses_and_gradients_are_those_of_the_cpu(method: str) -> None:
    """float32, TF32 off. AMC draws its negatives and masked words on the device: the conformance cases compare it."""
    ours, gradients = losses_and_gradients(small(method), "cuda")
    theirs, expected = losses_and_gradients(small(method), "cpu")
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=2e-4, abs=2e-5), name
    scale = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-2, atol=1e-4 * scale)


@pytest.mark.parametrize("method", METHODS)
def test_predictions_are_those_of_the_cpu(method: str) -> None:
    results = []
    for device in ("cuda", "cpu"):
        model = small(method).to(device).eval()
        with torch.set_grad_enabled(model.requires_grad_at_inference):
            results.append(model.predict(synthetic_batch(model, 3, (128, 128)).to(device)))
    ours, theirs = results
    for output, predictions in theirs.items():
        for mine, other in zip(ours[output], predictions, strict=True):
            torch.testing.assert_close(mine.scores, other.scores, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(mine.boxes, other.boxes, rtol=1e-3, atol=0.05)


def test_pixels_are_normalised_to_the_same_bits() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).expand(2, 3, 4, 256).contiguous()
    content = torch.tensor([[1, 3, 4, 200], [0, 0, 4, 256]])
    normalization = Normalization(IMAGENET_MEAN, IMAGENET_STD)
    theirs = normalization(pixels, content)
    normalization(pixels.cuda())  # its constants are made once
    torch.cuda.set_sync_debug_mode("error")
    try:
        ours = normalization(pixels.pin_memory().cuda(non_blocking=True), content.pin_memory().cuda(non_blocking=True))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(ours.cpu(), theirs)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_in_a_training_step_waits_for_the_device(method: str) -> None:
    from vgbench import optim

    model = small(method).cuda().train()
    batch = synthetic_batch(model, 4, (128, 128)).to("cuda")
    optimizer = optim.build_optimizer(model.param_groups(1e-4), torch.optim.AdamW)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
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


def test_a_stopped_run_goes_on(data: list[str], tmp_path: Path) -> None:
    """Two epochs at once, or one and then the other: the same optimiser steps, up to the order of sums on the card."""
    common = ["run", "method=alvg", *data, *FEW, "recipe.schedule.epochs=2"]
    assert main([*common, "recipe.epochs=2", f"run_dir={tmp_path / 'whole'}"]) == 0
    whole = store.read(tmp_path / "whole")
    assert whole.training is not None and whole.training.steps
    (tmp_path / "whole" / "record.json").unlink()
    assert main([*common, "recipe.epochs=2", f"run_dir={tmp_path / 'whole'}", "resume=true"]) == 0
    again = store.read(tmp_path / "whole")
    assert again.training is not None and again.training.steps == whole.training.steps
    assert [r.metrics for r in again.results] == [r.metrics for r in whole.results]


def test_prediction_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (120, 90), "grey").save(tmp_path / "photo.jpg")
    os.chdir(tmp_path)
    assert main(["predict", "photo.jpg", "the large red circle", "method=alvg", "dataset=refshapes",
                 "checkpoint=shipped", "trainer=gpu"]) == 0  # fmt: skip
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(answer["boxes"][0]) == 4


def test_sharded_parameters_on_one_card(data: list[str], tmp_path: Path) -> None:
    """FSDP trains, writes one whole model, and resumes."""
    common = ["run", "method=alvg", *data, *FEW, f"run_dir={tmp_path / 'run'}", "trainer=fsdp", "trainer.devices=1"]
    assert main(common) == 0
    state = load_file(tmp_path / "run" / "model.safetensors")
    config = compose(["method=alvg", "dataset=refshapes"])
    shapes = {name: value.shape for name, value in build_method(config.method).state_dict().items()}
    assert {name: value.shape for name, value in state.items()} == shapes
    (tmp_path / "run" / "record.json").unlink()
    assert main([*common, "resume=true"]) == 0


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir() if (path / "case.yaml").exists()))
def test_conformance_on_the_card(case: str) -> None:
    """Judged with the tolerances that are stated for CUDA, TF32 off."""
    result = run_case(CASES / case, device="cuda")
    assert result.judged
    assert result.passed, result.failures
