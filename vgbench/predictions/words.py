"""The words of a language model: which part of them is the answer, and the boxes in it."""

from __future__ import annotations

import math
import re

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
_BOX_PART = re.compile(r"<\|begin_of_box\|>(.{0,20000}?)(?:<\|end_of_box\|>|$)", re.S)  # there may be one for each box
_ANSWER_WORDS = re.compile(r"\\boxed\s?\{|final answer|answer is\b|answer\W{0,4}:", re.I)


def read_words(text: str, form: str) -> Words:
    """The boxes of an answer.

    Args:
        text: the model's words.
        form: order of four numbers that have no names, one of :data:`FORMS`.
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
    ends = list(_THOUGHT_ENDS.finditer(text))
    if ends:
        text = text[ends[-1].end() :]
    starts = list(_ANSWER_START.finditer(text))
    if starts:
        text = text[starts[-1].end() :]
        closing = _ANSWER_END.search(text)
        text = text[: closing.start()] if closing else text
    parts = _BOX_PART.findall(text)
    if starts or parts:
        return "\n".join(parts) if parts else text, doubt
    thought = _THOUGHT_STARTS.search(text)
    if thought:
        doubt = "answers break off in the reasoning, which was not read"
        return text[: thought.start()], doubt
    marks = list(_ANSWER_WORDS.finditer(text))
    for mark in reversed(marks[-3:]):
        rest = text[mark.end() :]
        if boxes_in(rest[:LONGEST], "xyxy").boxes:
            if boxes_in(text[: mark.start()][:LONGEST], "xyxy").boxes:
                doubt = "answers name boxes before the words 'answer' or 'boxed', which were not read"
            return rest, doubt
    return text, doubt
