"""``vgbench stress``: a model under probes, models that run elsewhere, errors, thresholds, tables and the page."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.probes.scenes import oracle
from vgbench.cli.main import main
from vgbench.config import plugins
from vgbench.core import registry
from vgbench.data.table import AnnotationTable
from vgbench.datasets.refshapes import GRefShapes, RefShapes
from vgbench.leaderboard.page_data import collect
from vgbench.predictions.table import Predictions
from vgbench.predictions.writer import PredictionWriter
from vgbench.probes.files import Inquiry, read_inquiry
from vgbench.records import store

EXAMPLES = Path(__file__).parents[1] / "examples"
IMAGES = {"train": 2, "val": 6, "testA": 2, "testB": 2}


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in (registry.methods, registry.datasets, registry.metrics, registry.probes):
        monkeypatch.setattr(kind, "_added", {})
    monkeypatch.setattr(plugins, "_FOLDERS", {})
    yield
    for name in ("centre", "whisper"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refshapes")


def options(cache: Path, dataset: str = "refshapes") -> list[str]:
    images = "{" + ", ".join(f"{split}: {count}" for split, count in IMAGES.items()) + "}"
    return [f"dataset={dataset}", f"dataset.images={images}", f"dataset.cache_dir={cache}", "eval.bootstrap=20"]


def write(path: Path, predictions: Predictions) -> None:
    with PredictionWriter(path) as writer:
        writer.write_table(predictions)


def test_a_run_with_probes_its_table_its_tests_and_the_page(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--plugin", str(EXAMPLES / "centre.py"), "--plugin", str(EXAMPLES / "whisper.py")]
    small = ["trainer=cpu", "workers=0", "recipe.epochs=1", "recipe.batch_size=4", f"runs={tmp_path}"]
    asked = "eval.stress=[mirror,whisper,distractors,'image:pixelate@5',nothing]"
    run = [*both, "method=centre", *options(cache), *small, "eval.examples=1", "eval.splits=[val]"]
    assert main(["run", *run, asked]) == 0
    folder = tmp_path / "centre-refshapes"
    record = store.read(folder)
    splits = {result.split: result for result in record.results if result.task == "stress"}
    specs = ("mirror", "whisper", "distractors", "image:pixelate@5", "nothing")
    assert list(splits) == [f"val [{spec}]" for spec in specs]
    assert [result.split for result in record.results if result.task == "rec"] == ["val"]
    plain = next(result for result in record.results if result.task == "rec")
    pixelated = splits["val [image:pixelate@5]"]
    assert pixelated.metrics["plain"].value == plain.metrics["prec@0.5"].value
    assert pixelated.data_hash != plain.data_hash  # the expressions are the same, the images are not
    assert splits["val [distractors]"].metrics["right"].value == plain.metrics["prec@0.5"].value
    assert splits["val [distractors]"].slices["right"]["other objects of the category"]
    assert any(note.startswith("val [whisper]: ") and "left out: " in note for note in record.notes)
    assert (folder / "stress" / "val [image-pixelate@5].parquet").is_file()
    assert main(["stress", *run, f"checkpoint={folder}", "probes=mirror,whisper", f"run_dir={tmp_path / 'again'}"]) == 0
    again = store.read(tmp_path / "again")
    assert {result.task for result in again.results} == {"stress"}  # one score for all: nothing to calibrate
    first = {result.split: result.metrics["right"].value for result in again.results}
    assert first == {name: splits[name].metrics["right"].value for name in first}
    capsys.readouterr()
    assert main(["compare", *both, str(folder)]) == 0
    text = capsys.readouterr().out
    assert "## Stress tests on embedded (rendered) data: refshapes val" in text
    assert "| mirror           | must follow" in text and "val [mirror]" not in text
    assert main(["compare", *both, str(folder), str(tmp_path / "again"), "--slices"]) == 0
    tests = capsys.readouterr().out.split("## Stress tests: ")[1]
    assert tests.startswith("Centre (again) against Centre (centre-refshapes)") and "| val [mirror] " in tests
    (group,) = collect([record, again], [])["stress"]
    assert group["probes"][0]["spec"] == "mirror"
    assert len(group["probes"][0]["bars"]) == 2 and group["tests"]
    assert {curve["title"] for curve in group["curves"]} >= {"nothing: false answers", "image:pixelate"}


def test_a_model_that_runs_elsewhere(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions, answers = tmp_path / "questions", tmp_path / "answers"
    probes = "probes=mirror,words:case,nothing,distractors"
    assert main(["stress", "export", *options(cache), "split=val", probes, f"out={questions}"]) == 0
    names = {path.name for path in questions.iterdir()}
    assert names == {"stress.json", "plain.jsonl", "mirror.jsonl", "words-case.jsonl", "nothing.jsonl", "images"}
    lines = [json.loads(line) for line in (questions / "mirror.jsonl").read_text().splitlines()]
    assert Path(lines[0]["image"]).is_file() and lines[0].keys() == {"key", "image", "expression", "width", "height"}
    inquiry, _ = read_inquiry(questions)
    data = RefShapes(images=IMAGES, cache_dir=cache)
    annotations = inquiry.annotations(data)
    write(answers / "plain.jsonl", oracle(annotations.table))
    for asked in inquiry.questions(annotations):
        if asked.probe.name != "distractors":
            write(answers / f"{asked.probe.spec.replace(':', '-')}.jsonl", oracle(asked.table))
    (answers / "words-case.jsonl").unlink()
    capsys.readouterr()
    arguments = ["stress", "score", str(questions), f"answers={answers}"]
    assert main([*arguments, "--register", str(tmp_path / "run"), "--label", "Oracle"]) == 0
    text = capsys.readouterr().out
    assert "val [words:case] is not scored" in text
    record = store.read(tmp_path / "run")
    assert (record.label, record.provenance) == ("Oracle", "external")
    rights = {result.split: result.metrics["right"].value for result in record.results}
    assert rights == {"val [mirror]": 100, "val [nothing]": 100, "val [distractors]": 100}
    assert main(["stress", "export", *options(cache), f"out={questions}"]) == 2
    assert main(["stress", "score", str(answers), f"answers={answers}"]) == 2
    assert main(["stress", "score", str(questions), "answers=nowhere"]) == 2
    stderr = capsys.readouterr().err
    assert "name a new folder" in stderr and "holds no stress.json" in stderr and "answers=nowhere" in stderr
    other = Inquiry(inquiry.dataset, "val", ("mirror",), seed=3)
    assert other.questions(annotations)[0].seed == 3


def registered(folder: Path, table: AnnotationTable, box: list[float] | None, cache: Path, label: str) -> str:
    """A run folder of a model that always answers the same box, or the truth."""
    file = folder / f"{label}.jsonl"
    if box is None:
        write(file, oracle(table))
    else:
        lines = [json.dumps({"key": key, "boxes": [box], "scores": [1.0]}) for key in table.column("key")]
        file.write_text("\n".join(lines) + "\n")
    run = str(folder / label)
    assert main(["score", str(file), *options(cache), "split=val", "--register", run, "--label", label]) == 0
    return run


def test_errors_of_several_runs(
    tmp_path: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    terminal_lines: Callable[[Callable[[], object]], list[str]],
) -> None:
    table = RefShapes(images=IMAGES, cache_dir=cache).load("val")
    runs = [
        registered(tmp_path, table, [0, 0, 1, 1], cache, "corner"),
        registered(tmp_path, table, [126, 126, 128, 128], cache, "other"),
    ]
    truth = registered(tmp_path, table, None, cache, "truth")
    capsys.readouterr()
    pictures = tmp_path / "review"
    assert main(["stress", "errors", *runs, "--pictures", str(pictures), "--json", str(tmp_path / "e.json")]) == 0
    text = capsys.readouterr().out
    assert f"Answers by kind, % of {len(table)} expressions: refshapes val" in text
    assert f"{len(table)} expressions (100.00 %) are wrong for all 2 rows" in text
    assert (pictures / "refshapes-val" / "sheet.png").is_file()
    kinds = json.loads((tmp_path / "e.json").read_text())[0]["rows"]
    for row in kinds:
        assert sum(float(value) for name, value in row.items() if name != "Row") == pytest.approx(100, abs=0.05)
    lines = terminal_lines(lambda: main(["stress", "errors", *runs]))
    assert max(map(len, lines)) <= 80 and not any("|" in line for line in lines)
    assert main(["stress", "errors", truth, "--ceiling", "nobody"]) == 2
    assert "neither a published review nor a data set" in capsys.readouterr().err


def test_a_threshold_chosen_on_val(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Right boxes score 0.5, and nothing else answers: everything is right below, and nothing with a target at 0.7."""
    data = GRefShapes(images=IMAGES, cache_dir=cache)
    folder = tmp_path / "predictions"
    reports = []
    for split in ("val", "testA"):
        table = data.load(split)
        lines = [{"key": row.key, "boxes": row.boxes.tolist(), "scores": [0.5] * len(row.boxes)} for row in table]
        folder.mkdir(exist_ok=True)
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        run = ["score", str(folder / f"{split}.jsonl"), *options(cache, "grefshapes"), f"split={split}"]
        assert main([*run, "--register", str(tmp_path / split)]) == 0
        reports.append(store.read(tmp_path / split))
    capsys.readouterr()
    assert main(["stress", "threshold", str(tmp_path / "val")]) == 2  # one split only
    assert "on another split" in capsys.readouterr().err
    merged = reports[0]
    (tmp_path / "both" / "predictions").mkdir(parents=True)
    for split, report in zip(("val", "testA"), reports, strict=True):
        source = tmp_path / split / "predictions" / f"{split}.parquet"
        (tmp_path / "both" / "predictions" / source.name).write_bytes(source.read_bytes())
        if report is not merged:
            merged.results += report.results
    store.write(merged, tmp_path / "both")
    assert main(["stress", "threshold", str(tmp_path / "both"), "select=val"]) == 0
    text = capsys.readouterr().out
    assert "at 0.5" in text and "0.5 has the highest Pr@F1" in text
    assert any(line.startswith("| testA") and "100.00" in line for line in text.splitlines())


def test_cards_and_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stress", "cards", "mirror"]) == 0
    assert "shows: " in capsys.readouterr().out
    assert main(["list", "probes"]) == 0
    assert "mirror" in capsys.readouterr().out
    for arguments, message in (
        (["stress", "exprot", "out=x"], "no such part"),
        (["stress", "cards", "miror"], "did you mean 'mirror'"),
        (["stress", "export", "out=x"], "dataset=NAME"),
        (["stress", "method=alvg", "dataset=refshapes", "checkpoint=shipped", "probes=miror"], "eval.stress: no probe"),
        (["stress", "method=alvg", "--ceiling", "x"], "--ceiling is for"),
    ):
        assert main(arguments) == 2, arguments
        assert message in capsys.readouterr().err
