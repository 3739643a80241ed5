from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from tests.browser import Browser
from vgbench.cli.main import main
from vgbench.data.additional import AdditionalData
from vgbench.data.table import AnnotationTable
from vgbench.pictures.browse import SIDE, browse

EVIL = '<script>alert("1")</script> & "the" <b>cup</b>'


def row(number: int, image: str, text: str, boxes: list[list[float]], masked: bool = False) -> dict[str, Any]:
    masks = []
    for x1, y1, x2, y2 in boxes if masked else []:
        mask = np.zeros((300, 600), np.uint8, order="F")
        mask[int(y1) : int(y2), int(x1) : int(x2)] = 1
        masks.append(rle.encode(mask)["counts"].decode())
    return {
        "key": f"k{number}", "image_id": 1, "image": image, "width": 600, "height": 300, "expression": text,
        "boxes": boxes, "masks": masks, "polygons": [0] * len(masks), "ann_ids": [], "categories": ["cup"] * len(boxes),
        "ref_id": None, "sent_id": None, "group": number, "source": "test", "split": "train",
    }  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> AnnotationTable:
    Image.new("RGB", (600, 300), (200, 10, 10)).save(tmp_path / "a.png")
    Image.new("RGB", (600, 300), (10, 10, 200)).save(tmp_path / "b.png")
    cup, plate = [60.0, 30.0, 120.0, 90.0], [300.0, 100.0, 500.0, 250.0]
    rows = [
        row(0, "a.png", "left cup", [cup], masked=True),
        row(1, "b.png", EVIL, [plate]),
        row(2, "a.png", "cup at the left", [cup], masked=True),
        row(3, "a.png", "both", [cup, plate], masked=True),
        row(4, "a.png", "nothing there", []),
        row(5, "gone.png", "lost", [plate]),
    ]
    return AnnotationTable.from_rows(rows, {"dataset": "x", "split": "train", "task": "grec", "sources": {}})


class Page(HTMLParser):
    """Elements with their attributes, and the text of every list item."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.items: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "li":
            self.items.append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag != "li"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.items[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_page_shows_what_is_in_the_table(table: AnnotationTable, tmp_path: Path) -> None:
    file = browse([("Some <data>", table, lambda name: tmp_path / name)], tmp_path / "sheet")
    text = file.read_text("utf-8")
    page = Page(text)
    assert len(page.all("figure")) == 3 and "3 of 3 images, 6 of 6 expressions" in text
    assert sorted(page.items) == sorted(
        ["1 left cup", "1 cup at the left", "12 both", "no target nothing there", f"1 {EVIL}", "1 lost"]
    )
    assert text.count("<script>") == 1 and "Some &lt;data&gt;" in text
    boxes = [(box["x"], box["y"], box["width"], box["height"]) for box in page.all("rect")]
    assert boxes.count(("60.0", "30.0", "60", "60")) == 1, "one object, however many expressions mean it"
    assert boxes.count(("300.0", "100.0", "200", "150")) == 3
    outlines = [path["d"] or "" for path in page.all("path")]
    assert len(outlines) == 2
    numbers = np.array(re.findall(r"(\d+),(\d+)", outlines[0]), dtype=int)
    assert numbers.min(0).tolist() == [60, 30] and numbers.max(0).tolist() == [119, 89]
    pictures = [image["href"] or "" for image in page.all("image")]
    assert len(pictures) == 2 and f"{tmp_path / 'gone.png'}: image is missing" in text
    for source in pictures:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
            assert image.size == (SIDE, SIDE // 2)


def test_page_needs_nothing_from_elsewhere(table: AnnotationTable, tmp_path: Path) -> None:
    text = browse([("x", table, lambda name: tmp_path / name)], tmp_path / "sheet").read_text("utf-8")
    assert [path.name for path in (tmp_path / "sheet").iterdir()] == ["index.html"]
    assert not re.search(r"(src|href)=[\"'](?!data:)", text) and "@import" not in text and "url(" not in text


def test_limit_counts_images_and_is_the_same_choice_always(table: AnnotationTable, tmp_path: Path) -> None:
    one = Page(browse([("x", table, lambda name: tmp_path / name)], tmp_path / "1", limit=1).read_text("utf-8"))
    again = table.take(list(reversed(range(len(table)))))
    two = Page(browse([("x", again, lambda name: tmp_path / name)], tmp_path / "2", limit=1).read_text("utf-8"))
    assert len(one.all("figure")) == 1 and sorted(one.items) == sorted(two.items)


def test_empty_table(table: AnnotationTable, tmp_path: Path) -> None:
    text = browse(
        [("x", table.take(np.zeros(0, dtype=int)), lambda name: tmp_path / name)], tmp_path / "sheet"
    ).read_text("utf-8")
    assert "0 of 0 images" in text


def test_command(table: AnnotationTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "made"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (600, 300)).save(folder / "images" / "a.png")
    AdditionalData.write(folder, table)
    assert main(["data", "browse", f"extra_train={folder}", f"out={tmp_path / 'sheet'}", "limit=2"]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == tmp_path / "sheet" / "index.html" and str(folder) in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dataset=refcoco"], "out= is missing"),
        (["out=sheet"], "dataset=NAME"),
        (["out=sheet", "dataset=refcoco"], "refcoco: no data_root given"),
        (["out=sheet", "dataset=refshapes", "limit=some"], "limit=some"),
        (["out=sheet", "dataset=refshapes", "split=nosuch"], "no split 'nosuch'"),
        (["out=sheet", "extra_train=nowhere"], "nowhere: holds no annotations.arrow"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "browse", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "annotations.arrow").write_bytes(b"something")
    assert main(["data", "browse", f"extra_train={tmp_path}", f"out={tmp_path / 'sheet'}"]) == 2
    assert "not an annotation table" in capsys.readouterr().err


def test_images_stay_in_their_folder(
    table: AnnotationTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(0, "../secret.png", "x", [])]
    AnnotationTable.from_rows(rows, table.info).save(tmp_path / "annotations.arrow")
    assert main(["data", "browse", f"extra_train={tmp_path}", f"out={tmp_path / 'sheet'}"]) == 2
    assert "leaves the image folder" in capsys.readouterr().err


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a table in which everything that is text is markup: names, expressions, keys, categories, the title."""
    folder = tmp_path_factory.mktemp("evil")
    name = "a\"><script>document.title='ran'</script><img src=x onerror=document.title='ran'>.png"
    image = folder / name.replace("/", "_")
    Image.new("RGB", (600, 300), (200, 10, 10)).save(image)
    one = row(0, image.name, EVIL, [[60.0, 30.0, 120.0, 90.0]], masked=True)
    one |= {"key": "'\" onfocus=document.title='ran' autofocus x='", "categories": ["</title></svg>" + EVIL]}
    lost = row(1, "gone<b onmouseover=alert(1)>.png", "--><!--sections--><script>document.title='ran'</script>", [])
    table = AnnotationTable.from_rows([one, lost], {"dataset": "x", "split": "train", "task": "grec", "sources": {}})
    return browse([("</title><!--sections-->" + EVIL, table, lambda name: folder / name)], folder / "sheet")


def test_markup_is_text_in_a_browser(browser: Browser) -> None:
    assert browser.run("document.title.includes('<script>')") is True
    assert browser.run("document.querySelectorAll('script').length") == 1
    assert browser.run("document.querySelectorAll('figure').length") == 2
    assert browser.run("document.querySelectorAll('img, b[onmouseover], [onfocus], [onerror]').length") == 0
    assert browser.run("document.querySelector('li').textContent.includes('alert')") is True
    browser.run("document.getElementById('filter').value = 'alert'")
    browser.run("document.getElementById('filter').dispatchEvent(new Event('input'))")
    assert browser.run("document.getElementById('count').textContent") == "1 expressions"  # our own script runs
    assert browser.problems == []
