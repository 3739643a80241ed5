"""VG-LAW through the command line on very few scenes: mode rec from training to record, and the price table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vgbench.cli.main import main
from vgbench.predictions.reader import read_predictions
from vgbench.records import store

SIZES = {"image_size": 64, "dim": 24, "depth": 2, "heads": 2, "window_size": 2, "global_blocks": "[1]"}
SIZES |= {"pretrain_image_size": 64, "text_dim": 48, "text_layers": 1, "text_heads": 4, "text_ffn": 16}
SIZES |= {"rank": 4, "key_dim": 8, "box_dim": 16, "mask_dim": 8}
TINY = ["method=vglaw", *(f"method.{name}={value}" for name, value in SIZES.items()), "trainer=cpu"]
RUN = ["method.max_positions=24", "workers=0", "recipe.batch_size=8", "recipe.epochs=1", "weights=null"]
RUN += ["eval.splits=[val]", "eval.examples=1", "eval.bootstrap=10", "eval.control=null"]


@pytest.fixture(scope="module")
def data(few_scenes: Callable[[str], list[str]]) -> list[str]:
    return few_scenes("train:6,val:4,testA:3,testB:3")


def test_mode_rec_from_training_to_record(data: list[str], tmp_path: Path) -> None:
    """The data set has masks; the mode takes no notice, not even of the variants that the recipe asks for."""
    variants = "eval.variants=[res/canvas+eps_one,rec/canvas]"
    assert main(["run", *TINY, *RUN, *data, "method.mode=rec", f"runs={tmp_path}", variants]) == 0
    entry = store.read(tmp_path / "vglaw-refshapes")
    assert entry.training is not None and entry.training.steps and entry.training.steps >= 3
    assert set(entry.training.final_losses) == {"train/total", "train/bbox", "train/xiou"}
    assert {result.task for result in entry.results} == {"rec"}
    assert {metric.variant for result in entry.results for metric in result.metrics.values()} == {"default", "canvas"}
    stored = read_predictions(tmp_path / "vglaw-refshapes" / "predictions" / "val.parquet")
    assert len(stored) == entry.results[0].expressions
    assert all(stored.prediction(place).mask is None for place in range(len(stored)))
    assert all(len(stored.prediction(place).boxes) == 1 for place in range(len(stored)))

    # the stored configuration says the mode: evaluation needs no word about it
    checkpoint = f"checkpoint={tmp_path / 'vglaw-refshapes'}"
    assert (
        main(["eval", "method=vglaw", "trainer=cpu", *RUN[1:2], *RUN[5:], *data, checkpoint, f"runs={tmp_path}"]) == 0
    )
    again = store.read(tmp_path / "eval-vglaw-refshapes")
    ours, theirs = (
        {n: m.value for r in one.results for n, m in r.metrics.items() if m.variant == "default"}
        for one in (again, entry)
    )
    assert ours == theirs


def test_bench_shows_the_price_of_adapted_weights(tmp_path: Path) -> None:
    options = ["method.vocab_size=64", "bench.steps=1", "bench.warmup=0", f"bench.json={tmp_path / 'bench.json'}"]
    assert main(["bench", *TINY, *options]) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["rows"][0]["kept for backward MB/sample"] > 0
    encoder, projection = found["tables"].values()
    plain, low_rank, explicit = (row["kept MB/sample"] for row in encoder)
    assert plain < low_rank < explicit
    assert [row["batch"] for row in projection] == [1, 1, 1, 2, 2, 2]
