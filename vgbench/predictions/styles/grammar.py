"""Forms in which model families write boxes and points: readers that take a text and find them in it.

Every pattern is bounded, so that the time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from vgbench.predictions import numbers
from vgbench.predictions.numbers import Box

_LONGEST_PART = 20_000  # characters that are read of one marked part
_NUMBER = r"[-+]?(?:\d{1,12}(?:\.\d{0,25})?|\.\d{1,25})"
_GAP = r"[\s,;]{0,4}"


@dataclass
class Spots:
    """Boxes and points as they are written, in the order of the text.

    Attributes:
        boxes: four numbers each.
        points: two numbers each.
        form: order of the boxes' numbers where the text names them; None: that of the style.
        doubts: kinds of doubt.
    """

    boxes: list[Box] = field(default_factory=list)
    points: list[Box] = field(default_factory=list)
    form: str | None = None
    doubts: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.boxes or self.points)


Reader = Callable[[str], Spots]


def tagged(start: str, end: str) -> Reader:
    """Numbers between two marks: ``<box>(1,2),(3,4)</box>``, ``<box>[[1,2,3,4]]</box>``, ``<box>1 2 3 4</box>``.

    ``start`` and ``end`` are regular expressions; the second mark may be missing where an answer breaks off.
    """
    opening, closing = re.compile(start), re.compile(end)

    def read(text: str) -> Spots:
        spots = Spots()
        marks = list(opening.finditer(text))
        for index, mark in enumerate(marks):
            limit = marks[index + 1].start() if index + 1 < len(marks) else len(text)
            part = text[mark.end() : min(limit, mark.end() + _LONGEST_PART)]
            finish = closing.search(part)
            part = part[: finish.start()] if finish else part
            boxes = numbers.bracketed(part) or numbers.bare(part)
            spots.boxes += boxes
            if not boxes:
                spots.points += numbers.pairs(part)
        return spots

    return read


def keyed(boxes: tuple[str, ...], points: tuple[str, ...] = ()) -> Reader:
    """Lists below keys of JSON objects, valid JSON or not: ``{"bbox_2d": [1, 2, 3, 4], "label": "cup"}``.

    Read by the key instead of parsing the whole, so that prose, code fences, single quotes, comments and an end that
    is missing do no harm. A list of several boxes below one key gives all of them.
    """
    values = r"[\"']?\s{0,8}:\s{0,8}([\[\](){}\d\s.,eE+-]{2,4000})"
    box_key = re.compile(rf"[\"'](?:{'|'.join(map(re.escape, boxes))}){values}")
    point_key = re.compile(rf"[\"'](?:{'|'.join(map(re.escape, points))}){values}") if points else None

    def read(text: str) -> Spots:
        found = [box for match in box_key.finditer(text) for box in numbers.bracketed(match[1])]
        if found or point_key is None:
            return Spots(found)
        return Spots(points=[pair for match in point_key.finditer(text) for pair in numbers.pairs(match[1])])

    return read


def tokens(pattern: str) -> Reader:
    """Runs of location tokens, four to a box: ``<loc_1><loc_2><loc_3><loc_4>``; a run of two is a point.

    ``pattern``: a regular expression for one token with the number as its one group.
    """
    token = re.compile(pattern)
    run = re.compile(rf"(?:{pattern.replace('(', '(?:', 1)}{_GAP}){{2,400}}")

    def read(text: str) -> Spots:
        spots = Spots()
        for match in run.finditer(text):
            values = [float(value) for value in token.findall(match[0])]
            if len(values) == 2:
                spots.points.append(values)
                continue
            spots.boxes += [values[place : place + 4] for place in range(0, len(values) - 3, 4)]
            if len(values) % 4:
                spots.doubts.append("answers hold location tokens that are no multiple of four; the last were left out")
        return spots

    return read


def patches(text: str) -> Spots:
    """Pairs of patches: ``<patch_index_0044><patch_index_0863>``, in cells of a grid of 32 x 32."""
    reading = numbers.boxes_in(text, "xyxy") if "<patch_index_" in text else numbers.Words([])
    return Spots(reading.boxes if reading.cells else [], form="xyxy")


def brackets(text: str) -> Spots:
    """``[1, 2, 3, 4]``, ``[[1, 2, 3, 4]]`` and ``(1, 2), (3, 4)`` anywhere."""
    return Spots(numbers.bracketed(text))


def bracketed_points(text: str) -> Spots:
    """``(1, 2)`` and ``[1, 2]`` anywhere."""
    return Spots(points=numbers.pairs(text))


def named(text: str) -> Spots:
    """``{"x_min": 1, "y_min": 2, "x_max": 3, "y_max": 4}`` in any order."""
    return Spots(numbers.named(text, "xyxy").boxes, form="xyxy")


_TAG = re.compile(r"<points?\s([^>]{1,4000})>?")
_X, _Y = (re.compile(rf"\b{axis}(\d{{0,3}})\s?=\s?[\"']?\s?({_NUMBER})") for axis in "xy")
_COORDS = re.compile(r"\bcoords\s?=\s?[\"']([^\"'>]{1,4000})")


def point_tags(text: str) -> Spots:
    """``<point x="10.5" y="20.1" alt="cup">`` and ``<points x1="..." y1="..." x2="..." y2="...">``."""
    spots = Spots()
    for tag in _TAG.finditer(text):
        x_of, y_of = ({name: float(value) for name, value in axis.findall(tag[1])} for axis in (_X, _Y))
        spots.points += [[x_of[name], y_of[name]] for name in x_of if name in y_of]
    return spots


def point_lists(text: str) -> Spots:
    """``<points coords="1 1 073 160 2 173 600">``: number of the image, then number, x and y of each point."""
    spots = Spots()
    for tag in _TAG.finditer(text):
        coords = _COORDS.search(tag[1])
        values = [float(value) for value in re.findall(_NUMBER, coords[1])] if coords else []
        triples = values[1:]
        if not triples or len(triples) % 3:
            continue
        spots.points += [triples[place + 1 : place + 3] for place in range(0, len(triples), 3)]
    return spots
