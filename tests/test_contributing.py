"""The worked examples of CONTRIBUTING.md run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from PIL import Image

from vgbench.core.errors import UserError
from vgbench.data.verify import verify
from vgbench.types import Prediction

EXAMPLES = Path(__file__).parent / "examples"


@pytest.fixture(autouse=True)
def examples_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name in ("cat", "dog"):
        Image.new("RGB", (40, 30), "grey").save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "pets.csv").write_text(
        "image,width,height,x1,y1,x2,y2,text\n"
        "cat.png,40,30,10,5,30,25,the cat\n"
        "dog.png,40,30,10,5,30,25,the dog\n"
        "dog.png,40,30,0,0,40,30,everything\n"
    )
    return tmp_path


def test_the_example_dataset_loads_and_verifies(pets: Path) -> None:
    from pets import Pets

    data = Pets(pets, cache_dir=pets / "cache")
    table = data.load("test")
    assert [row.expression for row in table] == ["the cat", "the dog", "everything"]
    assert table.row(2).boxes.tolist() == [[0, 0, 40, 30]]
    assert verify(data, decode=True).ok
    (pets / "photos" / "dog.png").unlink()
    assert verify(data).missing_images == ["dog.png"]


def test_the_example_method_trains_through_the_runner(pets: Path) -> None:
    """Two of three boxes are equal, and L1 learns the median: the score after training is known beforehand."""
    from vgbench.records import store
    from vgbench.training import run

    overrides = [
        "dataset=refcocos",
        f"run_dir={pets / 'run'}",
        "recipe.lr=0.05",
        "recipe.epochs=60",
        "recipe.eval_every=60",
        "recipe.train_split=test",
        "recipe.val_split=test",
        "recipe.sampling=expression",
        "eval.splits=[test]",
        "trainer=cpu",
        "workers=0",
    ]
    with initialize_config_module("vgbench.configs", version_base="1.3"):
        config = compose("run", overrides, return_hydra_config=True)
    config.method = OmegaConf.create({"_target_": "centre.Centre"})
    config.dataset = OmegaConf.create(
        {"_target_": "pets.Pets", "data_root": str(pets), "cache_dir": str(pets / "cache")}
    )
    run.run(config)
    (result,) = store.read(pets / "run").results
    # the box of cat and dog is right twice; against the whole image its IoU is 400 / 1200
    assert result.metrics["prec@0.5"].value == pytest.approx(100 * 2 / 3)
    assert (pets / "run" / "predictions" / "test.parquet").exists()


def test_the_example_metric_scores_with_intervals(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from centre_hit import CentreHit
    from pets import Pets

    from vgbench.core import registry
    from vgbench.metrics.evaluator import evaluate_predictions
    from vgbench.predictions.table import Predictions

    monkeypatch.setattr(registry, "metrics", registry.Registry("vgbench.metrics", "metric"))
    registry.metrics.add("centre_hit", CentreHit)
    table = Pets(pets, cache_dir=pets / "cache").load("test")
    boxes = [[[12, 8, 28, 22]], [[28, 5, 32, 25]], [[100, 100, 110, 110]]]  # inside; on the right border; outside
    answers = [Prediction(torch.tensor(box, dtype=torch.float32), torch.ones(1)) for box in boxes]
    predictions = Predictions.from_list(table.column("key").tolist(), answers)
    report = evaluate_predictions(table, predictions, ["centre_hit"], ["centre_hit/strict"])
    assert report.values["centre_hit/hit"] == pytest.approx(100 * 2 / 3)
    assert report.values["centre_hit/strict/hit"] == pytest.approx(100 / 3)
    assert report.scores["centre_hit/hit"].low <= report.scores["centre_hit/hit"].value


def test_the_example_row_of_a_published_table(tmp_path: Path) -> None:
    from importlib.resources import files

    from vgbench.leaderboard.published import read_published

    text = (files("vgbench.leaderboards") / "published.csv").read_text()
    row = "Mine,base,ViT-B,single dataset,REC,refcoco,val,prec@0.5,81.5,My paper,arXiv 0000.00000,Table 2,paper,\n"
    (tmp_path / "published.csv").write_text(text + row)
    added = read_published(tmp_path / "published.csv")[-1]
    assert (added.method, added.dataset, added.value) == ("Mine", "refcoco", 81.5)
    (tmp_path / "published.csv").write_text(text + row.replace("My paper,arXiv 0000.00000", ","))
    with pytest.raises(UserError, match=r"published\.csv:\d+: a published number needs a source"):
        read_published(tmp_path / "published.csv")
