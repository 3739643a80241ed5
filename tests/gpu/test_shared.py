"""What is the same for all methods on a card: resuming, sharding, predicting, pixels, the cases of shared parts."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.gpu.checks import CASES, FEW, MARKS, small
from vgbench.batches.synthetic import synthetic_batch
from vgbench.batches.transforms import IMAGENET_MEAN, IMAGENET_STD
from vgbench.cli import main
from vgbench.config.compose import compose
from vgbench.conform.run import run_case
from vgbench.layers.gelu_norm import norm_of_gelu
from vgbench.records import store
from vgbench.training.setup import build_method
from vgbench.training.transfer import BatchTransfer
from vgbench.types import Normalization

pytestmark = MARKS


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


def test_batches_that_are_copied_beside_the_computations_are_the_same() -> None:
    """While the device is busy, and with the memory of earlier batches reused."""
    transfer, device = BatchTransfer(), torch.device("cuda")
    method = small("alvg")
    busy = torch.randn(4096, 4096, device="cuda")
    sums, expected = [], []
    for number in range(30):
        batch = synthetic_batch(method, 8, (128, 128))
        batch = replace(batch, image=batch.image + number).pin_memory()
        expected.append(batch.image.double().sum())
        for _ in range(3):
            busy = (busy @ busy).tanh()
        sums.append(transfer(batch, device).image.double().sum())
        del batch
    torch.testing.assert_close(torch.stack(sums).cpu(), torch.stack(expected), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norm_of_gelu_and_its_gradients_are_those_of_float64(dtype: torch.dtype, compiled: bool) -> None:
    """The kernel that BEiT-3 runs, on the inner width of its base size, over more rows than there are programs."""
    norm = torch.nn.LayerNorm(3072).cuda()
    torch.nn.init.normal_(norm.weight)
    x = (3 * torch.randn(2, 401, 3072, device="cuda")).to(dtype).requires_grad_()
    gradient = torch.randn_like(x)
    function = torch.compile(norm_of_gelu, fullgraph=True) if compiled else norm_of_gelu
    ours = function(x, norm)
    ours.backward(gradient)
    ours_gradients = [x.grad, norm.weight.grad, norm.bias.grad]
    exact = torch.nn.LayerNorm(3072).cuda().double()
    exact.load_state_dict(norm.state_dict())
    other = x.detach().double().requires_grad_()
    theirs = exact(torch.nn.functional.gelu(other))
    theirs.backward(gradient.double())
    tolerance = 5e-3 if dtype == torch.bfloat16 else 5e-4
    pairs = [(ours, theirs), *zip(ours_gradients, [other.grad, exact.weight.grad, exact.bias.grad], strict=True)]
    for mine, expected in pairs:
        assert mine is not None and expected is not None
        assert float((mine.double() - expected).norm() / expected.norm()) < tolerance


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


@pytest.mark.parametrize("case", sorted(path.parent.name for path in CASES.glob("[bm]*/case.yaml")))
def test_conformance_of_shared_parts(case: str) -> None:
    """BEiT-3 and the metrics."""
    result = run_case(CASES / case, device="cuda")
    assert result.judged and result.passed, result.failures
