"""The page: what is gathered from run folders, and what a real browser makes of it (skipped without Chromium)."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vgbench.core.errors import UserError
from vgbench.leaderboard.page import write_page
from vgbench.leaderboard.page_data import collect
from vgbench.leaderboard.published import PublishedRow
from vgbench.records import store
from vgbench.records.record import Code, Cost, Environment, Hardware, Metric, Record, Result

if TYPE_CHECKING:
    from tests.browser import Browser

EVIL = "</script><script>console.error('pwned')</script> <b>left</b> & \"right\" мяч"
METHODS = ("alpha", "beta", "gamma")


def png(array: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def make_run(root: Path, number: int) -> Path:
    """A synthetic run folder: record, log and two examples, of which method ``number`` gets ``number`` wrong."""
    value = 60.0 + 10 * number

    def result(**changes) -> Result:
        fields = {
            "dataset": "refshapes",
            "split": "val",
            "task": "rec",
            "data_hash": "d1",
            "embedded": True,
            "expressions": 100,
            "images": 20,
            "leaked_images": 0,
            "metrics": {"prec@0.5": Metric(value, 100, value - 5, value + 5), "miou": Metric(value - 9, 100)},
            "controls": {"shuffled text": {"prec@0.5": Metric(20.0, 100)}},
            "slices": {
                "prec@0.5": {"expression length": {"1-3 words": Metric(value + 5, 60), "4+": Metric(value - 5, 40)}}
            },
        }
        return Result(**{**fields, **changes})

    real = result(dataset="refcoco", split_by="unc", data_hash="d2", embedded=False, controls={}, slices={})
    tokens = {"prompt_tokens": 1000.0, "answer_tokens": 100.0, "prompt_price": 1.0, "answer_price": 10.0}
    tokens = tokens if number == 1 else {}  # 1,000 * 1 $ + 100 * 10 $ per million: 2 $ for 1,000 expressions
    record = Record(
        method=METHODS[number],
        config={},
        config_hash=f"c{number}",
        environment=Environment("3", "Linux", {}, Code(), Hardware("a CPU", 2)),
        results=[result(), real],
        seed=0,
        cost=Cost(parameters=10 ** (number + 5), inference_samples_per_s=100.0 / (number + 1), **tokens),
        notes=[EVIL],
    )
    folder = root / METHODS[number]
    store.write(record, folder)
    (folder / "logs").mkdir()
    steps = "".join(f"0,{step},{3.0 / (step + 1)},\n" for step in range(0, 100, 10))
    (folder / "logs" / "metrics.csv").write_text(f"epoch,step,train/total,val/rec/prec@0.5\n{steps}0,99,,{value}\n")
    place = folder / "examples" / "val"
    place.mkdir(parents=True)
    examples = []
    for index, expression in enumerate((EVIL, "the small green cone")):
        Image.new("RGB", (64, 48), (90, 120 + 60 * index, 90)).save(place / f"0{index}.jpg")
        right = index >= number
        box = [10, 10, 30, 30] if right else [40, 20, 60, 40]
        prediction = {
            "boxes": [box],
            "scores": [0.8],
            "outlines": [[10, 10, 30, 10, 20, 30]],
            "no_target": None,
            "right": right,
            "point": [20, 20],
            "iou": 1.0 if right else 0.0,
            "heatmap": png(np.eye(8, dtype=np.uint8) * 255),
            **({"answer": f"{EVIL} [10, 10, 30, 30]"} if number == 1 else {}),
        }
        truth = {"boxes": [[10, 10, 30, 30]], "outlines": [[10, 10, 30, 10, 30, 30, 10, 30]]}
        examples.append(
            {
                "key": f"k{index}",
                "expression": expression,
                "image": f"0{index}.jpg",
                "width": 64,
                "height": 48,
                "truth": truth,
                "predictions": {"main": prediction},
            }
        )
    info = {"dataset": "refshapes", "split": "val", "data_hash": "d1", "examples": examples}
    (place / "examples.json").write_text(json.dumps(info))
    return folder


PUBLISHED = [
    PublishedRow(
        *("alpha", "", "R50", "single dataset", "REC", "refcoco", "val", "prec@0.5", 62.0),
        *("a paper", "doi:1", "Table 1", "paper", ""),
    )
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    for number in range(3):
        make_run(root / "runs", number)
    return write_page(store.find([root / "runs"]), root / "out", PUBLISHED)


def test_everything_is_in_one_file_and_nothing_is_loaded(page: Path) -> None:
    text = page.read_text()
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//|@import|url\(|fetch\(""", text)
    stored = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert json.loads(stored[1])["examples"][0]["items"][0]["expression"] == EVIL


def test_runs_of_one_split_stand_side_by_side(page: Path) -> None:
    data = collect(store.find([page.parent.parent / "runs"]), PUBLISHED)
    assert [row["label"] for row in data["rows"]] == list(METHODS)
    (group,) = data["examples"]
    assert group["where"] == "refshapes val" and group["embedded"]
    assert [sorted(item["predictions"]) for item in group["items"]] == [[0, 1, 2], [0, 1, 2]]
    assert len(data["images"]) == 2  # one per expression, however many methods
    assert [pair["difference"] for pair in data["published"]] == [pytest.approx(-2.0)]
    assert {column["embedded"] for column in data["columns"]} == {True, False}
    assert len(data["slices"]) == 6 and len(data["curves"]) == 3


def test_a_models_words_stand_beside_its_boxes(tmp_path: Path) -> None:
    folder = make_run(tmp_path, 1)
    file = folder / "examples" / "val" / "examples.json"
    info = json.loads(file.read_text())
    info["examples"][1]["predictions"]["main"]["answer"] = "word " * 1000
    file.write_text(json.dumps(info))
    items = collect([store.read(folder)], [])["examples"][0]["items"]
    words = [item["predictions"][0]["answer"] for item in items]
    assert words[0] == f"{EVIL} [10, 10, 30, 30]"
    assert words[1].endswith("... (5000 characters)") and len(words[1]) < 2100
    info["examples"][1]["predictions"]["main"]["answer"] = 7
    file.write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"examples\.json: damaged"):
        collect([store.read(folder)], [])


def test_long_curves_are_thinned(tmp_path: Path) -> None:
    folder = make_run(tmp_path, 0)
    rows = "".join(f"0,{step},{step}.0\n" for step in range(1000))
    (folder / "logs" / "metrics.csv").write_text(f"epoch,step,train/total\n{rows}")
    (curve,) = collect([store.read(folder)], [])["curves"]
    points = curve["series"]["train/total"]
    assert len(points) == 200 and points[0] == [4, 2.0] and points[-1] == [999, 997.0]


def test_damaged_examples_are_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path, 0)
    (folder / "examples" / "val" / "00.jpg").unlink()
    with pytest.raises(UserError, match=r"examples\.json: damaged"):
        collect([store.read(folder)], [])


LABELS = (
    "[...document.querySelectorAll('#table-list table')[0].querySelectorAll('tbody th')].map(cell => cell.textContent)"
)


@pytest.mark.parametrize("name", ["../../../secret.png", "absolute", "link.png", "text.jpg", "pipe.jpg", "huge.png"])
def test_only_pictures_of_the_folder_get_into_the_page(name: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path, 0)
    place = folder / "examples" / "val"
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (place / "link.png").symlink_to(tmp_path / "secret.png")
    (place / "text.jpg").write_text("PRIVATE KEY")
    os.mkfifo(place / "pipe.jpg")
    Image.new("1", (5000, 2)).save(place / "huge.png")
    info = json.loads((place / "examples.json").read_text())
    info["examples"][0]["image"] = str(tmp_path / "secret.png") if name == "absolute" else name
    (place / "examples.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"examples\.json: damaged"):
        write_page(store.find([folder]), tmp_path / "out", [])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("expression", ["a"]),
        ("width", "64;1"),
        ("truth", {"boxes": [["0", 0, 1, 1]], "outlines": []}),
        ("truth", {"boxes": [], "outlines": [[1, 2, "/><script>"]]}),
        ("predictions", {"main": {"boxes": [], "scores": [], "outlines": [], "heatmap": "PHN2Zz4="}}),
        ("predictions", {"main": {"boxes": [], "scores": [float("nan")], "outlines": []}}),
        ("predictions", {"main": {"boxes": [], "scores": [], "outlines": [], "point": [1]}}),
    ],
)
def test_values_of_examples_are_checked(key: str, value: object, tmp_path: Path) -> None:
    folder = make_run(tmp_path, 0)
    file = folder / "examples" / "val" / "examples.json"
    info = json.loads(file.read_text())
    info["examples"][0][key] = value
    file.write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"examples\.json: damaged"):
        write_page(store.find([folder]), tmp_path / "out", [])


def test_files_that_are_links_out_of_the_run_folder(tmp_path: Path) -> None:
    folder = make_run(tmp_path, 0)
    for name in ("logs/metrics.csv", "examples/val/examples.json"):
        file = folder / name
        moved = tmp_path / file.name
        file.rename(moved)
        file.symlink_to(moved)
        with pytest.raises(UserError, match="a link out of the folder"):
            write_page(store.find([folder]), tmp_path / "out", [])
        file.unlink()
        moved.rename(file)
    write_page(store.find([folder]), tmp_path / "out", [])


def test_the_policy_keeps_markup_from_running(browser: Browser, page: Path, tmp_path: Path) -> None:
    """Markup that got into the page all the same (here by force) does not run, and nothing is loaded."""
    text = page.read_text()
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/]{43}=';", text) and "default-src 'none'" in text
    inside = "<img src=x onerror=\"document.title='ran'\"><script>document.title='ran'</script><base href=//evil/>"
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace("</header>", f"{inside}<img src=http://127.0.0.1:9/x></header>"))
    browser.open(broken)
    browser.run(
        "const b = document.createElement('b'); b.setAttribute('onclick', 'document.title = \"ran\"'); b.click()"
    )
    assert browser.run("document.title") == "VGBench leaderboard"
    assert browser.run("document.baseURI").startswith("file:")
    assert browser.run("document.querySelectorAll('#table-list table').length") > 0  # our own script did run
    assert any("Content Security Policy" in problem for problem in browser.problems)
    browser.problems.clear()
    browser.open(page)


def test_sorting_and_filtering_in_a_browser(browser: Browser) -> None:
    assert browser.run(LABELS) == ["gamma", "beta", "alpha"]  # the best comes first
    first_head = "document.querySelector('#table-list thead th:nth-child(2) button')"
    browser.run(f"{first_head}.click()")
    assert browser.run(LABELS) == ["alpha", "beta", "gamma"]
    assert browser.run(f"{first_head}.parentElement.ariaSort") == "ascending"
    assert browser.run(f"document.activeElement === {first_head}")  # the keyboard stays where it was
    browser.run("document.querySelector('#table-list thead th button').click()")
    assert browser.run(LABELS) == ["alpha", "beta", "gamma"]

    titles = "[...document.querySelectorAll('#table-list h3')].map(title => title.textContent)"
    assert browser.run(titles) == [
        "REC on real data: refcoco unc",
        "REC on embedded (rendered) data: refshapes",
    ]
    strong = "[...document.querySelectorAll('#table-list strong')].map(cell => cell.textContent)"
    assert browser.run(strong) == ["80.00", "80.00"]

    def choose(name: str, value: str) -> None:
        browser.run(
            f"document.getElementById('{name}').value = '{value}';"
            f"document.getElementById('{name}').dispatchEvent(new Event('input', {{bubbles: true}}))"
        )

    choose("search", "gam")
    assert browser.run(LABELS) == ["gamma"]
    choose("search", "")
    choose("kind", "embedded")
    assert browser.run(titles) == ["REC on embedded (rendered) data: refshapes"]
    heads = "[...document.querySelectorAll('#table-list thead th')].map(head => head.textContent)"
    assert browser.run(heads)[:2] == ["Method", "val Prec@0.5"]
    browser.run("document.getElementById('all-metrics').click(); document.getElementById('controls').click()")
    assert browser.run(heads)[1:4] == ["val Prec@0.5", "val Prec@0.5 [shuffled text]", "val mIoU"]
    browser.run("document.getElementById('all-metrics').click(); document.getElementById('controls').click()")
    choose("kind", "")
    assert browser.problems == []


def test_charts_in_a_browser(browser: Browser) -> None:
    sections = "[...document.querySelectorAll('#sections a')].map(link => link.hash)"
    assert browser.run(sections) == ["#tables", "#published", "#cost", "#curves", "#slices", "#examples"]
    marks = "[...document.querySelectorAll('#cost-size svg[role=group] path[role=img]')].map(mark => mark.ariaLabel)"
    assert browser.run(marks)[0] == "alpha on a CPU, 2 cores: parameters 100k, Prec@0.5 60.00"
    (price,) = browser.run(marks.replace("cost-size", "cost-price"))
    assert price == "beta on a CPU, 2 cores: US dollars per 1,000 expressions 2, Prec@0.5 70.00"
    assert browser.run("getComputedStyle(document.getElementById('cost-latency')).display") == "none"  # nothing in it
    assert "overlaps with its" in browser.run("document.getElementById('count').textContent")
    assert browser.run("document.querySelectorAll('#published-chart path[role=img]').length") == 1
    assert "-2.00" in browser.run("document.querySelector('#published-table tbody').textContent")
    assert browser.run("document.querySelectorAll('#curve-chart svg[role=group] > path').length") >= 3
    assert browser.run("document.querySelectorAll('#slice-bars .bar').length") == 6
    assert browser.run("document.querySelector('#published-table .scroll').tabIndex") == 0  # scrolls by keyboard
    numbers = browser.run("[...document.querySelectorAll('main svg')].map(svg => svg.outerHTML).join()")
    assert "NaN" not in numbers and "Infinity" not in numbers and "undefined" not in numbers
    assert browser.problems == []


def test_the_error_browser_by_mouse_and_keyboard(browser: Browser) -> None:
    cards = "[...document.querySelectorAll('.card')].map(card => card.querySelector('span.verdict').textContent)"
    assert browser.run(cards) == ["1 of 3 right", "2 of 3 right"]
    browser.run("document.getElementById('examples').scrollIntoView()")
    images = "[...document.querySelectorAll('.card .picture > img')]"
    widths = f"Promise.all({images}.map(image => image.decode().then(() => image.naturalWidth)))"
    assert browser.run(widths) == [64, 64]
    browser.run("document.querySelector('.card').focus()")
    browser.send(
        "Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
    )
    browser.send("Input.dispatchKeyEvent", type="keyUp", key="Enter", code="Enter", windowsVirtualKeyCode=13)
    browser.wait("document.getElementById('viewer').open")
    captions = "[...document.querySelectorAll('#viewer figcaption')].map(caption => caption.textContent)"
    texts = browser.run(captions)
    assert [text.split(":")[0] for text in texts[1::2]] == [
        f"{name}{'✓' if name == 'alpha' else '✗'} {verdict} · score 0.80 · IoU {iou}"
        for name, verdict, iou in (("alpha", "right", "1.00"), ("beta", "wrong", "0.00"), ("gamma", "wrong", "0.00"))
    ]
    assert texts[2::2] == [f"{name}: heat map" for name in METHODS]
    title = "document.getElementById('viewer-title').textContent"
    assert browser.run(title) == f"{EVIL} (1 of 2)"  # as text, not as markup
    browser.press("ArrowRight", 39)
    browser.wait(f"{title}.endsWith('(2 of 2)')")
    browser.press("Escape", 27)
    assert browser.run("!document.getElementById('viewer').open")
    browser.run(
        "document.getElementById('example-filter').value = 'disagree';"
        "document.getElementById('example-filter').dispatchEvent(new Event('input'))"
    )
    assert browser.run("document.querySelectorAll('.card').length") == 2
    assert browser.problems == []


def test_phone_and_dark_mode(browser: Browser) -> None:
    browser.send("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    assert browser.run("document.documentElement.scrollWidth") <= 360  # tables scroll inside, the page does not
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    ink, paper = browser.run("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    assert sum(map(int, re.findall(r"\d+", ink)[:3])) > 600 > 120 > sum(map(int, re.findall(r"\d+", paper)[:3]))
    browser.send("Emulation.setEmulatedMedia", features=[])
    browser.send("Emulation.clearDeviceMetricsOverride")
    assert browser.problems == []


def test_columns_links_and_smoothing_in_a_browser(browser: Browser, page: Path) -> None:
    cells = "document.querySelectorAll('#table-list table')[0].querySelectorAll('thead th')"
    heads = f"[...{cells}].map((head) => head.innerText.replace(/ .$/, ''))"
    assert "Run" not in browser.run(heads)
    browser.run("document.getElementById('column-run').click()")
    assert "Run" in browser.run(heads)
    assert "column-run=true" in browser.run("location.hash")
    browser.open(Path(f"{page}"))
    browser.run("location.hash = '#tables?search=gamma&column-device=true'")
    browser.run("window.dispatchEvent(new HashChangeEvent('hashchange'))")
    assert browser.run(LABELS) == ["gamma"] and "Device" in browser.run(heads)
    sticky = "getComputedStyle(document.querySelector('#table-list thead th')).position"
    assert browser.run(sticky) == "sticky"
    path = "document.querySelector('#curve-chart path').getAttribute('d')"
    before = browser.run(path)
    browser.run(
        "const range = document.getElementById('smoothing'); range.value = 90;"
        "range.dispatchEvent(new Event('input', { bubbles: true }))"
    )
    assert browser.run(path) != before
    assert browser.problems == []
    browser.open(page)
