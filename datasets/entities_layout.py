"""The original release of Flickr30k Entities: marked-up sentences, one XML file of boxes per image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from vgbench.dataset import BadSample, check_size
from vgbench.datasets.layout import Layout, LayoutDataset, TargetReader, expression_of, folders
from vgbench.errors import UserError
from vgbench.table import AnnotationTable

PHRASE = re.compile(r"\[/EN#(\d+)/[^\s\]]+ ([^\]]*)\]")


class EntitiesLayout(Layout):
    """``Sentences/<image>.txt`` with marks ``[/EN#<id>/<type> <phrase>]``, ``Annotations/<image>.xml``, and lists of
    image numbers ``train.txt``, ``val.txt``, ``test.txt``. A phrase with several boxes gets the box around them, as in
    the phrase lists of other code; phrases without a box (scenes, not visible) are no expressions."""

    key = "entities"

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        if not data.files.entities:
            return None
        for folder in folders(data.data_root, ("flickr30k_entities", "Flickr30kEntities", "flickr30k")):
            if (folder / "Sentences").is_dir() and (folder / "Annotations").is_dir():
                lists = {split: folder / f"{split}.txt" for split in data.splits}
                there = {split: path for split, path in lists.items() if path.is_file()}
                if there:
                    return cls(data, there)
        return None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        return "flickr30k_entities/{Sentences, Annotations, SPLIT.txt}" if data.files.entities else ""

    def sources(self, split: str) -> list[Path]:
        path = self.files.get(split)
        return [] if path is None else [path, path.parent / "Sentences", path.parent / "Annotations"]

    def read(self, split: str) -> AnnotationTable:
        listing, sentences, annotations = self.sources(split)
        builder = self.data.builder(split, self)
        reader = TargetReader()
        groups: dict[tuple[int, int], int] = {}
        without_box = 0
        for number in _text(listing).split():
            where = sentences / f"{number}.txt"
            try:
                if not number.isdecimal() or len(number) > 18:
                    raise BadSample("image that is no number", repr(number)[:80])
                width, height, boxes = _read_xml(annotations / f"{number}.xml")
                lines = _text(where).splitlines()
            except BadSample as error:
                builder.skip(f"{listing}: {number}", error)
                continue
            for line, sentence in enumerate(lines):
                for index, (entity, phrase) in enumerate(PHRASE.findall(sentence)):
                    around = boxes.get(entity)
                    if around is None:
                        without_box += 1
                        continue
                    try:
                        found = reader.gather([{"box": around}], width, height, "xyxy")
                        text = expression_of(phrase)
                    except BadSample as error:
                        builder.skip(f"{where}: line {line + 1}", error)
                        continue
                    builder.add(
                        key=f"{number}.{line}.{index}",
                        image_id=int(number),
                        image=f"{number}.jpg",
                        width=width,
                        height=height,
                        expression=text,
                        group=groups.setdefault((int(number), int(entity)), len(groups)),
                        source=self.data.source,
                        **vars(found),
                    )
        builder.notes.append(f"{without_box:,} phrases have no box")
        return builder.table()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadSample("file is missing", str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable UTF-8 text ({error})") from None


def _read_xml(path: Path) -> tuple[int, int, dict[str, list[float]]]:
    """(width, height, entity id -> xyxy around all its boxes).

    Raises:
        BadSample: if the file is missing or not what it should be.
    """
    try:
        root = ElementTree.fromstring(_text(path))
    except (ElementTree.ParseError, ValueError) as error:
        raise BadSample("annotation that is not valid XML", f"{path}: {error}") from None
    width, height = check_size(_number(root, "size/width", path), _number(root, "size/height", path))
    boxes: dict[str, list[float]] = {}
    for item in root.iter("object"):
        box = item.find("bndbox")
        if box is None:
            continue
        x1, y1, x2, y2 = (float(_number(box, key, path)) for key in ("xmin", "ymin", "xmax", "ymax"))
        for name in item.iter("name"):
            old: Any = boxes.get(name.text or "", [x1, y1, x2, y2])
            boxes[name.text or ""] = [min(old[0], x1), min(old[1], y1), max(old[2], x2), max(old[3], y2)]
    return width, height, boxes


def _number(element: ElementTree.Element, key: str, path: Path) -> int:
    text = (element.findtext(key) or "").strip()
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise BadSample(f"no number <{key}>", f"{path}: {text[:40]!r}")
    return int(text)
