"""The words of a language model: which part of them is the answer, and the boxes in it."""

from __future__ import annotations

import math
import re
from collections import deque

from vgbench.predictions.numbers import Words, boxes_in

_WIDE = str.maketrans("，；：（）［］【】", ",;:()[][]")  # as models write them between Chinese words

LONGEST = 100_000  # characters that are read of one answer: answers are short, runaway ones are not
MOST = 100  # boxes that are read of one answer
LARGEST = 1e9  # no coordinate is larger

# What a model thinks before it answers ends with one of these.
_THOUGHT_ENDS = re.compile(r"</think(?:ing)?>|</reason(?:ing)?>|</thought>|</reflection>|◁/think▷|\[/THINK\]", re.I)
_THOUGHT_STARTS = re.compile(r"<think(?:ing)?>|<reason(?:ing)?>|<thought>|◁think▷|\[THINK\]", re.I)
# ... and the answer itself stands between two of these, or behind the first where the second is missing.
_ANSWER_START, _ANSWER_END = re.compile(r"<answer>", re.I), re.compile(r"</answer>", re.I)
_BOX_START, _BOX_END = "<|begin_of_box|>", "<|end_of_box|>"  # there may be a pair for each box
_LONGEST_BOX = 20_000  # characters between them
_ANSWER_WORDS = re.compile(r"\\boxed\s?\{|final answer|answer is\b|answer\W{0,4}:", re.I)


def read_words(text: str, form: str) -> Words:
    """The boxes of an answer.

    Args:
        text: the model's words.
        form: order of four numbers that have no names, one of :data:`~vgbench.predictions.numbers.FORMS`.
    """
    answer, doubts = answer_text(text)
    reading = boxes_in(answer, form)
    if len(reading.boxes) > MOST:
        doubts.append(f"answers hold more than {MOST} boxes, only the first {MOST} were read")
        reading.boxes = reading.boxes[:MOST]
    finite = [box for box in reading.boxes if all(math.isfinite(v) and abs(v) <= LARGEST for v in box)]
    if len(finite) < len(reading.boxes):
        doubts.append("answers hold a number that is no coordinate; its box was left out")
        reading.boxes = finite
    reading.doubts = doubts + reading.doubts
    return reading


def answer_text(text: str) -> tuple[str, list[str]]:
    """The part of a model's words that is its answer, with ASCII signs and no longer than it can be, and the doubts."""
    answer, doubt = answer_part(text.translate(_WIDE))
    doubts = [doubt] if doubt else []
    if len(answer) > LONGEST:
        doubts.append(f"answers are longer than {LONGEST} characters, only their start was read")
    return answer[:LONGEST], doubts


def answer_part(text: str) -> tuple[str, str | None]:
    """The part of a model's words that is its answer, and the doubt there is about that.

    What follows the reasoning counts, and of it the last part that is marked as the answer.
    """
    doubt = None
    ends = _last(_THOUGHT_ENDS, text)
    if ends:
        text = text[ends[-1].end() :]
    starts = _last(_ANSWER_START, text)
    if starts:
        text = text[starts[-1].end() :]
        closing = _ANSWER_END.search(text)
        text = text[: closing.start()] if closing else text
    parts = _box_parts(text)
    if starts or parts:
        return "\n".join(parts) if parts else text, doubt
    thought = _THOUGHT_STARTS.search(text)
    if thought:
        doubt = "answers break off in the reasoning, which was not read"
        return text[: thought.start()], doubt
    for mark in reversed(_last(_ANSWER_WORDS, text, 3)):
        rest = text[mark.end() :]
        if boxes_in(rest[:LONGEST], "xyxy").boxes:
            if boxes_in(text[: mark.start()][:LONGEST], "xyxy").boxes:
                doubt = "answers name boxes before the words 'answer' or 'boxed', which were not read"
            return rest, doubt
    return text, doubt


def _last(pattern: re.Pattern[str], text: str, count: int = 1) -> deque[re.Match[str]]:
    """The last matches of a pattern; those before them are not kept, of which a runaway answer has a million."""
    return deque(pattern.finditer(text), maxlen=count)


def _box_parts(text: str) -> list[str]:
    """What stands behind each mark of a box, up to the mark of its end or the end of the text.

    Searches of its own, because a pattern would look for the missing end behind every mark anew.
    """
    parts = []
    start, end = text.find(_BOX_START), -1
    while start >= 0:
        inner = start + len(_BOX_START)
        if end < inner:
            end = text.find(_BOX_END, inner)
            end = end if end >= 0 else len(text)
        if end - inner > _LONGEST_BOX:
            start = text.find(_BOX_START, inner)
            continue
        parts.append(text[inner:end])
        start = text.find(_BOX_START, end)
    return parts
