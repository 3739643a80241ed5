"""Boxes and points in a text: names, tokens, brackets or bare numbers.

Every pattern is bounded, so that the time is linear in the length of the text, whatever it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Box = list[float]

# Four numbers as models and tools order them, and what a message calls them.
FORMS = {
    "xyxy": "x1, y1, x2, y2",
    "xywh": "x, y, width, height",
    "yxyx": "y1, x1, y2, x2",
    "yxhw": "y, x, height, width",
    "cxcywh": "centre x, centre y, width, height",
    "xxyy": "x1, x2, y1, y2",
}

_NUMBER = r"[-+]?(?:\d{1,12}(?:\.\d{0,25})?|\.\d{1,25})(?:[eE][-+]?\d{1,3})?"
_UNIT = r"(?:\s?px|\s?%)?"
_SEPARATOR = r"(?:\s{0,8}[,;]\s{0,8}|\s{1,8})"
_PAIR = rf"({_NUMBER}){_UNIT}{_SEPARATOR}({_NUMBER}){_UNIT}"
_OPEN, _CLOSE = r"[\[({<>|]\s{0,8}", r"\s{0,8}[\])}<>|]"
_FLAT = re.compile(rf"{_OPEN}{_PAIR}{_SEPARATOR}{_PAIR}{_CLOSE}")
_CORNERS = re.compile(
    rf"[\[(<]\s{{0,8}}{_PAIR}\s{{0,8}}[\])>]\s{{0,8}}(?:,|;|and\b|to\b|-|–|->|→)?\s{{0,8}}[\[(<]\s{{0,8}}{_PAIR}\s{{0,8}}[\])>]"
)
_NEXT_BOX = re.compile(
    rf"((?:{_NUMBER}\s{{0,4}},\s{{0,4}}){{3}}{_NUMBER})\s{{0,4}};\s{{0,4}}(?=[-+.\d])"
)  # [1,2,3,4;5,6,7,8]
_LONGER = re.compile(rf"[\[(]\s{{0,4}}{_NUMBER}(?:\s{{0,4}}[,\s]\s{{0,4}}{_NUMBER}){{4,40}}\s{{0,4}}[\])]")
_BRACKETED_PAIR = re.compile(rf"[\[(<]\s{{0,8}}{_PAIR}\s{{0,8}}[\])>]")
_ANGLES = re.compile(r"\s{0,4}".join([rf"<\s?({_NUMBER})\s?>"] * 4))
_GAP = r"[\s,;()\[\]<>{}]{1,40}"
_BARE = re.compile(rf"(?<![\w.]){_GAP.join([f'({_NUMBER})'] * 4)}(?!\.?\d)")
_LOCATION = re.compile(r"[\s,]{0,4}".join([r"<\|?(?:loc|bin|coord|box|pos)[_-]?(\d{1,5})\|?>"] * 4))
_PATCHES = re.compile(r"<patch_index_(\d{1,4})>\s{0,4}<patch_index_(\d{1,4})>")
PATCH_CELLS = 32  # cells per side that Kosmos-2 numbers

_NAME = r"(?<![A-Za-z0-9])([A-Za-z][A-Za-z0-9_ -]{0,15})[\"'`*]{0,3}\s{0,4}[:=]\s{0,4}[\"'`*]{0,3}"
_NAMED = re.compile(rf"{_NAME}({_NUMBER})(?!\.?\d)")
_NAMED_PAIR = re.compile(  # "top-left corner (10, 20)", "center": [10, 20]
    r"(?<![A-Za-z0-9])([A-Za-z][A-Za-z0-9_ -]{0,15}?)(?:\scorner)?[\"'`*]{0,3}\s{0,4}(?:[:=]|is\b|at\b)?\s{0,4}"
    rf"[\[(]\s{{0,8}}{_PAIR}\s{{0,8}}[\])]"
)
_NAMES = {
    ("x1", "y1", "x2", "y2"): "xyxy",
    ("x0", "y0", "x1", "y1"): "xyxy",
    ("xmin", "ymin", "xmax", "ymax"): "xyxy",
    ("minx", "miny", "maxx", "maxy"): "xyxy",
    ("left", "top", "right", "bottom"): "xyxy",
    ("l", "t", "r", "b"): "xyxy",
    ("xtl", "ytl", "xbr", "ybr"): "xyxy",
    ("x", "y", "width", "height"): "xywh",
    ("x", "y", "w", "h"): "xywh",
    ("left", "top", "width", "height"): "xywh",
    ("xmin", "ymin", "width", "height"): "xywh",
    ("cx", "cy", "width", "height"): "cxcywh",
    ("cx", "cy", "w", "h"): "cxcywh",
    ("xcenter", "ycenter", "width", "height"): "cxcywh",
    ("xcenter", "ycenter", "w", "h"): "cxcywh",
    ("centerx", "centery", "width", "height"): "cxcywh",
    ("centerx", "centery", "w", "h"): "cxcywh",
    ("xc", "yc", "w", "h"): "cxcywh",
}
_NAME_SETS = {frozenset(names): (names, form) for names, form in _NAMES.items()}
_PAIR_NAMES = {
    ("topleft", "bottomright"): "xyxy",
    ("upperleft", "lowerright"): "xyxy",
    ("lefttop", "rightbottom"): "xyxy",
    ("tl", "br"): "xyxy",
    ("min", "max"): "xyxy",
    ("start", "end"): "xyxy",
    ("center", "size"): "cxcywh",
    ("centre", "size"): "cxcywh",
    ("topleft", "size"): "xywh",
    ("origin", "size"): "xywh",
}


@dataclass
class Words:
    """What was read in an answer.

    Attributes:
        boxes: four numbers each, in the order of ``form``.
        form: one of :data:`FORMS`; None: as the user states it.
        cells: the numbers are cells of :data:`PATCH_CELLS` per side.
        doubts: kinds of doubt, for counts in the record.
    """

    boxes: list[Box]
    form: str | None = None
    cells: bool = False
    doubts: list[str] = field(default_factory=list)


def boxes_in(text: str, form: str) -> Words:
    """Named coordinates bind before location tokens, these before brackets, and these before bare numbers."""
    for read in (named, _tokens):
        reading = read(text, form)
        if reading.boxes:
            return reading
    doubts = ["answers hold brackets of more than four numbers"] if _LONGER.search(text) else []
    boxes = bracketed(text)
    if boxes:
        return Words(boxes, doubts=doubts)
    boxes = bare(text)
    others = len(re.findall(rf"(?<![\w.]){_NUMBER}", text)) > 4 * len(boxes) or re.search(r"\d\s{0,4}[\[(]", text)
    if boxes and others:
        doubts.append("answers have numbers beside the four that were taken as a box")
    return Words(boxes, doubts=doubts if boxes else [])


def named(text: str, form: str) -> Words:
    """Boxes whose coordinates have names: pairs of corners, or one name for each number."""
    corner_pairs = _named_pairs(text, form)
    return corner_pairs if corner_pairs.boxes else _named(text, form)


def bracketed(text: str) -> list[Box]:
    """Four numbers each, in brackets: ``[1, 2, 3, 4]``, ``(1, 2), (3, 4)``, ``<1><2><3><4>``, as they come."""
    text = _NEXT_BOX.sub(r"\1],[", text)
    places = {match.start(): match for pattern in (_CORNERS, _ANGLES, _FLAT) for match in pattern.finditer(text)}
    ordered = [places[start] for start in sorted(places)]
    apart = [match for index, match in enumerate(ordered) if not index or match.start() >= ordered[index - 1].end()]
    return [_floats(match.groups()) for match in apart]


def bare(text: str) -> list[Box]:
    """Four numbers in a row each, whatever stands around them."""
    return [_floats(match.groups()) for match in _BARE.finditer(text)]


def pairs(text: str) -> list[Box]:
    """Two numbers in brackets each, ``(1, 2)`` or ``[1, 2]``."""
    return [_floats(match.groups()) for match in _BRACKETED_PAIR.finditer(text)]


def _floats(values: tuple[str, ...]) -> Box:
    return [float(value) for value in values]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _named(text: str, form: str) -> Words:
    """``{"x1": 10, "y1": ...}``, ``xmin=10, ymin=...``: the names say which number is which, in any order."""
    found: list[tuple[str, Box]] = []
    window: list[tuple[str, float, int]] = []
    for match in _NAMED.finditer(text):
        name = _plain(match[1].split()[-1] if match[1].split() else "")
        if window and match.start() - window[-1][2] > 40:
            window = []
        window = [*window, (name, float(match[2]), match.end())][-4:]
        names = frozenset(item[0] for item in window)
        if len(window) == 4 and names in _NAME_SETS:
            order, kind = _NAME_SETS[names]
            values = {item[0]: item[1] for item in window}
            found.append((kind, [values[item] for item in order]))
            window = []
    return _of_one_form(found, form)


def _named_pairs(text: str, form: str) -> Words:
    """``{"top_left": [10, 20], "bottom_right": [30, 40]}``, ``center: (20, 30), size: (20, 20)``."""
    found: list[tuple[str, Box]] = []
    previous: tuple[str, Box] | None = None
    for match in _NAMED_PAIR.finditer(text):
        name, pair = _plain(match[1]), [float(match[2]), float(match[3])]
        kind = None
        if previous is not None:
            ends = (previous[0], name)
            kind = next((k for names, k in _PAIR_NAMES.items() if all(map(str.endswith, ends, names))), None)
        if kind is not None and previous is not None:
            found.append((kind, previous[1] + pair))
            previous = None
        else:
            previous = (name, pair)
    return _of_one_form(found, form)


def _of_one_form(found: list[tuple[str, Box]], form: str) -> Words:
    """Boxes as corners. ``x, y, w, h`` name the centre where the user says that four numbers are centre and size."""
    boxes = [corners(box, form if (kind, form) == ("xywh", "cxcywh") else kind) for kind, box in found]
    return Words(boxes, "xyxy")


def _tokens(text: str, form: str) -> Words:
    """``<loc_10><loc_20>...`` and ``<loc0010>...`` (order as stated), ``<patch_index_0044><patch_index_0863>``."""
    located = [_floats(match.groups()) for match in _LOCATION.finditer(text)]
    if located:
        return Words(located)
    cells = [patch_box(int(match[1]), int(match[2])) for match in _PATCHES.finditer(text)]
    return Words(cells, "xyxy", cells=True)


def patch_box(first: int, last: int) -> Box:
    """Two cells as Kosmos-2's processor reads them: from centre to centre, or edge to edge where they share a line."""
    x1, y1, x2, y2 = first % PATCH_CELLS, first // PATCH_CELLS, last % PATCH_CELLS, last // PATCH_CELLS
    if x1 == x2 or y1 == y2:
        return [float(x1), float(y1), float(x2 + 1), float(y2 + 1)]
    return [x1 + 0.5, y1 + 0.5, x2 + 0.5, y2 + 0.5]


def corners(box: Box, form: str) -> Box:
    """Four numbers in one of :data:`FORMS` as x1, y1, x2, y2."""
    a, b, c, d = box
    if form == "xywh":
        return [a, b, a + c, b + d]
    if form == "yxyx":
        return [b, a, d, c]
    if form == "yxhw":
        return [b, a, b + d, a + c]
    if form == "cxcywh":
        return [a - c / 2, b - d / 2, a + c / 2, b + d / 2]
    if form == "xxyy":
        return [a, c, b, d]
    return [a, b, c, d]
