"""The metrics that the authors of recent benchmarks report, worked out by hand on a few answers."""

from __future__ import annotations

import numpy as np
import pytest

from vgbench.core.errors import UserError
from vgbench.core.registry import methods
from vgbench.data.builder import ImageRecord, SentenceIds, TableBuilder, Targets
from vgbench.data.table import AnnotationTable
from vgbench.datasets.groundingme import GroundingME
from vgbench.metrics.evaluator import authors_metrics, evaluate_predictions
from vgbench.metrics.slices import buckets, headline
from vgbench.predictions.table import Predictions
from vgbench.training.setup import scored_variants
from vgbench.types import Prediction

TARGET = [0.0, 0.0, 10.0, 10.0]


def answer(*boxes: tuple[float, float]) -> Prediction:
    """Boxes that cover a share of TARGET (IoU = share), best first, each with a score."""
    corners = [[0.0, 0.0, 10.0 * share, 10.0] if share else [50.0, 50.0, 60.0, 60.0] for share, _ in boxes]
    return Prediction(boxes=np.array(corners).reshape(-1, 4), scores=np.array([score for _, score in boxes]))


def scored(table: AnnotationTable, answers: list[Prediction], spec: str):
    predictions = Predictions.from_list(table.column("key").tolist(), answers)
    return evaluate_predictions(table, predictions, ["grec"], [spec], bootstrap=0)


def build(rows: list[tuple[bool, int | None, dict[str, str]]]) -> AnnotationTable:
    """(whether something is meant, ref_id, kind by rule) per expression."""
    builder = TableBuilder("made", "test", "grec", "expression")
    for index, (meant, ref, kinds) in enumerate(rows):
        image = ImageRecord(index, f"{index}.jpg", 100, 100, "made")
        key = builder.add(str(index), image, "a cup", Targets([TARGET] if meant else []), index, SentenceIds(ref))
        for rule, kind in kinds.items():
            builder.classify(key, rule, kind)
    return builder.table()


def part(report, spec: str, metric: str, table: AnnotationTable, rule: str) -> dict[str, float]:
    scores = headline(report.outcomes[spec], spec, table, bootstrap=0)[metric][rule]
    return {kind: round(score.value, 4) for kind, score in scores.items()}


def test_one_box_per_answer_and_rejections() -> None:
    """Overlaps 0.8, 0.95 and (behind a wrong first box) 0; of three rejections one stays empty, one has only a box that
    scores too little, one is answered."""
    kinds = [{"subtask": name} for name in ("Spatial", "Spatial", "Limited", *["Rejection"] * 3)]
    table = build([(index < 3, None, kind) for index, kind in enumerate(kinds)])
    answers = [answer((0.8, 0.9)), answer((0.95, 0.9), (0, 0.8)), answer((0, 0.9), (1.0, 0.8))]
    answers += [answer(), answer((0.5, 0.69)), answer((0.5, 0.7))]
    report = scored(table, answers, "grec/single")
    accuracies = {t: report.values[f"grec/single/acc@{t}"] for t in ("0.5", "0.75", "0.9")}
    assert accuracies == pytest.approx({"0.5": 400 / 6, "0.75": 400 / 6, "0.9": 300 / 6})
    assert report.values["grec/single/miou"] == pytest.approx(100 * (0.8 + 0.95 + 0 + 1 + 1 + 0) / 6)
    assert report.values["grec/single/n_acc"] == pytest.approx(200 / 3)
    by_kind = part(report, "grec/single", "acc@0.9", table, "subtask")
    assert by_kind == {"Limited": 0, "Rejection": 66.6667, "Spatial": 50}


def test_mean_accuracy_by_task_type() -> None:
    """0.72 is at least 0.50, 0.55, 0.60, 0.65, 0.70: 5 of 9 thresholds; 0.91 all nine; a rejection counts whole."""
    kinds = ("attribute", "attribute", "reject", "reject")
    table = build([(index < 2, None, {"task type": kind}) for index, kind in enumerate(kinds)])
    report = scored(table, [answer((0.72, 1)), answer((0.91, 1)), answer(), answer((0.91, 1))], "grec/macc")
    assert report.values["grec/macc/macc"] == pytest.approx(100 * (5 / 9 + 1 + 1 + 0) / 4)
    by_type = part(report, "grec/macc", "macc", table, "task type")
    assert by_type == {"attribute": round(100 * 14 / 18, 4), "reject": 50}


def test_several_targets_are_none_of_their_business() -> None:
    builder = TableBuilder("made", "test", "grec", "expression")
    builder.add("two", ImageRecord(0, "0.jpg", 100, 100, "made"), "cups", Targets([TARGET, TARGET]), 0)
    for spec in ("grec/single", "contrast"):
        with pytest.raises(UserError, match=f"two: 2 targets, but {spec} is for one target or none"):
            scored(builder.table(), [answer()], spec)


def edited_table() -> AnnotationTable:
    """Two originals (ids 7, 8; levels 1, 2), their edited texts, and two edited images of the first."""
    text, image = {"edit": "text, relation, level 1"}, {"edit": "image, attribute, level 1"}
    rows = [(True, 7, {"level": "level 1"}), (True, 8, {"level": "level 2"})]
    return build([*rows, (False, 7, text), (False, 8, text), (False, 7, image), (False, 7, image), (False, 99, image)])


def test_an_expression_against_its_edited_versions() -> None:
    """The original 7 answers rightly with 0.6, and wrongly with 0.5; its edited text with 0.4, its edited images with
    0.8 and, twice, 0.7. The original 8 is right only in its second box (0.3), below 0.9; its edited text has none. The
    row of an original that is not in the table (99) counts nowhere.

    Text: of 7 the best of {0.6, 0.5, 0.4} is its own and fits: recalled; of 8 the best of {0.9, 0.3} is its own, but
    does not fit; among the first five it does. Image: of 7 the best is 0.8; among the best five of {0.8, 0.7, 0.7, 0.6,
    0.5} are both of its own. AUROC, text: 0.6 and 0.9 are above 0.4 and 0: 1; image: 0.6 is below 0.8 and 0.7: 0."""
    table = edited_table()
    answers = [answer((1, 0.6), (0, 0.5)), answer((0, 0.9), (0.5, 0.3)), answer((0, 0.4)), answer()]
    answers += [answer((1, 0.8)), answer((1, 0.7), (0, 0.7)), answer((1, 1))]
    report = scored(table, answers, "contrast")
    values = {name.partition("/")[2]: value for name, value in report.values.items() if name.startswith("contrast/")}
    assert values["recall@1"] == pytest.approx(100 / 3) and values["recall@5"] == values["recall@10"] == 100
    assert values["prec@1"] == 50 and values["prec@5"] == 100
    assert part(report, "contrast", "recall@1", table, "edit") == {
        "image, attribute, level 1": 0,
        "text, relation, level 1": 50,
    }
    assert part(report, "contrast", "auroc", table, "edit") == {
        "image, attribute, level 1": 0,
        "text, relation, level 1": 100,
    }
    assert values["auroc"] == pytest.approx(50)  # two edited texts at 1, two edited images at 0


def plainly(rows: list[tuple[bool, int, str]], answers: list[Prediction], top: int) -> tuple[dict, dict]:
    """Recall@k and AUROC by kind of edit, expression by expression and pair by pair."""
    originals = {ref: one for (meant, ref, _), one in zip(rows, answers, strict=True) if meant}
    edits: dict[str, dict[int, list[Prediction]]] = {}
    for (meant, ref, kind), one in zip(rows, answers, strict=True):
        if not meant:
            edits.setdefault(kind, {}).setdefault(ref, []).append(one)
    recall, auroc = {}, {}
    for kind, versions in edits.items():
        hits = []
        for ref, edited in versions.items():
            own = originals[ref].scores.tolist()
            best = sorted([*own, *(score for one in edited for score in one.scores.tolist())], reverse=True)[:top]
            places = [place for place, score in enumerate(own) if score in best]
            fits = [box[2] >= 5 and box[0] == 0 for box in originals[ref].boxes[: min(len(places), top)].tolist()]
            hits.append(any(fits))
        recall[kind] = round(100 * sum(hits) / len(hits), 4)
        first = [(one.scores.tolist() or [0])[0] for edited in versions.values() for one in edited]
        theirs = [(originals[ref].scores.tolist() or [0])[0] for ref, edited in versions.items() for _ in edited]
        above = [float(a > b) + 0.5 * (a == b) for a in theirs for b in first]
        auroc[kind] = round(100 * sum(above) / len(above), 4)
    return recall, auroc


def test_many_originals_as_counted_plainly() -> None:
    """Scores of one digit, so that many are equal, and several edited versions of a kind."""
    draw = np.random.default_rng(0)
    rows = [(True, ref, "") for ref in range(40)]
    rows += [(False, int(draw.integers(40)), str(draw.choice(["text", "image", "both"]))) for _ in range(160)]
    answers = []
    for _ in rows:
        scores = np.sort(draw.integers(1, 10, draw.integers(0, 13)))[::-1] / 10
        answers.append(answer(*((float(draw.choice([0, 0, 0.4, 0.8])), float(score)) for score in scores)))
    table = build([(meant, ref, {} if meant else {"edit": kind}) for meant, ref, kind in rows])
    report = scored(table, answers, "contrast")
    recall, auroc = plainly(rows, answers, 1)
    assert part(report, "contrast", "recall@1", table, "edit") == recall and min(recall.values()) > 0
    assert part(report, "contrast", "auroc", table, "edit") == auroc
    numbers = report.outcomes["contrast"].ratios["recall@5"]
    whole = plainly(rows, answers, 5)[0]
    counted = {kind: len({ref for meant, ref, edit in rows if not meant and edit == kind}) for kind in whole}
    assert numbers.value == pytest.approx(sum(whole[k] * counted[k] for k in whole) / sum(counted.values()), abs=1e-3)


def test_equal_scores_do_not_hide_the_original() -> None:
    """As in the authors' code, whose test is "score in the top k": 1 against 1 is recalled, and half an AUROC."""
    table = build([(True, 1, {}), (False, 1, {})])
    report = scored(table, [answer((1, 1)), answer((1, 1))], "contrast")
    assert report.values["contrast/recall@1"] == 100 and report.values["contrast/auroc"] == 50


def test_without_pairs_there_is_nothing_to_contrast() -> None:
    report = scored(build([(True, None, {}), (False, None, {})]), [answer((1, 1)), answer()], "contrast")
    assert np.isnan(report.values["contrast/recall@1"]) and np.isnan(report.values["contrast/auroc"])
    assert report.values["contrast/prec@1"] == 100


def test_kinds_outlive_a_part_of_the_split() -> None:
    table = edited_table()
    first = buckets(table.take([0, 1, 3]))
    assert first["level"].names == ("level 1", "level 2") and first["level"].index.tolist() == [0, 1, -1]
    assert "edit" not in first  # one kind is left: nothing to tell apart


def test_runs_score_what_authors_report(tmp_path) -> None:
    data = GroundingME(tmp_path, cache_dir=tmp_path)
    method = methods.load("hf_grounding")  # asked for nothing but its tasks
    assert scored_variants(method, data, ["grec"], []) == ("grec/single",)
    assert scored_variants(method, data, ["grec"], ["grec/single", "grec/iou", "rec/giou"]) == (
        "grec/single",
        "grec/iou",
    )


def test_what_authors_report_goes_with_the_tasks_that_are_scored() -> None:
    own = ["grec/single", "rejection/n3r", "rec/acc"]
    assert authors_metrics(own, ["grec"]) == ["grec/single", "rejection/n3r"]
    assert authors_metrics(own, ["gres"]) == [] and authors_metrics(own, ["rec"]) == ["rejection/n3r", "rec/acc"]
