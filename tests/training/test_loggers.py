"""Loggers: what is chosen is written to, what is no logger is said, a tracker's run goes on and holds the results."""

import json
from pathlib import Path

import pytest

from vgbench.cli import main

TINY = [
    *("method=alvg", "dataset=refshapes", "weights=null", "+dataset.images={train:4,val:2}"),
    *(
        "method.encoder_layers=1",
        "method.encoder_width=16",
        "method.encoder_ffn=32",
        "method.width=16",
        "method.ffn=16",
    ),
    *(
        "method.query_ffn=16",
        "method.mask_channels=8",
        "method.image_size=64",
        "recipe.batch_size=4",
        "recipe.epochs=2",
    ),
    *("eval.splits=[val]", "eval.examples=0", "eval.bootstrap=0", "eval.control=null"),
    *("logger.every_n_steps=1", "trainer=cpu", "workers=0"),
]


def arguments(folder: Path, *more: str) -> list[str]:
    return [
        "run",
        *TINY,
        f"dataset.data_root={folder}",
        f"dataset.cache_dir={folder}",
        f"runs={folder / 'runs'}",
        *more,
    ]


def metrics_of(folder: Path) -> dict[str, float]:
    """Values in the record, by split, task and name."""
    record = json.loads((folder / "record.json").read_text())
    return {
        f"{result['split']}/{result['task']}/{name}": metric["value"]
        for result in record["results"]
        for name, metric in result["metrics"].items()
    }


def test_mlflow_holds_configuration_curves_and_results_and_a_resumed_run_joins(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from mlflow import MlflowClient

    store = f"sqlite:///{tmp_path / 'curves.db'}"
    chosen = ["logger=[csv,mlflow]", f"logger.mlflow.tracking_uri={store}"]
    assert main(arguments(tmp_path, *chosen)) == 0
    assert main(arguments(tmp_path, *chosen, "resume=true")) == 0
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("vgbench")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "alvg-refshapes"
    assert run.data.params["recipe/batch_size"] == "4"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/total")] == sorted(
        {point.step for point in client.get_metric_history(run.info.run_id, "train/total")}
    )
    for name, value in metrics_of(tmp_path / "runs" / "alvg-refshapes").items():
        if value is not None:
            assert run.data.metrics[name.replace("@", "_")] == pytest.approx(value)
    assert (tmp_path / "runs" / "alvg-refshapes" / "logs" / "metrics.csv").exists()


def test_wandb_offline_ends_its_run(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    assert main(arguments(tmp_path, "logger=wandb", "logger.wandb.offline=true")) == 0
    assert wandb.run is None  # the next run of a sweep is another one
    logs = tmp_path / "runs" / "alvg-refshapes" / "logs"
    identity = json.loads((logs / "trackers.json").read_text())["wandb"]
    assert {path.name.rpartition("-")[2] for path in (logs / "wandb").glob("offline-run-*")} == {identity}
    assert not (logs / "metrics.csv").exists()


def test_what_is_no_logger_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for override, words in {
        "+logger.wandb=true": "logger.wandb=True: no logger; choose by logger=NAME or logger=[csv,wandb]",
        "logger=wandbx": "logger=wandbx: there is no such logger; did you mean wandb?",
        "logger=[csv,wandbx]": "logger=wandbx: there is no such logger; did you mean wandb?",
    }.items():
        assert main(arguments(tmp_path, override)) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_logger_without_its_package_names_the_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(arguments(tmp_path, "logger=tensorboard")) == 2
    assert 'pip install "vgbench[tensorboard]"' in capsys.readouterr().err


def test_a_log_that_lost_its_lines_costs_the_curves_and_not_the_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path)) == 0
    folder = tmp_path / "runs" / "alvg-refshapes"
    (folder / "logs" / "metrics.csv").write_text("")
    (folder / "record.json").unlink()
    capsys.readouterr()
    assert main(arguments(tmp_path, "resume=true")) == 0
    assert (folder / "record.json").is_file() and "no curves.png" in capsys.readouterr().out
