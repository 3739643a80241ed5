"""What is bold: the best of a column with all that its interval cannot tell from it, in every kind of output alike."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from vgbench.core.terminal import show
from vgbench.leaderboard.compare import compare, leaderboard
from vgbench.leaderboard.leading import LEGEND, Span, leading
from vgbench.leaderboard.page import write_page
from vgbench.leaderboard.published import PublishedRow
from vgbench.records.record import Code, Environment, Hardware, Metric, Record, Result


def run(method: str, metric: Metric, *, name: str = "prec@0.5", task: str = "rec", seed: int = 0, **changes) -> Record:
    result = Result("refcoco", "val", task, "d1", 1000, 100, {name: metric}, split_by="unc", **changes)
    environment = Environment("3", "Linux", {}, Code(), Hardware("a CPU", 2))
    record = Record(method, {}, f"hash-{method}", environment, [result], seed=seed)
    record.folder = Path("runs") / f"{method}-{seed}"
    return record


def near(value: float, half: float) -> Metric:
    return Metric(value, 1000, value - half, value + half)


def bold(text: str) -> list[str]:
    return re.findall(r"\*\*([^*]+)\*\*", text)


@pytest.mark.parametrize(
    ("spans", "lower", "keys"),
    [
        ({"a": Span(80, 78, 82), "b": Span(77, 75, 79), "c": Span(70, 69, 71)}, False, "ab"),
        ({"a": Span(80, 78, 82), "b": Span(77, 76, 78)}, False, "a"),  # they only touch
        ({"a": Span(80, 78, 82), "b": Span(81, 80.9, 81.1)}, False, "ab"),  # the best one's is the narrow one
        ({"a": Span(9, 8, 10), "b": Span(10.5, 9.5, 11.5), "c": Span(20, 19, 21)}, True, "ab"),
        ({"a": Span(80, 80, 80), "b": Span(79.99, 79.99, 79.99)}, False, "a"),  # without any interval
        ({"a": Span(80.004, 80.004, 80.004), "b": Span(80, 80, 80)}, False, "ab"),  # printed alike
        ({"a": Span(80, 78, 82), "b": Span(79, 79, 79), "c": Span(77, 77, 77)}, False, "ab"),
        ({"a": Span(80, 78, 82)}, False, ""),  # nothing to be better than
        # no chain: c overlaps with b, which overlaps with a
        ({"a": Span(80, 78, 82), "b": Span(77, 75, 79), "c": Span(74, 72, 76)}, False, "ab"),
    ],
)
def test_overlapping_intervals_share_the_lead(spans: dict[str, Span], lower: bool, keys: str) -> None:
    assert leading(spans, lower) == set(keys)


RECORDS = [run("a", near(80.0, 2.0)), run("b", near(77.5, 1.0)), run("c", near(70.0, 1.0))]


def test_every_output_has_the_same_bold_values_and_says_what_they_are(tmp_path: Path) -> None:
    text = compare(RECORDS)
    assert bold(text) == ["80.00", "77.50"] and text.count(LEGEND) == 1
    assert re.findall(r"\\textbf\{([^}]+)\}", compare(RECORDS, "latex")) == ["80.00", "77.50"]
    out = io.StringIO()
    show(leaderboard(RECORDS), Console(file=out, width=200, force_terminal=True, highlight=False, color_system=None))
    assert "Bold: the best of its column" in out.getvalue()
    page = write_page(RECORDS, tmp_path).read_text()
    data = json.loads(re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert [(cell[2], cell[7]) for cell in data["cells"]] == [(80.0, True), (77.5, True), (70.0, False)]
    assert data["bold"] == LEGEND


def test_one_row_or_no_lead_has_no_such_line() -> None:
    assert LEGEND not in compare(RECORDS[:1]) and not bold(compare(RECORDS[:1]))


def test_lower_is_better_controls_and_parts() -> None:
    ece = [
        run("a", near(9.0, 1.0), name="ece", task="calibration"),
        run("b", near(12.0, 0.5), name="ece", task="calibration"),
    ]
    assert bold(compare(ece)) == ["9.00"]
    part = run("p", near(90.0, 5.0), expected_expressions=5000)
    assert bold(compare([*RECORDS, part])) == ["80.00", "77.50"]
    spoilt = [run(name, near(50.0, 1.0), controls={"shuffled text": {"prec@0.5": near(9.0, 1.0)}}) for name in "ab"]
    assert bold(compare(spoilt)) == ["50.00", "50.00"]


def test_of_several_seeds_the_printed_deviation_counts() -> None:
    seeds = [run("a", near(value, 5.0), seed=seed) for seed, value in enumerate((79.0, 80.0, 81.0))]  # 80 ± 1
    assert bold(compare([*seeds, run("b", near(78.0, 0.5))], seeds=True)) == ["80.00"]
    assert bold(compare([*seeds, run("b", near(78.0, 1.5))], seeds=True)) == ["80.00", "78.00"]


def test_a_published_number_inside_the_interval_of_the_best_leads_too() -> None:
    def published(value: float) -> list[PublishedRow]:
        place = ("a paper", "arXiv 1", "Table 1", "paper", "")
        return [PublishedRow("Q", "", "", "mix", "REC", "refcoco", "val", "prec@0.5", value, *place)]

    for value, leaders in ((79.0, ["80.00", "79.00", "77.50"]), (77.0, ["80.00", "77.50"]), (85.0, ["85.00"])):
        text = compare(RECORDS, published=published(value), others=True).partition("## Published")[0]
        assert sorted(bold(text), reverse=True) == leaders
