"""`vgbench bench` at tiny sizes on the CPU: one method, and the suite of the GPU check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vgbench.bench.measure import Timeline, count_launches, matmul_rate, tiled_batch
from vgbench.cli.main import main
from vgbench.config.compose import compose
from vgbench.training.setup import build_method

SIZES = "image_size=64 encoder_width=48 encoder_layers=2 encoder_heads=4 encoder_ffn=96 width=32 heads=4 ffn=64"
TINY = [f"method.{size}" for size in (SIZES + " vocab_size=100").split()]
FEW = ["trainer=cpu", "bench.steps=1", "bench.warmup=1"]


def test_one_method_with_the_recipes_own_optimiser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.json"
    assert main(["bench", "method=alvg", *FEW, *TINY, f"bench.json={file}", "bench.compile=[false]"]) == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert {"step s", "forward s", "host s", "first step s", "launches per step", "share of peak"} < row.keys()
    assert row["train samples/s"] > 0 and row["inference samples/s"] > 0 and row["launches per step"] > 500
    assert "workers feed" in capsys.readouterr().out
    config = compose(["method=alvg"], "bench")
    assert config.recipe.optimizer._target_ == "vgbench.optim.FusedAdam" and config.recipe.clip_norm == 0.15


def test_the_suite_writes_each_line_as_it_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    quick = "{method:alvg,batch:2,precision:32-true,compile:false,parts:[train,inference],seconds:0}"
    unknown = "{method:alvg,precision:32-true,compile:false,overrides:['method.num_queries=-1'],seconds:0}"
    late = "{method:simvg,precision:32-true,seconds:1000}"
    run = "{method:alvg,batch:2,precision:32-true,compile:false,run:['workers=0'],seconds:100}"
    images = "suite.images='train:4,pretrain:1,val:2,testA:1,testB:1'"
    sizes = ["suite.side=128", images, "suite.matrix=64", f"suite.overrides={[*FEW[1:], *TINY]}"]
    items = [f"suite.items=[{quick},{run},{unknown},{late}]"]
    assert main(["bench", "suite=gpu", f"out={file}", "trainer=cpu", *items, *sizes]) == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["machine", "bench", "run", "bench", "bench", "loader", "loader"]
    assert lines[1]["train samples/s"] > 0 and lines[1]["inference samples/s"] > 0
    run_line = lines[2]
    assert run_line["train samples/s"] > 0 and run_line["share of bench"] > 0
    assert run_line["eval expressions"] > 2 and 0 < run_line["eval s"] < run_line["eval s with start-up"]
    assert "error" in lines[3] and lines[4]["skipped"] == "no time left"


def test_large_batches_repeat_a_few_samples() -> None:
    method = build_method(compose(["method=alvg", *TINY]).method)
    batch = tiled_batch(method, 19, (60, 80))
    assert len(batch) == len(batch.geometry) == len(batch.keys) == 19
    assert torch.equal(batch.image[0], batch.image[8]) and not torch.equal(batch.image[0], batch.image[1])


def test_measuring_on_the_cpu() -> None:
    device = torch.device("cpu")
    line = Timeline(device)
    for _ in range(3):
        line.mark()
    assert len(line.seconds()) == 2 and (line.seconds() >= 0).all()
    assert count_launches(lambda: torch.ones(3) + torch.ones(3), device) == 3
    assert matmul_rate(device, torch.float32, 64) > 0
