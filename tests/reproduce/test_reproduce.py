"""Papers' tables: where published values come from, which records count, verdicts, the plan, committed results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from vgbench.cli.main import main
from vgbench.config.compose import compose
from vgbench.config.identity import resolved
from vgbench.core.errors import MissingData, UserError
from vgbench.core.files import sha256_prefix
from vgbench.leaderboard.published import PublishedRow, read_published
from vgbench.records import store
from vgbench.records.record import Checkpoint, Code, Environment, Hardware, Metric, Record, Result
from vgbench.reproduce import plan as plans
from vgbench.reproduce.commit import commit
from vgbench.reproduce.existing import Misfit, Mismatch, misfit
from vgbench.reproduce.judge import judge
from vgbench.reproduce.plan import Cell, Job, Lack, Need, Plan, Step, available, parse_plan, read_plan
from vgbench.reproduce.report import page_text, plan_grid
from vgbench.reproduce.steps import Inputs, choose_action, execute, lacking_inputs, plan_steps
from vgbench.training import run
from vgbench.training.result import RunResult

PUBLISHED = [
    PublishedRow(
        *("Mine", "", "R50", "single dataset", "REC", name, split, "prec@0.5", value),
        *("a paper", "doi:1", "Table 1", "paper", ""),
    )
    for name, split, value in [("refcoco", "val", 80.0), ("refcoco", "testA", 82.0), ("refcocog_google", "val", 70.0)]
]
NODE = {
    "title": "Mine",
    "rows": [
        {
            "label": "Mine",
            "run": ["method=vglaw", "method.mode=rec"],
            "published": {"method": "Mine"},
            "jobs": {"refcoco": {"checkpoint": "mine-refcoco", "pretrained": "start.pth"}},
        }
    ],
}

SHIPPED = {
    "title": "Small",
    "rows": [
        {
            "label": "ALVG",
            "run": ["method=alvg"],
            "cells": {"grefshapes": {"splits": ["val"], "metrics": ["rec/prec@0.5"]}},
            "jobs": {"grefshapes": {"checkpoint": "shipped:refshapes"}},
        }
    ],
}


def the_plan() -> Plan:
    return parse_plan("mine", "main", NODE, "mine-main.yaml", PUBLISHED)


def measured(job: Job, *, value: float = 80.4, split: str = "val", **changes) -> Record:
    """A record as ``vgbench eval`` of the job would write it; ``changes`` are overrides of its configuration."""
    config = resolved(compose([*job.overrides, "method.tokenizer=elsewhere.txt"]))
    for key, item in changes.items():
        config["eval"][key] = item
    return Record(
        method="vglaw",
        config=config,
        config_hash="c",
        environment=Environment("3", "Linux", {}, Code(), Hardware("a CPU", 2)),
        results=[
            Result(
                "refcoco",
                split,
                "rec",
                "d",
                10834,
                1500,
                {"prec@0.5": Metric(value, 10834, value - 0.5, value + 0.5)},
                split_by="unc",
                leaked_images=0,
            )
        ],
        checkpoint=Checkpoint("mine-refcoco.pth", "0" * 16, "official"),
    )


def test_every_table_of_the_package_names_existing_published_rows() -> None:
    papers = available()
    assert set(papers) == {"alvg", "amc", "refshapes", "resvg", "simvg", "vglaw"}
    values = {row.value for row in read_published()}
    for paper, tables in papers.items():
        for table in tables:
            plan = read_plan(paper, table)
            assert plan.cells and plan.jobs, (paper, table)
            assert len({job.name for job in plan.jobs}) == len(plan.jobs)
            for cell in plan.cells:
                assert cell.published is None or cell.published.value in values
    # the published values themselves are nowhere but in published.csv
    for file in Path(str(files("vgbench.configs") / "paper")).glob("*.yaml"):
        assert not re.search(r"\b\d\d\.\d{1,2}\b", file.read_text()), file


def test_tables_of_the_five_papers_hold_their_published_rows() -> None:
    """Every published number of the five methods is a cell of some table, and no cell is made up."""
    papers = ("alvg", "simvg", "resvg", "vglaw", "amc")
    cells = [cell for paper in papers for table in available()[paper] for cell in read_plan(paper, table).cells]
    rows = [row for row in read_published() if row.method in ("ALVG", "SimVG", "ResVG", "VG-LAW", "AMC")]
    assert sorted(cell.published for cell in cells if cell.published) == sorted(rows)


def test_every_job_composes_and_names_a_known_speed() -> None:
    import yaml

    table = yaml.safe_load((files("vgbench.configs") / "speed.yaml").read_text())
    speeds = table["forward_gflops"]
    assert {row["method"] for row in table["measured"]} <= set(speeds)
    for job in {job for paper in ("simvg", "refshapes") for job in read_plan(paper).jobs}:
        config = compose(job.overrides)
        assert config.hydra.runtime.choices.method in speeds


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"published": {"method": "Nobody"}}, "published.csv has no row"),
        ({"published": {"methode": "Mine"}}, "unknown key 'methode'"),
        ({"value": 80.0}, "unknown key 'value'"),
    ],
)
def test_a_bad_table_is_refused(change: dict, message: str) -> None:
    node = {**NODE, "rows": [{**NODE["rows"][0], **change}]}
    with pytest.raises(UserError, match=message):
        parse_plan("mine", "main", node, "mine-main.yaml", PUBLISHED)


def test_one_run_fills_the_cells_of_several_splits() -> None:
    plan = the_plan()
    (job,) = plan.jobs
    assert plan.splits(job) == ["val", "testA"]
    assert [cell.job for cell in plan.cells] == [job, job, None]  # no run is known for the third


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(80.4, "reproduced"), (80.504, "reproduced"), (80.56, "differs"), (79.4, "differs"), (79.46, "reproduced")],
)
def test_reproduced_means_the_published_value_is_in_our_interval(value: float, verdict: str) -> None:
    """Interval ours ± 0.5, published 80.0 with one decimal: ± 0.05 more. 80.504 - 0.5 - 0.05 <= 80.0 <= ..."""
    plan = the_plan()
    (job,) = plan.jobs
    line = judge(plan, plan.cells[0], Step(job, "have", record=measured(job, value=value)))
    assert line.verdict == verdict and line.difference == pytest.approx(value - 80.0)


def test_what_makes_numbers_incomparable_is_no_verdict() -> None:
    plan = the_plan()
    (job,) = plan.jobs
    leaked = measured(job)
    leaked.results[0].leaked_images = 7
    line = judge(plan, plan.cells[0], Step(job, "have", record=leaked))
    assert line.verdict == "not comparable: leaked data: 7 images of the split were trained on"
    assert judge(plan, plan.cells[1], Step(job, "have", record=leaked)).verdict.startswith("not run")
    assert judge(plan, plan.cells[2], None).verdict == "not run: no run is known to make this cell"


def write_both_splits(job: Job, folder: Path, **changes) -> Path:
    record = measured(job, **changes)
    record.results += measured(job, split="testA").results
    store.write(record, folder)
    return folder


def test_existing_records_are_found_and_others_say_why_they_do_not_count(tmp_path: Path) -> None:
    plan = the_plan()
    (job,) = plan.jobs
    write_both_splits(job, tmp_path / "part", limit=100)
    (step,) = plan_steps(plan, [], tmp_path, None, None)
    assert step.action == "missing" and "part does not count: only a part was evaluated" in step.why
    write_both_splits(job, tmp_path / "whole")
    (step,) = plan_steps(plan, [], tmp_path, None, None)
    assert step.action == "have" and step.record is not None and step.record.name == "whole"
    # another model of the same method does not
    other = Job(job.name, ("method=vglaw", "dataset=refcoco"), job.checkpoint)
    against = misfit(step.record, other, compose(other.overrides), None)
    assert against is not None and against.text == 'method.mode: "rec" instead of "multitask"'
    # nor does another file of the authors
    (tmp_path / "mine-refcoco.pth").write_bytes(b"new")
    why = misfit(step.record, job, compose(job.overrides), tmp_path / "mine-refcoco.pth")
    assert why == Misfit(Mismatch.WEIGHTS, "evaluates another file (mine-refcoco.pth)")


def test_a_training_counts_only_with_the_recipe(tmp_path: Path) -> None:
    (job,) = the_plan().jobs
    record = measured(job)
    record.checkpoint = Checkpoint("model.safetensors", "0" * 16, "trained here")
    config = compose(job.overrides)
    assert misfit(record, job, config, None) is None
    record.config["recipe"]["seed"] = 5
    assert misfit(record, job, config, None) is None
    record.config["recipe"]["epochs"] = 2
    assert misfit(record, job, config, None) == Misfit(Mismatch.RECIPE, "recipe.epochs: 2 instead of 20")


def test_missing_inputs_are_named(tmp_path: Path) -> None:
    plan = the_plan()
    (step,) = plan_steps(plan, [], tmp_path, None, None)
    assert step.action == "missing"
    for word in ("checkpoints=FOLDER", "data_root", "method.tokenizer=FILE", "pretrained=FOLDER"):
        assert word in step.why
    assert step.estimate.training == pytest.approx(20 * 120_624 / 590 / 3600)  # epochs x expressions / measured rate
    assert "590 per s (measured on one NVIDIA H200, bf16-mixed, compiled" in step.estimate.basis[1]
    assert "assumed: 1 x 161.1 GFLOPs at 60 TFLOP/s" in step.estimate.basis[0]  # inference was not measured


def test_what_is_lacking_decides_not_how_it_is_worded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without annotations nothing is run, whatever the error says; a start file is then not looked for."""
    from vgbench.datasets.refcoco import RefCOCO

    (job,) = the_plan().jobs
    config = compose(job.overrides)
    monkeypatch.setattr(RefCOCO, "missing", lambda self, what="": MissingData("refcoco", "gone", "instances.json"))
    lacks = lacking_inputs(the_plan(), job, config, RefCOCO())
    assert lacks == [
        Lack(Need.DATA, "refcoco: gone: data_root=FOLDER is needed"),
        Lack(Need.METHOD_FILE, "method.tokenizer=FILE is not given"),
    ]
    inputs = Inputs((), None, tmp_path)
    step = choose_action(job, config, inputs, None, lacks)
    assert (step.action, step.why) == ("missing", "; ".join(lack.text for lack in lacks))
    (tmp_path / "start.pth").write_bytes(b"weights")
    (tmp_path / "best.pth").write_bytes(b"weights")
    step = choose_action(job, config, inputs, None, [])
    assert step.action == "train" and step.config.pretrained == str(tmp_path / "start.pth")
    step = choose_action(job, config, inputs, tmp_path / "best.pth", [])
    assert step.action == "evaluate" and step.config.checkpoint == str(tmp_path / "best.pth")


def test_dry_run_says_that_hours_are_estimates(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["reproduce", "paper=amc", f"runs={tmp_path}", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "estimates, not measurements" in out and "best_flickr" in out
    assert "measured on one NVIDIA H200" in out and "docs/benchmark.md" in out
    assert "amc-flickr30k-best_flickr: evaluation: no estimate" in out  # a blank cell says why
    assert "uvavision/AMC-grounding" in out  # where the files are


def test_on_a_terminal_the_plan_fits(
    terminal_lines: Callable[[Callable[[], object]], list[str]], tmp_path: Path
) -> None:
    lines = terminal_lines(lambda: main(["reproduce", "paper=amc", f"runs={tmp_path}", "--dry-run"]))
    assert max(map(len, lines)) <= 80 and not any("|" in line for line in lines)
    assert any(line.startswith("What is not there yet, on one GPU:") for line in lines)


def test_the_dry_run_names_the_start_weights(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["reproduce", "paper=alvg", f"runs={tmp_path}", "--dry-run"]) == 0
    assert "nor pretrained=FOLDER with 'beit3_base_indomain_patch16_224.pth' to train from" in capsys.readouterr().out


def test_runs_what_is_missing_judges_writes_json_and_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The evaluation itself is replaced: what is tested is that it is asked for, and what becomes of its record."""
    from vgbench.datasets.refcoco import RefCOCO

    asked = []

    def evaluate(config) -> RunResult:
        asked.append(config)
        (job,) = the_plan().jobs
        write_both_splits(job, Path(config.run_dir), value=80.4)
        return RunResult(Path(config.run_dir), None, 80.4)

    monkeypatch.setattr(run, "evaluate", evaluate)
    monkeypatch.setattr(RefCOCO, "sources", lambda self, split: [])
    monkeypatch.setattr(plans, "read_plan", lambda paper, table: the_plan())
    (tmp_path / "files" / "mine-refcoco").mkdir(parents=True)
    file = tmp_path / "files" / "mine-refcoco" / "det_best.pth"
    file.write_bytes(b"weights")
    places = [f"runs={tmp_path / 'runs'}", f"checkpoints={tmp_path / 'files'}", "method.tokenizer=v.txt"]
    outputs = ["--commit-to", str(tmp_path / "kept"), "--json", str(tmp_path / "t.json"), "--strict"]
    code = main(["reproduce", "paper=mine", *places, *outputs])
    assert code == 1  # testA: 80.4 against 82.0
    (config,) = asked
    assert config.checkpoint == str(file) and list(config.eval.splits) == ["val", "testA"]
    cells = json.loads((tmp_path / "t.json").read_text())["cells"]
    assert [cell["verdict"] for cell in cells] == [
        "reproduced",
        "differs",
        "not run: no run is known to make this cell",
    ]
    assert [cell["reference"] for cell in cells] == [80.0, 82.0, 70.0]
    assert "3 cells: 1 reproduced, 1 differ" in capsys.readouterr().out
    (committed,) = store.find([tmp_path / "kept"])
    assert committed.folder == tmp_path / "kept" / "mine" / "vglaw-refcoco-mine-refcoco"
    assert str(tmp_path) not in (committed.folder / "record.json").read_text()


def test_the_embedded_table_is_judged_by_the_committed_result(tmp_path: Path) -> None:
    job = Job("alvg-refshapes-shipped", ("method=alvg", "dataset=refshapes"), "shipped")
    cell = Cell("ALVG", job, "refshapes", "val", "rec", "prec@0.5", "default", "main")
    plan = Plan("refshapes", "main", "small", [cell], tolerance=0.2)

    def run(value: float, sha: str = "a" * 16, data: str = "d") -> Record:
        record = measured(job, value=value)
        record.results[0].dataset, record.results[0].embedded, record.results[0].data_hash = "refshapes", True, data
        record.checkpoint = Checkpoint("refshapes.safetensors", sha, "shipped")
        record.folder = tmp_path / "fresh"
        return record

    store.write(run(75.0), tmp_path / job.name)
    verdicts = [
        judge(plan, cell, Step(job, "have", record=fresh), tmp_path).verdict
        for fresh in (run(75.15), run(75.25), run(75.0, sha="b" * 16), run(75.0, data="other"))
    ]
    assert verdicts == [
        "reproduced",
        "differs",
        "measured; the committed result is of other weights",
        "measured; the committed result is on other data",
    ]


def test_shipped_weights_are_evaluated_by_name_and_their_record_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record says "shipped" whatever the weights are called, and neither it nor its folder has a path in it."""
    from vgbench.training import weights

    asked: list[str] = []

    def evaluate(config) -> RunResult:
        asked.append(config.checkpoint)
        path = weights.resolve(config.checkpoint, "alvg", "grefshapes")
        record = measured(plan.jobs[0], value=75.0)
        record.config = resolved(config)
        record.results[0].dataset, record.results[0].embedded = "grefshapes", True
        record.checkpoint = Checkpoint(path.name, sha256_prefix(path), "shipped")
        store.write(record, Path(config.run_dir))
        return RunResult(Path(config.run_dir), None, 75.0)

    monkeypatch.setattr(run, "evaluate", evaluate)
    (job,) = parse_plan("mine", "main", SHIPPED, "mine-main.yaml", []).jobs
    assert job.shipped and job.name == "alvg-grefshapes-shipped-refshapes"
    cell = Cell("ALVG", job, "grefshapes", "val", "rec", "prec@0.5", "default", "main")
    plan = Plan("mine", "main", "small", [cell])
    (step,) = plan_steps(plan, [], tmp_path, checkpoints=None, pretrained=None, check_data=False)
    assert step.action == "evaluate"
    command = "vgbench eval method=alvg dataset=grefshapes checkpoint=shipped:refshapes"
    assert command in page_text(plan, plan_grid(plan, [step]))
    step = execute(plan, step, tmp_path)
    assert asked == ["shipped:refshapes"]
    (again,) = plan_steps(plan, [], tmp_path, checkpoints=None, pretrained=None, check_data=False)
    assert again.action == "have"
    assert "shipped:refshapes" in commit(step, tmp_path / "kept").read_text()


def test_weights_that_are_not_shipped_are_named(tmp_path: Path) -> None:
    job = Job("alvg-refshapes-shipped-none", ("method=alvg", "dataset=refshapes"), "shipped:none")
    cell = Cell("ALVG", job, "refshapes", "val", "rec", "prec@0.5", "default", "main")
    plan = Plan("mine", "main", "small", [cell])
    (step,) = plan_steps(plan, [], tmp_path, checkpoints=None, pretrained=None, check_data=False)
    assert step.action == "missing" and "no shipped weights of alvg for dataset 'none'" in step.why


def test_unknown_tables_and_folders_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, word in [
        ([], "paper=simvg"),
        (["paper=nobody"], "there is no such table"),
        (["paper=amc", "checkpoints=/nowhere"], "checkpoints=/nowhere: no such folder"),
        (["paper=amc", "chekpoints=/nowhere"], "chekpoints: not a key of reproduce; did you mean checkpoints=?"),
        (["paper=amc", "run_dir=here"], "run_dir: every run of a table has a folder of its own; give runs=FOLDER"),
        (["paper=amc", "checkpoint=best.pth"], "checkpoint: not a key of reproduce; did you mean checkpoints=?"),
        (["paper=amc", f"runs={__file__}"], "a file; give the folder of run folders"),
    ]:
        assert main(["reproduce", *arguments]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert word in line


def test_a_size_is_part_of_a_record() -> None:
    from types import SimpleNamespace

    from vgbench.methods.simvg import SimVG
    from vgbench.training.setup import size_name

    method = SimVG.__new__(SimVG)
    for choice, size in (("simvg_large", "large"), ("simvg", "")):
        config = SimpleNamespace(hydra=SimpleNamespace(runtime=SimpleNamespace(choices={"method": choice})))
        assert size_name(config, method) == size  # type: ignore[arg-type]


@pytest.mark.slow
def test_committed_small_scale_results_are_what_a_fresh_evaluation_gives(tmp_path: Path) -> None:
    """One evaluation of every shipped model on the CPU, against leaderboards/results."""
    committed = Path(str(files("vgbench.leaderboards") / "results" / "refshapes"))
    assert committed.is_dir()
    assert main(["reproduce", "paper=refshapes", f"runs={tmp_path}", "--json", str(tmp_path / "table.json")]) == 0
    cells = json.loads((tmp_path / "table.json").read_text())["cells"]
    assert {folder.name for folder in committed.iterdir()} == {
        cell["run"] for cell in cells if cell["value"] is not None
    }
    wrong = [cell for cell in cells if cell["value"] is not None and cell["verdict"] != "reproduced"]
    assert not wrong
