"""Flickr30k Entities: the same phrases and boxes out of every layout, boxes merged or separate."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vgbench.config.compose import compose
from vgbench.core.errors import UserError
from vgbench.datasets.mixed import Flickr30k
from vgbench.metrics.evaluator import evaluate_predictions
from vgbench.predictions.table import Predictions
from vgbench.types import Prediction

WIDTH, HEIGHT = 64, 48
BOXES = {"7": [[5, 5, 15, 15], [30, 8, 40, 20]], "8": [[50, 40, 54, 44]]}  # entity -> xyxy
TYPES = {"7": ["animals"], "8": ["other"], "9": ["scene"]}
# per sentence: words between phrases, and phrases (entity, words)
SENTENCES: list[list[Any]] = [
    [("7", "Two dogs"), "chase", ("8", "a red ball"), "in", ("9", "a park"), "."],
    [("8", "The toy"), "rolls ."],
]
PHRASES = [part for sentence in SENTENCES for part in sentence if isinstance(part, tuple) and part[0] in BOXES]


def around(entity: str) -> list[int]:
    boxes = BOXES[entity]
    low, high = min(b[0] for b in boxes), max(b[2] for b in boxes)
    return [low, min(b[1] for b in boxes), high, max(b[3] for b in boxes)]


def write_entities(root: Path) -> None:
    for folder in ("Sentences", "Annotations"):
        (root / "flickr30k_entities" / folder).mkdir(parents=True)
    (root / "flickr30k_entities" / "val.txt").write_text("36979\n")
    lines = []
    for sentence in SENTENCES:
        parts = [p if isinstance(p, str) else f"[/EN#{p[0]}/{'/'.join(TYPES[p[0]])} {p[1]}]" for p in sentence]
        lines.append(" ".join(parts))
    (root / "flickr30k_entities" / "Sentences" / "36979.txt").write_text("\n".join(lines) + "\n")
    xml = f"<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    for entity, boxes in BOXES.items():
        for box in boxes:
            corners = "".join(
                f"<{name}>{value + 1}</{name}>"
                for name, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
            )
            xml += f"<object><name>{entity}</name><bndbox>{corners}</bndbox></object>"
    xml += "<object><name>9</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>"
    (root / "flickr30k_entities" / "Annotations" / "36979.xml").write_text(xml)


def infoground() -> tuple[dict[str, Any], dict[str, Any]]:
    sentences = []
    for sentence in SENTENCES:
        words, phrases = "", []
        for part in sentence:
            text = part if isinstance(part, str) else part[1]
            if not isinstance(part, str):
                index = len(words.split())
                known = {"first_word_index": index, "phrase": text, "phrase_id": part[0], "phrase_type": TYPES[part[0]]}
                phrases.append(known)
            words = f"{words} {text}".strip()
        sentences.append({"sentence": words, "phrases": phrases})
    boxes = {"boxes": BOXES, "scene": ["9"], "nobox": [], "width": WIDTH, "height": HEIGHT, "depth": 3}
    return {"36979": sentences}, {"36979": boxes}


def write_infoground(root: Path) -> None:
    for name, content in zip(("sentences", "bounding_boxes"), infoground(), strict=True):
        (root / f"{name}_val.json").write_text(json.dumps(content))


def mdetr(merged: bool) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, sentence in enumerate(SENTENCES):
        caption = ""
        for part in sentence:
            text = part if isinstance(part, str) else part[1]
            start = len(caption) + bool(caption)
            caption = f"{caption} {text}".strip()
            if isinstance(part, str) or part[0] not in BOXES:
                continue
            for x1, y1, x2, y2 in [around(part[0])] if merged else BOXES[part[0]]:
                box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "tokens_positive": [[start, start + len(text)]]}
                annotations.append({"id": len(annotations), "image_id": number, "category_id": 1, "iscrowd": 0, **box})
        images.append({"id": number, "file_name": "36979.jpg", "width": WIDTH, "height": HEIGHT, "caption": caption})
    return {"images": images, "annotations": annotations, "categories": []}


def write_separate(root: Path) -> None:
    (root / "final_flickr_separateGT_val.json").write_text(json.dumps(mdetr(False)))


def write_merged(root: Path) -> None:
    (root / "final_flickr_mergedGT_val.json").write_text(json.dumps(mdetr(True)))


def write_transvg(root: Path) -> None:
    (root / "flickr").mkdir()
    torch.save([("36979.jpg", around(entity), text) for entity, text in PHRASES], root / "flickr" / "flickr_val.pth")
    (root / "flickr30k_images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "flickr30k_images" / "36979.jpg")


def write_seqtr(root: Path) -> None:
    entries = []
    for entity, text in PHRASES:
        x1, y1, x2, y2 = around(entity)
        head = {"image_id": 36979, "width": WIDTH, "height": HEIGHT, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        entries.append({**head, "expressions": [text]})
    (root / "flickr30k").mkdir()
    (root / "flickr30k" / "instances.json").write_text(json.dumps({"val": entries}))


WRITERS = {
    **{"entities": write_entities, "infoground": write_infoground, "separate": write_separate},
    **{"merged": write_merged, "transvg": write_transvg, "seqtr": write_seqtr},
}


def content(table: Any) -> list[Any]:
    return sorted((r.image_id, r.image, r.width, r.height, r.expression, r.boxes.tolist(), r.source) for r in table)


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_same_phrases(tmp_path: Path, layout: str) -> None:
    WRITERS[layout](tmp_path)
    table = Flickr30k(tmp_path, cache_dir=tmp_path / "cache").load("val")
    head = (36979, "36979.jpg", WIDTH, HEIGHT)
    assert content(table) == sorted((*head, text, [around(entity)], "flickr") for entity, text in PHRASES)
    assert table.info["task"] == "rec"


def test_amc_points_into_any_box_of_a_phrase() -> None:
    config = compose(["method=amc", "dataset=flickr30k"])
    assert config.dataset.boxes == "separate"
    assert "pointing" in Flickr30k(boxes=config.dataset.boxes).tasks


@pytest.mark.parametrize("layout", ["entities", "infoground", "separate"])
def test_separate_boxes(tmp_path: Path, layout: str) -> None:
    WRITERS[layout](tmp_path)
    data = Flickr30k(tmp_path, boxes="separate", cache_dir=tmp_path / "cache")
    table = data.load("val")
    head = (36979, "36979.jpg", WIDTH, HEIGHT)
    assert content(table) == sorted((*head, text, BOXES[entity], "flickr") for entity, text in PHRASES)
    assert (table.info["task"], data.tasks) == ("phrase", ("phrase", "pointing"))
    if layout != "separate":  # MDETR's files do not tell the types
        assert sorted(set(row.categories) for row in table) == [{"animals"}, {"other"}, {"other"}]


def test_any_box_is_right_only_where_boxes_are_separate(tmp_path: Path) -> None:
    write_entities(tmp_path)
    scores = {}
    for boxes in ("separate", "merged"):
        table = Flickr30k(tmp_path, boxes=boxes, cache_dir=tmp_path / "cache").load("val")
        second = torch.tensor([[30.0, 8.0, 40.0, 20.0]])  # one of the two dogs, for every phrase
        found = [Prediction(boxes=second, scores=torch.ones(1)) for _ in range(len(table))]
        predictions = Predictions.from_list(table.column("key").tolist(), found)
        scores[boxes] = evaluate_predictions(table, predictions, bootstrap=0).values
    assert scores["separate"]["phrase/recall@1"] == pytest.approx(100 / 3)
    assert scores["merged"]["rec/prec@0.5"] == 0


def test_layouts_without_separate_boxes_are_refused(tmp_path: Path) -> None:
    write_transvg(tmp_path)
    with pytest.raises(UserError, match=r"flickr30k_entities/.*data list dataset=flickr30k"):
        Flickr30k(tmp_path, boxes="separate").load("val")
    with pytest.raises(UserError, match="use merged or separate"):
        Flickr30k(tmp_path, boxes="some")
