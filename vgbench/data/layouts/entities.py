"""The original release of Flickr30k Entities (marked-up sentences, one XML file of boxes per image), and info-ground's
JSON conversion of it."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file
from vgbench.data.builder import ImageRecord, TableBuilder, Targets
from vgbench.data.checks import BadSample, check_size, read_json, shown, take
from vgbench.data.layouts.base import Layout, LayoutDataset, folders
from vgbench.data.layouts.targets import TargetReader, expression_of, merge_boxes
from vgbench.data.table import AnnotationTable

PHRASE = re.compile(r"\[/EN#(\d+)/([^\s\]]+) ([^\]]*)\]")

Boxes = dict[str, list[Any]]  # entity -> its boxes, xyxy
Phrase = tuple[str, str, str]  # entity, types ("people/clothing"), words


class PhraseLayout(Layout):
    """Sentences whose noun phrases name entities, and the boxes of the entities. Phrases without a box (scenes, not
    visible) are no expressions. With ``data.boxes == "merged"`` an entity with several boxes gets the box around them,
    as in the phrase lists of other code; otherwise they stay apart."""

    @abstractmethod
    def images(self, split: str, builder: TableBuilder) -> Iterator[tuple[str, str]]:
        """(number of an image, where it is named) of each image of ``split``."""

    @abstractmethod
    def image(self, number: str, split: str) -> tuple[int, int, Boxes, list[list[Phrase]]]:
        """(width, height, boxes, phrases of each sentence).

        Raises:
            BadSample: if they are missing or not what they should be.
        """

    def read(self, split: str) -> AnnotationTable:
        """The phrases of ``split`` that have a box; those of one entity in one image are a group."""
        builder = self.data.builder(split, self)
        reader = TargetReader()
        groups: dict[tuple[str, str], int] = {}
        without_box = 0
        for number, where in self.images(split, builder):
            with builder.sample(f"{where}: {number}"):
                if not number.isdecimal() or len(number) > 18:
                    raise BadSample("image that is no number", shown(number))
                width, height, boxes, sentences = self.image(number, split)
                image = ImageRecord(int(number), f"{number}.jpg", width, height, self.data.source)
                for line, index, (entity, types, phrase) in _numbered(sentences):
                    if not boxes.get(entity):
                        without_box += 1
                        continue
                    with builder.sample(f"{where}: {number}, sentence {line + 1}"):
                        targets = self._targets(boxes[entity], types, image, reader)
                        text = expression_of(phrase)
                        group = groups.setdefault((number, entity), len(groups))
                        builder.add(f"{number}.{line}.{index}", image, text, targets, group)
        builder.notes.append(f"{without_box:,} phrases have no box")
        return builder.table()

    def _targets(self, boxes: list[Any], types: str, image: ImageRecord, reader: TargetReader) -> Targets:
        targets = [{"box": box, "category": types or None} for box in boxes]
        targets = targets if self.data.separate_boxes else [merge_boxes(targets, "xyxy")]
        return reader.gather(targets, image.width, image.height, "xyxy")


def _numbered(sentences: list[list[Phrase]]) -> Iterator[tuple[int, int, Phrase]]:
    """(number of the sentence, number in it, phrase)"""
    for line, phrases in enumerate(sentences):
        for index, phrase in enumerate(phrases):
            yield line, index, phrase


class EntitiesLayout(PhraseLayout):
    """``Sentences/<image>.txt`` with marks ``[/EN#<id>/<type> <phrase>]``, ``Annotations/<image>.xml``, and lists of
    image numbers ``train.txt``, ``val.txt``, ``test.txt``. Coordinates in the XML files count from 1; the authors'
    reader, like everything made with it, takes 1 from all four, and so does this one. Names: folders."""

    key = "entities"

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        for folder in folders(data.data_root, data.layout_names[cls.key]):
            if (folder / "Sentences").is_dir() and (folder / "Annotations").is_dir():
                lists = {split: folder / f"{split}.txt" for split in data.splits}
                lists = {split: path for split, path in lists.items() if path.is_file()}
                if lists:
                    return cls(data, lists)
        return None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        return f"{data.layout_names[cls.key][0]}/{{Sentences, Annotations, SPLIT.txt}}"

    def sources(self, split: str) -> list[Path]:
        path = self.files.get(split)
        return [] if path is None else [path, path.parent / "Sentences", path.parent / "Annotations"]

    def images(self, split: str, builder: TableBuilder) -> Iterator[tuple[str, str]]:
        listing = self.files[split]
        for number in _text(listing).split():
            yield number, str(listing)

    def image(self, number: str, split: str) -> tuple[int, int, Boxes, list[list[Phrase]]]:
        folder = self.files[split].parent
        width, height, boxes = _read_xml(folder / "Annotations" / f"{number}.xml")
        lines = _text(folder / "Sentences" / f"{number}.txt").splitlines()
        return width, height, boxes, [PHRASE.findall(line) for line in lines]


class InfoGroundLayout(PhraseLayout):
    """info-ground's ``sentences_<split>.json`` {image: [{sentence, phrases: [{phrase, phrase_id, phrase_type}]}]} and
    ``bounding_boxes_<split>.json`` {image: {boxes: {phrase_id: [[x1, y1, x2, y2], ...]}, width, height}}: what AMC's
    Flickr30k evaluation reads. Names: folders."""

    key = "infoground"

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        for folder in folders(data.data_root, data.layout_names[cls.key]):
            pairs = {
                split: (folder / f"sentences_{split}.json", folder / f"bounding_boxes_{split}.json")
                for split in data.splits
            }
            sentences = {split: pair[0] for split, pair in pairs.items() if all(path.is_file() for path in pair)}
            if sentences:
                return cls(data, sentences)
        return None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        return "{sentences_SPLIT.json, bounding_boxes_SPLIT.json} of info-ground"

    def sources(self, split: str) -> list[Path]:
        path = self.files.get(split)
        return [] if path is None else [path, path.with_name(f"bounding_boxes_{split}.json")]

    def _content(self, path: Path) -> dict[str, Any]:
        content = self.data.parse_file(path, read_json)
        if not isinstance(content, dict):
            raise UserError(f"{path}: holds a {type(content).__name__}, expected an object whose keys are images")
        return content

    def images(self, split: str, builder: TableBuilder) -> Iterator[tuple[str, str]]:
        path, boxes_path = self.sources(split)
        self._sentences, self._boxes = self._content(path), self._content(boxes_path)
        for number in self._sentences:
            yield number, str(path)

    def image(self, number: str, split: str) -> tuple[int, int, Boxes, list[list[Phrase]]]:
        record = take(self._boxes, number, dict)
        width, height = check_size(take(record, "width", int), take(record, "height", int))
        boxes = {entity: take(record["boxes"], entity, list) for entity in take(record, "boxes", dict)}
        sentences = []
        for sentence in take(self._sentences, number, list):
            phrases = []
            for phrase in take(sentence, "phrases", list):
                types = "/".join(map(str, take(phrase, "phrase_type", list)))
                phrases.append((str(take(phrase, "phrase_id", (str, int))), types, take(phrase, "phrase", str)))
            sentences.append(phrases)
        return width, height, boxes, sentences


def _text(path: Path) -> str:
    try:
        return ordinary_file(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadSample("file is missing", str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable UTF-8 text ({error})") from None


def _read_xml(path: Path) -> tuple[int, int, Boxes]:
    """(width, height, entity id -> its boxes, xyxy counted from 0).

    Raises:
        BadSample: if the file is missing or not what it should be.
    """
    text = _text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # the release has none, and entities can be made to grow without end
        raise BadSample("annotation with a document type", str(path))
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise BadSample("annotation that is not valid XML", f"{path}: {error}") from None
    width, height = check_size(_number(root, "size/width", path), _number(root, "size/height", path))
    boxes: Boxes = {}
    for item in root.iter("object"):
        box = item.find("bndbox")
        if box is None:
            continue
        corners = [float(_number(box, key, path)) - 1 for key in ("xmin", "ymin", "xmax", "ymax")]
        for name in item.iter("name"):
            boxes.setdefault(name.text or "", []).append(corners)
    return width, height, boxes


def _number(element: ElementTree.Element, key: str, path: Path) -> int:
    text = (element.findtext(key) or "").strip()
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise BadSample(f"no number <{key}>", f"{path}: {text[:40]!r}")
    return int(text)
