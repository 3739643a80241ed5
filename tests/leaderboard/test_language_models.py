"""Rows of language models: which protocol, which training data, and which published numbers they stand beside."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import vgbench.leaderboards
from vgbench.leaderboard.compare import compare
from vgbench.leaderboard.names import paper_name
from vgbench.leaderboard.page_data import collect
from vgbench.leaderboard.pairs import published_pairs
from vgbench.leaderboard.published import PublishedRow
from vgbench.leaderboard.training_data import NOT_KNOWN, statement_of, statements
from vgbench.records.record import Code, Cost, Environment, Hardware, Metric, Record, Result


def run(label: str, cost: Cost, embedded: bool = False) -> Record:
    name = "refshapes" if embedded else "refcoco"
    result = Result(name, "val", "rec", "aaaa", 10834, 1500, {"prec@0.5": Metric(88.0, 10834)}, embedded=embedded)
    return Record(
        "vlm",
        {},
        "hash",
        Environment("3", "Linux", {}, Code("c0ffee"), Hardware("a CPU", 2)),
        [result],
        variant="qwen2.5-vl",
        label=label,
        cost=cost,
    )


def published(method: str) -> PublishedRow:
    place = ("a paper", "arXiv 1", "Table 1", "paper", "")
    return PublishedRow(method, "", "", "vendor mix", "REC", "refcoco", "val", "prec@0.5", 90.0, *place)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Qwen2.5-VL-7B-Instruct", "Qwen2.5-VL-7B"),
        ("InternVL3-8B-hf", "InternVL3-8B"),
        ("kosmos-2-patch14-224", "kosmos-2"),
        ("Qwen-VL-Chat", "Qwen-VL-Chat"),
        ("Florence-2-large-ft", "Florence-2-large-ft"),
    ],
)
def test_a_folder_is_called_as_in_papers(folder: str, name: str) -> None:
    assert paper_name(folder) == name


def test_a_language_model_meets_its_published_numbers_with_a_footnote() -> None:
    record = run("Qwen2.5-VL-7B-Instruct", Cost(answer_s=0.4))
    (pair,) = published_pairs([record], [published("Qwen2.5-VL-7B"), published("Qwen2.5-VL-72B")])
    assert pair.difference == pytest.approx(-2.0)
    assert pair.remarks[0] == NOT_KNOWN
    assert "published with a prompt and a resolution of its own, measured as qwen2.5-vl" in pair.remarks[1]
    text = compare([record], published=[published("Qwen2.5-VL-7B")], others=True)
    assert "Qwen2.5-VL-7B-Instruct qwen2.5-vl: a language model, asked and read as qwen2.5-vl" in text
    assert "published rows of language models: each with a prompt" in text


def test_what_a_card_says_of_the_training_data_is_shown() -> None:
    zero_shot, tuned = statement_of(["Florence-2-large"]), statement_of(["Florence-2-large-ft"])
    assert zero_shot is not None and "zero-shot" in str(zero_shot)
    assert tuned is not None and "fine-tuned on downstream tasks" in str(tuned)
    assert statement_of(["Qwen2.5-VL-7B"]) is None
    text = compare([run("Florence-2-large-ft", Cost(answer_s=0.4))])
    assert "training data: fine-tuned on downstream tasks, RefCOCO/+/g among those of its table" in text
    assert NOT_KNOWN not in text


def test_tokens_and_seconds_are_columns_of_such_tables_only() -> None:
    record = run("Qwen2.5-VL-7B-Instruct", Cost(prompt_tokens=500.0, answer_tokens=24.0, answer_s=0.4))
    header = compare([record]).splitlines()[2]
    assert "Tokens/answer" in header and "s/answer" in header and " 524 |" in compare([record])
    assert "answer" not in compare([run("ALVG", Cost())])
    line = next(csv.DictReader(compare([record], "csv").splitlines()))
    assert (line["prompt_tokens"], line["answer_tokens"], line["answer_s"]) == ("500.0", "24.0", "0.4")


def test_the_price_of_1000_expressions_is_a_column_and_a_chart(tmp_path: Path) -> None:
    """By hand: (500 * 3 + 20 * 15) / 1e6 * 1000 = 1.8 $."""
    tokens = {"prompt_tokens": 500.0, "answer_tokens": 20.0, "answer_s": 0.4}
    record = run("Qwen2.5-VL-7B-Instruct", Cost(**tokens, prompt_price=3.0, answer_price=15.0))
    text = compare([record])
    assert "$/1000" in text.splitlines()[2] and "US dollars for 1,000 expressions" in text and " 1.8 |" in text
    assert r"\$/1000" in compare([record], "latex")
    line = next(csv.DictReader(compare([record], "csv").splitlines()))
    assert float(line["price_per_1000"]) == pytest.approx(1.8)
    data = collect([record, run("ALVG", Cost())], [])
    assert [row["price"] for row in data["rows"]] == [pytest.approx(1.8), None]
    assert "$/1000" not in compare([run("other", Cost(**tokens))])  # nobody gave a price
    assert "$/1000" not in compare([run("other", Cost(prompt_price=3.0, answer_price=15.0))])  # or counted tokens


def test_other_rows_and_embedded_data_have_no_such_note() -> None:
    assert "language model" not in compare([run("ALVG", Cost())])
    assert "language model" not in compare([run("ALVG", Cost(answer_s=1.0), embedded=True)])


def test_every_statement_has_a_source() -> None:
    file = Path(vgbench.leaderboards.__file__).parent / "training_data.csv"
    lines = list(csv.DictReader(file.open(encoding="utf-8")))
    assert len(lines) == len(statements()) and all(all(line.values()) for line in lines)
