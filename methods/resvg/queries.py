"""Queries on the relations of instances: "<relation> <category>" by the centres of their boxes.

Every query is checked by :func:`denotes`, which knows nothing of how it was made: it must be true of exactly one
instance, and not by a hair.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

__all__ = ["denotes", "plural", "pseudo_queries"]

RELATIONS = ("left", "middle", "right", "top", "bottom")
EXTENT = 0.1  # of the image: centres must spread at least so far for a relation along that axis (specification)
MARGIN = 0.04  # of the image: every comparison that a query rests on must be at least this clear (ours)


def pseudo_queries(boxes: np.ndarray, size: tuple[int, int], category: str) -> list[tuple[int, str]]:
    """The unambiguous queries on a scene.

    If the centres spread over more than a tenth of the width, the outermost get "left" and "right"; of exactly three
    the remaining one gets "middle", of more each remaining one gets "left", "right" or "middle" by the quarter that it
    lies in. The same along the height with "top" and "bottom". A word that several instances carry is not used.

    Args:
        boxes: [n, 4] xyxy pixels of all instances of the category.
        size: (width, height) of the image.

    Returns:
        (index of the instance, query) for each query that :func:`denotes` confirms.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    carriers: dict[str, list[int]] = defaultdict(list)
    for axis, (low, high) in enumerate((("left", "right"), ("top", "bottom"))):
        values, extent = centres[:, axis], size[axis]
        if len(values) < 2 or np.ptp(values) <= EXTENT * extent:
            continue
        first, last = int(values.argmin()), int(values.argmax())
        carriers[low].append(first)
        carriers[high].append(last)
        for index in range(len(values)) if axis == 0 else ():
            if index not in (first, last):
                if len(values) == 3 or extent / 4 <= values[index] <= 3 * extent / 4:
                    carriers["middle"].append(index)
                else:
                    carriers["left" if values[index] < extent / 4 else "right"].append(index)
    return [
        (indices[0], f"{word} {category}")
        for word, indices in carriers.items()
        if len(indices) == 1 and denotes(word, boxes, size) == indices[0]
    ]


def denotes(relation: str, boxes: np.ndarray, size: tuple[int, int]) -> int | None:
    """The one instance that a relation word clearly stands for, or None.

    "left", "right", "top", "bottom": the instance furthest that way, by :data:`MARGIN` of the image before the next
    one. "middle": of three instances the one between the others along the x axis, of more the only one that has
    others on both sides and lies within the central half; by the same margin from its neighbours.

    Args:
        relation: one of :data:`RELATIONS`.
        boxes: [n, 4] xyxy pixels of all instances of the category.
        size: (width, height) of the image.
    """
    axis = 0 if relation in ("left", "middle", "right") else 1
    values = [(box[axis] + box[axis + 2]) / 2 / size[axis] for box in np.asarray(boxes, dtype=np.float64).tolist()]
    order = sorted(range(len(values)), key=values.__getitem__)
    if len(order) < 2:
        return None
    if relation in ("left", "top"):
        return order[0] if values[order[1]] - values[order[0]] >= MARGIN else None
    if relation in ("right", "bottom"):
        return order[-1] if values[order[-1]] - values[order[-2]] >= MARGIN else None
    inner = order[1:-1]
    candidates = inner if len(order) == 3 else [index for index in inner if 0.25 <= values[index] <= 0.75]
    if len(candidates) != 1:
        return None
    rank = order.index(candidates[0])
    clear = min(values[order[rank]] - values[order[rank - 1]], values[order[rank + 1]] - values[order[rank]])
    return candidates[0] if clear >= MARGIN else None


def plural(noun: str) -> str:
    """Plural of a noun by the plain rules of English ("bus" -> "buses", "person" -> "people")."""
    irregular = {"person": "people", "man": "men", "woman": "women", "child": "children", "mouse": "mice"}
    irregular |= {"knife": "knives", "sheep": "sheep", "skis": "skis", "scissors": "scissors", "broccoli": "broccoli"}
    head, _, last = noun.rpartition(" ")
    if last in irregular:
        word = irregular[last]
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        word = f"{last}es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        word = f"{last[:-1]}ies"
    else:
        word = f"{last}s"
    return f"{head} {word}".strip()
