"""Leaderboards over synthetic records: what may share a table, a column or a row, and how a number is printed."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vgbench.cli import compare as command
from vgbench.cli.main import main
from vgbench.core import registry
from vgbench.core.errors import UserError
from vgbench.leaderboard.columns import dataset_order
from vgbench.leaderboard.compare import compare
from vgbench.leaderboard.pairs import published_pairs
from vgbench.leaderboard.published import PublishedRow, published_metric, published_names, read_published
from vgbench.leaderboard.tables import tables
from vgbench.records import store
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


def result(value: float | None, **changes) -> Result:
    half = changes.pop("half", 0.61)
    low, high = (None, None) if value is None else (value - half, value + half)
    fields = {
        "dataset": "refcoco",
        "split_by": "unc",
        "split": "val",
        "task": "rec",
        "data_hash": "aaaa1111",
        "expressions": 10834,
        "images": 1500,
        "leaked_images": 0,
        "metrics": {"prec@0.5": Metric(value, 10834, low, high)},
    }
    return Result(**{**fields, **changes})


def run(method: str, *results: Result, folder: str = "", seed: int | None = 0, **changes) -> Record:
    record = Record(
        method=method,
        config={},
        config_hash=changes.pop("config_hash", f"hash-{method}"),
        environment=Environment("3", "Linux", {}, Code("c0ffee1234567"), Hardware("a CPU", 2)),
        results=list(results),
        seed=seed,
        **changes,
    )
    record.folder = Path("runs") / (folder or method)
    return record


def grid(text: str) -> list[list[str]]:
    """Cells of the Markdown tables in a text, rule lines left out."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not re.match(r"\|[:-]+\|", line)]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_markdown_shows_value_interval_best_costs_and_provenance() -> None:
    a = run("alvg", result(86.54), label="ALVG", variant="base", cost=Cost(parameters=180_400_000))
    b = run("amc", result(80.004, half=0.5), label="AMC", checkpoint=Checkpoint("x.pth", "f" * 16, "official"))
    header, first, second = grid(compare([b, a]))
    assert header == ["Method", "refcoco unc val Prec@0.5", "Params (M)", "Provenance"]
    assert first == ["ALVG base", "**86.54** ±0.61", "180.4", "measured"]
    assert second == ["AMC", "80.00 ±0.50", "", "measured, official"]


def test_embedded_and_real_data_never_share_a_table() -> None:
    mixed = run("alvg", result(50.0), result(90.0, dataset="refshapes", split_by=None, embedded=True))
    leaderboards = tables([mixed], all_metrics=True)
    assert [table.title for table in leaderboards] == ["REC on real data", "REC on embedded (rendered) data"]
    assert all(len({column.embedded for column in table.columns}) == 1 for table in leaderboards)
    # not even if a data set of the same name claims to be both
    disguised = run("alvg", result(50.0), result(90.0, embedded=True))
    assert len(tables([disguised])) == 2


def test_other_data_or_another_metric_variant_is_another_column() -> None:
    records = [
        run("a", result(50.0)),
        run("b", result(60.0, data_hash="bbbb2222", expressions=100)),
        run("c", result(70.0, metrics={"prec@0.5": Metric(70.0, 10834, variant="giou")})),
    ]
    (table,) = tables(records)
    headings = [f"{table.where(column)} {column.title}" for column in table.columns]
    assert headings == [
        "refcoco unc val #1 Prec@0.5",
        "refcoco unc val #1 Prec@0.5 (giou)",
        "refcoco unc val #2 Prec@0.5",
    ]
    assert all(len(row.cells) == 1 for row in table.rows)
    assert len([note for note in table.notes if "not the same data" in note]) == 2
    assert "**" not in compare(records)  # nothing to be the best of


def test_runs_on_several_data_sets_fill_one_row_and_repetitions_do_not() -> None:
    records = [
        run("alvg", result(50.0), folder="r1"),
        run("alvg", result(40.0, dataset="refcoco+"), folder="r2", config_hash="other"),
        run("alvg", result(45.0), folder="r3", config_hash="third"),
    ]
    (table,) = tables(records)
    assert [(row.label, len(row.cells)) for row in table.rows] == [("alvg (r1)", 2), ("alvg (r3)", 1)]


def test_labels_are_told_apart_only_where_they_meet() -> None:
    box, mask = result(50.0), result(60.0, task="res", metrics={"mIoU": Metric(60.0, 10834)})
    rec, res = tables([run("a", box, folder="r1"), run("a", mask, folder="r2", seed=7)])
    assert [row.label for table in (rec, res) for row in table.rows] == ["a", "a"]
    copies = [run("a", box, folder="x/same"), run("a", box, folder="y/same"), run("a", box, folder="z")]
    (table,) = tables(copies)
    assert [row.label for row in table.rows] == ["a (x/same)", "a (y/same)", "a (z)"]


def test_a_folder_called_like_a_seed_is_still_a_folder() -> None:
    """In one table it meets a run of its own seed, in the other one of another seed: the folder has to tell."""
    box, mask = result(50.0), result(60.0, task="res", metrics={"mIoU": Metric(60.0, 10834)})
    records = [run("a", box, mask, folder="seed_x"), run("a", box, folder="y"), run("a", mask, folder="z", seed=1)]
    rec, res = tables(records)
    assert [row.label for row in rec.rows] == ["a (seed_x)", "a (y)"]
    assert [row.label for row in res.rows] == ["a (seed_x)", "a (seed 1)"]


def test_a_second_definition_of_a_metric_is_left_out_and_said_so() -> None:
    both = result(50.0, metrics={"prec@0.5": Metric(50.0, 10834), "Prec@0.5": Metric(49.0, 10834, variant="giou")})
    (table,) = tables([run("a", both)])
    assert [column.variant for column in table.columns] == ["default"]
    assert table.notes == ["Prec@0.5 (giou): left out, --all-metrics shows them"]
    (table,) = tables([run("a", both)], all_metrics=True)
    assert [column.variant for column in table.columns] == ["default", "giou"] and table.notes == []


def test_rates_have_three_digits_and_no_exponent() -> None:
    header, line = grid(compare([run("a", result(50.0), cost=Cost(inference_samples_per_s=1012.3))]))
    assert line[header.index("Infer/s")] == "1010"


def test_two_models_of_one_method_never_share_a_row() -> None:
    control = run("amc", result(40.0, dataset="refcoco+"), label="AMC without it", config_hash="other")
    (table,) = tables([run("amc", result(50.0), label="AMC"), control])
    assert sorted(row.label for row in table.rows) == ["AMC", "AMC without it"]


def test_prediction_sets_are_rows_and_tasks_are_tables() -> None:
    simvg = run(
        "simvg",
        result(80.0, prediction_set="decoder"),
        result(82.0, prediction_set="token"),
        result(60.0, task="res", metrics={"mIoU": Metric(60.0, 10834), "prec@0.7": Metric(55.0, 10834)}),
        label="SimVG",
    )
    rec, res = tables([simvg])
    assert [row.label for row in rec.rows] == ["SimVG / token", "SimVG / decoder"]
    assert [f"{res.where(column)} {column.title}" for column in res.columns] == ["refcoco unc val mIoU"]
    assert len(tables([simvg], all_metrics=True)[1].columns) == 2


def test_seeds_of_one_configuration_become_mean_and_deviation() -> None:
    values = {0: 80.0, 1: 82.0, 2: 84.0}
    records = [run("alvg", result(value), seed=seed, folder=f"s{seed}") for seed, value in values.items()]
    other = run("alvg", result(10.0), seed=3, folder="s3", config_hash="not the same")
    assert [cells[0] for cells in grid(compare(records))[1:]] == ["alvg (seed 2)", "alvg (seed 1)", "alvg (seed 0)"]
    lines = grid(compare([*records, other], seeds=True))
    assert lines[1][:2] == ["alvg (s0)", "**82.00** ± 2.00 (3 seeds)"]  # stdev of 80, 82, 84 is 2
    assert lines[2][:2] == ["alvg (s3)", "10.00 ±0.61"]


def test_undefined_metrics_and_controls_are_shown_but_never_the_best() -> None:
    spoilt = {"shuffled text": {"prec@0.5": Metric(99.0, 10834)}}
    a, b = run("a", result(None)), run("b", result(50.0, controls=spoilt))
    text = compare([a, b])
    header, *lines = grid(text)
    assert header[1:3] == ["refcoco unc val Prec@0.5", "refcoco unc val Prec@0.5 [shuffled text]"]
    assert [line[:3] for line in lines] == [["b", "50.00 ±0.61", "99.00"], ["a", "n/d", ""]]
    assert "a control" in text


def test_csv_and_json_hold_every_number_once() -> None:
    records = [run("a", result(50.0)), run("b", result(60.0, dataset="refshapes", embedded=True))]
    lines = list(csv.DictReader(io.StringIO(compare(records, "csv"))))
    assert [(line["method"], line["value"], line["embedded"]) for line in lines] == [
        ("a", "50.0", "False"),
        ("b", "60.0", "True"),
    ]
    parsed = json.loads(compare(records, "json"))
    assert [row["metric_variant"] for row in parsed["rows"]] == ["default", "default"]
    assert parsed["rows"][0]["low"] == pytest.approx(49.39)


def test_latex_escapes_and_groups_columns() -> None:
    metrics = {"n_acc": Metric(50.0, 10), "pr@f1": Metric(40.0, 10, 39.0, 41.0)}
    record = run("a_b", result(0.0, task="grec", dataset="grefcoco", metrics=metrics), label="A_B & C")
    text = compare([record, run("d", result(0.0, task="grec", dataset="grefcoco", metrics=metrics))], "latex")
    assert r"\multicolumn{2}{c}{grefcoco unc val}" in text
    assert r"A\_B \& C & \textbf{40.00}{\scriptsize$\pm$1.00} & \textbf{50.00}" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1])
    assert all(line.count(" & ") + 1 == columns for line in body if "multicolumn" not in line and "A\\_B" not in line)


def published(**changes) -> PublishedRow:
    fields = {
        "method": "VG-LAW",
        "variant": "",
        "backbone": "ViTDet",
        "training_data": "single dataset",
        "task": "REC",
        "dataset": "refcoco",
        "split": "val",
        "metric": "prec@0.5",
        "value": 86.06,
        "source_title": "a paper",
        "source_id": "doi:1",
        "source_place": "Table 1",
        "source_kind": "paper",
        "quoted_by": "",
    }
    return PublishedRow(**{**fields, **changes})


TRAINED = Training([TrainingData("refcoco", "train")])


def test_a_published_number_is_found_and_subtracted() -> None:
    record = run("vglaw", result(85.0), label="VG-LAW", training=TRAINED)
    (pair,) = published_pairs([record], [published(), published(split="testA"), published(method="VG-LAW2")])
    assert (pair.difference, pair.comparable, pair.notes) == (pytest.approx(-1.06), True, ())
    text = compare([record], published=[published()])
    assert grid(text)[-1] == [
        "VG-LAW",
        "refcoco unc val Prec@0.5",
        "85.00 ±0.61",
        "86.06",
        "VG-LAW, ViTDet",
        "-1.06",
        "",
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "note"),
    [
        (result(85.0), published(metric="prec@0.5_giou"), "metric variant: measured default, published giou"),
        (
            result(85.0, dataset="refcocog", split_by="umd"),
            published(dataset="refcocog_google"),
            "split author: measured umd, published refcocog_google",
        ),
        (result(85.0, leaked_images=7), published(), "leaked data: 7 images of the split were trained on"),
        (result(85.0, resolution="480x480"), published(), "resolution: scored at 480x480"),
        (result(85.0, expected_expressions=10900), published(), "incomplete: 10834 of 10900 expressions scored"),
    ],
)
def test_what_is_not_comparable_is_marked_with_the_reason(ours: Result, theirs: PublishedRow, note: str) -> None:
    record = run("vglaw", ours, training=TRAINED)
    (pair,) = published_pairs([record], [theirs])
    assert (pair.comparable, pair.notes) == (False, (note,))
    text = compare([record], published=[theirs])
    assert grid(text)[-1][-2:] == ["(-1.06)", "[1]"]
    assert f"[1]: {note}" in text
    assert note in compare([record], "csv", published=[theirs])


def test_another_model_size_is_not_the_same_experiment() -> None:
    rows = [published(backbone=f"BEiT-3-{size}") for size in "BL"] + [published(backbone="ResNet-50")]
    pairs = published_pairs([run("vglaw", result(85.0), variant="base", training=TRAINED)], rows)
    assert [pair.comparable for pair in pairs] == [True, False, True]
    assert pairs[1].notes == ("model size: measured base, published L",)


def test_notes_that_do_not_forbid_the_comparison() -> None:
    record = run("vglaw", result(85.0, leaked_images=None), training=Training([TrainingData("refcoco+", "train")]))
    row = published(training_data="RefC mixed", quoted_by="OneRef")
    (pair,) = published_pairs([record], [row])
    assert pair.comparable
    assert pair.notes == (
        "not known whether images of the split were trained on",
        "training data: measured refcoco+, published 'RefC mixed'",
        "published number quoted by OneRef",
    )


def test_referit_has_one_usual_split_and_two_names() -> None:
    ours = result(85.0, dataset="referit", split_by="berkeley", split="test")
    rows = [published(dataset=name, split="test") for name in ("referit", "refclef")]
    pairs = published_pairs([run("vglaw", ours, training=TRAINED)], rows)
    assert [pair.breaking for pair in pairs] == [(), ()]
    other = result(85.0, dataset="referit", split_by="unc", split="test")
    (pair, _) = published_pairs([run("vglaw", other, training=TRAINED)], rows)
    assert pair.notes == ("split author: measured unc, published referit",)


def test_a_data_set_of_a_stranger_has_its_own_name_and_author() -> None:
    assert published_names("referit", "berkeley") == ("referit", "refclef")
    assert published_names("refcocog", "umd") == ("refcocog_umd",)
    assert published_names("somebody's", None) == ("somebody's",)
    assert published_names("somebody's", "me") == ("somebody's_me",)


def test_the_order_of_tables_names_registered_data_sets() -> None:
    assert len(set(dataset_order())) == len(dataset_order()) > 0
    assert set(dataset_order()) <= set(registry.datasets)


def test_committed_results_join_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(run("alvg", result(70.0), label="ALVG"), tmp_path / "runs" / "mine")
    store.write(run("amc", result(60.0), label="AMC"), tmp_path / "package" / "results" / "paper" / "theirs")
    monkeypatch.setattr(command, "files", lambda package: tmp_path / "package")
    for committed, rows in ((False, ["ALVG"]), (True, ["ALVG", "AMC"])):
        out = tmp_path / "table.md"
        main(["compare", str(tmp_path / "runs"), "--output", str(out), *(["--committed"] if committed else [])])
        assert [cells[0] for cells in grid(out.read_text())[1:]] == rows


def test_a_branch_meets_its_own_published_row_and_embedded_data_none() -> None:
    rows = [published(method="SimVG", variant=f"ViT-L/32, {name} branch") for name in ("decoder", "token")]
    simvg = run("simvg", result(85.0, prediction_set="decoder"), result(86.0, prediction_set="token"))
    pairs = published_pairs([simvg], rows)
    assert [(pair.row, pair.published.variant) for pair in pairs] == [
        ("simvg / decoder", "ViT-L/32, decoder branch"),
        ("simvg / token", "ViT-L/32, token branch"),
    ]
    assert not published_pairs([run("simvg", result(85.0, embedded=True))], rows)


def test_published_rows_join_only_columns_of_their_own_definition() -> None:
    rows = [published(), published(method="MDETR", metric="prec@0.5_giou"), published(method="TransVG", value=80.5)]
    text = compare([run("vglaw", result(85.0))], published=rows, others=True)
    first = [cells[0] for cells in grid(text.partition("## Published and")[0])]
    assert first == ["Method", "vglaw", "VG-LAW, ViTDet", "TransVG, ViTDet"]
    assert "published, doi:1" in text


def test_the_shipped_published_numbers_all_have_a_source() -> None:
    rows = read_published()
    assert len(rows) == 1854
    assert all(row.source_id and row.source_place for row in rows)
    variants = {"giou", "topk", "default", "merged", "first_box", "as listed", "acc"}
    assert {published_metric(row)[1] for row in rows} == variants


def test_a_published_number_without_source_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    header = ",".join(PublishedRow._fields)
    file.write_text(f"{header}\nX,,,,REC,refcoco,val,prec@0.5,80,,,,,\n")
    with pytest.raises(UserError, match=r"p\.csv:2: a published number needs"):
        read_published(file)
    file.write_text(f"{header}\nX,,,,REC,refcoco,val,prec@0.5,eighty,t,i,,,\n")
    with pytest.raises(UserError, match=r"p\.csv:2: value 'eighty' is no number"):
        read_published(file)


def test_the_command_prints_or_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.write(run("alvg", result(50.0)), tmp_path / "runs" / "one")
    assert main(["compare", str(tmp_path / "runs")]) == 0
    assert "50.00 ±0.61" in capsys.readouterr().out
    assert (
        main(["compare", str(tmp_path / "runs"), "--format", "csv", "--output", str(tmp_path / "out" / "t.csv")]) == 0
    )
    assert (tmp_path / "out" / "t.csv").read_text().startswith("row,method,")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--html", "page", "--slices"], "--html and --serve make the page of all runs: leave out --slices"),
        (["--html", "page", "--output", "t.md"], "make the page of all runs"),
        (["--html", "page", "--format", "csv"], "make the page of all runs"),
        (["--seeds", "--format", "csv"], "--format csv holds every run by itself"),
        (["--slices", "--format", "json"], "leave out --format json"),
        (["--published", "all", "--format", "csv"], "--format csv holds pairs: --published own"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: list[str], words: str, tmp_path: Path) -> None:
    store.write(run("alvg", result(50.0)), tmp_path / "one")
    with pytest.raises(UserError, match=words):
        main(["--debug", "compare", str(tmp_path), *options])


@pytest.mark.slow
def test_a_thousand_run_folders_are_compared(tmp_path: Path) -> None:
    """Every run has its row, best first (``pytest -n 0 -s -m slow`` prints how long the whole command takes)."""
    rules = ("expression length", "words of location", "distractors", "target size")
    slices = {"prec@0.5": {rule: {f"bucket {i}": Metric(50.0, 100, 45.0, 55.0) for i in range(4)} for rule in rules}}
    for number in range(1000):
        value = 40 + number / 20
        metrics = {f"prec@0.{tenth}": Metric(value - tenth, 10834, value - tenth - 1, value) for tenth in range(5, 10)}
        results = [result(value, split=split, metrics=metrics, slices=slices) for split in ("val", "testA", "testB")]
        record = run(f"method{number % 20}", *results, config_hash=f"{number:016x}", seed=number)
        store.write(record, tmp_path / f"run{number}")
    started = time.perf_counter()
    command = [sys.executable, "-m", "vgbench.cli", "compare", str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    print(f"vgbench compare over 1,000 run folders: {time.perf_counter() - started:.2f} s")
    _, *rows = grid(process.stdout)
    assert [row[0] for row in rows] == [f"method{number % 20} (seed {number})" for number in reversed(range(1000))]
    assert rows[0][1] == "**84.95** ±3.00"  # 40 + 999 / 20 - 5, in an interval of 6


def test_part_of_a_split_is_said_never_bold_and_in_no_order():
    few = {"expressions": 4, "expected_expressions": 10834, "metrics": {"prec@0.5": Metric(100.0, 4, 99.0, 100.0)}}
    part = run("few", result(None, **few))
    whole = [run(name, result(value, expected_expressions=10834)) for name, value in (("one", 80.0), ("two", 85.0))]
    text = compare([part, *whole])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["two", "one", "few"]
    assert "100.00 [part]" in rows[-1] and "**85.00**" in rows[2] and "**100.00" not in text
    assert "[part] few: refcoco unc val, 4 of 10,834 expressions scored, part of the split" in text
    assert "100.00 [part]" in compare([part, *whole], "latex")
    (number,) = [entry for entry in json.loads(compare([part], "json"))["rows"] if entry["n"] == 4]
    assert number["part"] == "4 of 10,834"


CONTENT = {"images": "i", "expressions": "e", "boxes": "b", "masks": "m"}


def test_two_layouts_of_the_same_questions_share_a_column():
    first = run("one", result(80.0, data_hash="aaaa1111", content=CONTENT))
    second = run("two", result(85.0, data_hash="bbbb2222", content={**CONTENT, "masks": "none"}))
    older = run("old", result(70.0, data_hash="aaaa1111"))
    text = compare([first, second, older])
    assert "#2" not in text and "**85.00**" in text
    assert "read from several layouts (aaaa1111, bbbb2222) that differ in ids only" in text
    other = run("three", result(60.0, data_hash="cccc3333", content={**CONTENT, "boxes": "x", "masks": "x"}))
    text = compare([first, second, older, other])
    assert "val #1" in text and "val #2" in text and "other boxes for the same expressions" in text


def test_masks_count_where_metrics_look_at_them():
    change = {"task": "res", "metrics": {"miou": Metric(50.0, 10834)}}
    first = run("one", result(None, data_hash="aaaa1111", content=CONTENT, **change))
    second = run("two", result(None, data_hash="bbbb2222", content={**CONTENT, "masks": "x"}, **change))
    assert "other masks for the same boxes" in compare([first, second])
