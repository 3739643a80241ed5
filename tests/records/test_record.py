"""Records: written whole or not at all, read back equal, refused with the file and the key where they are wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from vgbench.config.identity import config_hash
from vgbench.core.errors import UserError
from vgbench.records import store
from vgbench.records.environment import environment
from vgbench.records.record import (
    Checkpoint,
    Code,
    Cost,
    Environment,
    Hardware,
    Metric,
    Record,
    Result,
    Training,
    TrainingData,
)
from vgbench.records.schema import json_schema, to_dict

REPOSITORY = Path(__file__).parents[2]
SCHEMA = Draft202012Validator(json.loads((REPOSITORY / "leaderboards/record.schema.json").read_text()))


def make() -> Record:
    config = {"method": {"name": "synthetic"}, "seed": 3}
    return Record(
        method="synthetic",
        variant="tiny",
        config=config,
        config_hash=config_hash(config),
        seed=3,
        environment=Environment("3.11.0", "Linux", {"torch": "2.6"}, Code("abc", True), Hardware("a CPU", 2)),
        checkpoint=Checkpoint("last.ckpt", "0123456789abcdef", "trained here"),
        training=Training([TrainingData("refcoco", "train", split_by="unc", excluded_images=2)], epochs=3, steps=30),
        cost=Cost(wall_s=12.5, parameters=1000),
        results=[
            Result(
                dataset="refcoco",
                split_by="unc",
                split="val",
                task="rec",
                data_hash="d" * 64,
                expressions=10834,
                images=1500,
                metrics={"prec@0.5": Metric(50.25, 10834, 49.0, 51.5), "n_acc": Metric(None, 0)},
                controls={"shuffled text": {"prec@0.5": Metric(20.0, 10834)}},
                slices={"prec@0.5": {"expression length": {"1-3 words": Metric(60.0, 5000)}}},
            )
        ],
        notes=["größer – 大"],
    )


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written = make()
    file = store.write(written, tmp_path / "run")
    assert store.read(tmp_path / "run") == written == store.read(file)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["record.json"]
    assert json.loads(file.read_text())["schema"] == 1
    assert written.created.endswith("+00:00")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.update(schema=2), "schema 2 is newer than this vgbench reads (1); upgrade"),
        (lambda value: value.pop("schema"), "not a record"),
        (lambda value: value.pop("method"), "method: missing key"),
        (lambda value: value.update(metod="x"), "metod: unknown key"),
        (lambda value: value.update(provenance="guessed"), "provenance: expected one of measured, external"),
        (lambda value: value["results"][0].pop("data_hash"), "results.0.data_hash: missing key"),
        (lambda value: value["results"][0].update(expressions=1.5), "results.0.expressions: expected a whole number"),
        (lambda value: value["results"][0].update(embedded=1), "results.0.embedded: expected true or false"),
        (
            lambda value: value["results"][0]["metrics"]["prec@0.5"].update(value="50"),
            'results.0.metrics.prec@0.5.value: expected a finite number, found str "50"',
        ),
        (lambda value: value["environment"].update(packages=[]), "environment.packages: expected an object"),
        (lambda value: value.update(results={}), "results: expected a list"),
        (lambda value: value.update(cost=None), "cost: expected an object"),
    ],
)
def test_a_bad_record_is_refused_by_file_and_key(tmp_path: Path, change, message: str) -> None:
    file = store.write(make(), tmp_path)
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))
    with pytest.raises(UserError) as caught:
        store.read(tmp_path)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not SCHEMA.is_valid(value)


def test_the_json_schema_takes_the_records_of_this_repository() -> None:
    SCHEMA.check_schema(SCHEMA.schema)
    assert SCHEMA.schema == json_schema(), "write leaderboards/record.schema.json anew"
    committed = sorted((REPOSITORY / "leaderboards/results").glob("**/record.json"))
    assert committed
    for value in (to_dict(make()), *(json.loads(file.read_text()) for file in committed)):
        SCHEMA.validate(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_what_cannot_be_read_back_is_not_written(tmp_path: Path, value: float) -> None:
    record = make()
    record.results[0].metrics["prec@0.5"].value = value
    with pytest.raises(UserError, match=r"results\.0\.metrics\.prec@0\.5\.value: expected a finite number"):
        store.write(record, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ['{"schema": 1,', "[" * 100_000], ids=["torn", "deep"])
def test_a_file_that_is_no_json_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(UserError, match=r"record\.json: not readable as JSON"):
        store.read(tmp_path)


def test_an_infinite_setting_does_not_cost_the_record(tmp_path: Path) -> None:
    record = make()
    record.config = {"recipe": {"clip": float("inf"), "steps": [1, float("nan")]}}
    store.write(record, tmp_path)
    assert store.read(tmp_path).config == {"recipe": {"clip": "inf", "steps": [1, "nan"]}}


def test_find_searches_folders_of_runs_and_no_further(tmp_path: Path) -> None:
    for name in ("b/run2", "a/deep/run1"):
        store.write(make(), tmp_path / name)
    store.write(make(), tmp_path / "a/deep/run1/inside")  # below a run folder: another run's concern
    found = store.find([tmp_path, tmp_path / "b"])
    assert [record.name for record in found] == ["run1", "run2"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no record\.json"):
        store.find([tmp_path / "empty"])
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        store.find([tmp_path / "nowhere"])


def test_config_hash_ignores_order_seed_and_place_only() -> None:
    config = {"a": 1, "recipe": {"lr": 2, "seed": 3}, "dataset": {"name": "x", "data_root": "/here"}, "seed": 0}
    other = {"dataset": {"data_root": "/there", "name": "x"}, "recipe": {"seed": 4, "lr": 2}, "a": 1, "run_dir": "r"}
    assert config_hash(config) == config_hash(other)
    assert config_hash(config) != config_hash({**config, "recipe": {"lr": 1, "seed": 3}})
    fast = {"compile": "auto", "checkpointing": True}
    assert config_hash({**config, **fast}) == config_hash({**config, "compile": False})
    assert config_hash(config) != config_hash({**config, "method": {"seed": 3}})


def test_environment_names_this_interpreter_and_this_commit() -> None:
    found = environment()
    assert sys.version.startswith(found.python)
    assert found.packages["numpy"] and found.hardware.cores >= 1
    head = subprocess.run(["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode == 0:
        assert found.code.commit == head.stdout.strip()


def test_reading_records_loads_neither_torch_nor_pandas() -> None:
    modules = "sys, vgbench.records.store, vgbench.leaderboard.compare"
    code = f"import {modules}; print({{'torch', 'pandas', 'numpy'}} & {{*sys.modules}})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert out.stdout.strip() == "set()"


def test_every_key_of_the_schema_is_documented() -> None:
    text = (REPOSITORY / "leaderboards/README.md").read_text()
    missing = {key for key in _keys(to_dict(make())) if f"`{key}`" not in text}
    assert not missing


def _keys(value: object) -> set[str]:
    """Names of schema fields in a stored record; names chosen by the user (metrics, packages) are left out."""
    free = {"config", "packages", "metrics", "controls", "slices", "final_losses"}
    if isinstance(value, list):
        return {key for item in value for key in _keys(item)}
    if not isinstance(value, dict):
        return set()
    inner = {key for name, item in value.items() if name not in free for key in _keys(item)}
    return {*value, *inner}


def test_links_count_once_and_are_named_as_they_were_given(tmp_path: Path) -> None:
    store.write(make(), tmp_path / "run")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    (record,) = store.find([tmp_path / "run", tmp_path / "link"])
    assert record.folder == (tmp_path / "run").resolve()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "record.json").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"odd/record\.json: not readable as JSON"):
        store.find([tmp_path / "odd"])
    (tmp_path / "odd" / "record.json").unlink()
    (tmp_path / "odd" / "record.json").symlink_to("record.json")  # a circle
    with pytest.raises(UserError, match=r"odd/record\.json: not readable as JSON"):
        store.find([tmp_path / "odd"])
