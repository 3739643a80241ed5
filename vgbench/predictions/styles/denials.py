"""Answers without a box: the model says that nothing of the kind is there, or it declines to answer."""

from __future__ import annotations

import re
from typing import Literal

_LONGEST = 4_000  # characters that are looked at: a denial is short

_FENCE = re.compile(r"```[a-z]{0,10}|<\|[a-z_]{1,20}\|>|</?s>|<eos>|<pad>")
_KEY = r"[\"'](?:bbox_2d|bbox|bboxes|boxes|box|box_2d|objects|points?)[\"']"
_EMPTY = r"\[[\s\[\]]{0,20}\]"
# Nothing but an empty list, an empty box or a word for nothing, whatever fence or key stands around it.
_NOTHING = re.compile(
    r"[\s\"'.!]*(?:none|null|nothing|n/?a|no|no target|no object|not found|not present|absent|"
    rf"{_EMPTY}|\(\s{{0,4}}\)|\{{\s{{0,8}}\}}|(?:<ref>[^<]{{0,400}}</ref>\s{{0,4}})?<box>[\s\[\]]{{0,8}}</box>|"
    rf"[\[{{\s]{{0,8}}{_KEY}\s{{0,4}}:\s{{0,4}}(?:null|none|\"none\"|{_EMPTY})[^\[\]{{}}\d]{{0,400}}[\]}}\s]{{0,8}})[\s\"'.!]*"
)


def _any(*phrases: str) -> re.Pattern[str]:
    return re.compile("|".join(phrases))


# Looked for in small letters, without contractions ("can't" is "can not").
_NO_IMAGE = _any(
    r"\bno (?:image|picture|photo)s? (?:(?:was|were|is|has been|have been) )?(?:provided|attached|given|uploaded)",
    r"\b(?:please|could you|can you) (?:provide|upload|share|attach|send)",
    r"\b(?:do|did|can|could|able to|unable to)(?: not)? (?:actually )?(?:see|view|access|have|receive|open)(?: to)? "
    r"(?:any |an |the |this |that |your )?(?:image|picture|photo|attachment)s?\b",
    "(?:无法|不能)(?:查看|看到)(?:图|照)",
)
_DENIAL = _any(
    r"\bthere (?:is|are|was|were|(?:appears|seems) to be) (?:no|not|none)\b",
    r"\b(?:is|are|was|were) not (?:\w{1,12} )?(?:in|on|within|part of) (?:the|this) (?:image|picture|photo|scene)",
    r"\b(?:is|are|was|were) not (?:\w{1,12} )?(?:present|visible|shown|there|depicted|found|seen|detected|included)\b",
    r"\b(?:does|do|did) not (?:\w{1,12} )?(?:exist|appear|contain|show|include|match|depict)\b",
    r"\bno (?:such|match(?:es|ing)?|corresponding|objects?|targets?|instances?|box(?:es)?|bounding box(?:es)?)\b",
    r"\bnone of the\b",
    r"\b(?:nothing|no one|nobody) (?:\S{1,30} ){0,6}(?:matches|fits)\b",
    r"\bnot in the (?:image|picture|photo|scene)\b",
    "没有|未找到|找不到|不存在|未出现",
)
_REFUSAL = _any(
    r"\b(?:can not|unable to|not able to|will not) (?:\w{1,12} )?(?:help|assist|provide|process|analy[sz]e|answer)\b",
    r"\b(?:can not|unable to|not able to|will not) identify (?:people|real|individuals|the person)",
    r"\bas an? (?:ai|language|text)\b",
    r"\bagainst (?:my|our) (?:policy|guidelines)",
    "抱歉",
)
_MISSED = _any(
    r"\b(?:can not|could not|unable to|not able to|failed to|do not|did not) "
    r"(?:\w{1,12} )?(?:find|locate|see|detect|identify|spot|recogni[sz]e)\b"
)

Silence = Literal["denial", "refusal"]


def silence(text: str) -> Silence | None:
    """What an answer without any box says: that nothing of the kind is there, that it is declined, or neither (None).

    "No image was provided" declines, whatever else is said; "there is no such cup" denies, even with an apology;
    "I cannot find it" denies where nothing else is said.
    """
    head = " ".join(_FENCE.sub(" ", text[:_LONGEST].lower()).replace("\u2019", "'").split())
    for contraction, words in (("can't", "can not"), ("cannot", "can not"), ("won't", "will not"), ("n't", " not")):
        head = head.replace(contraction, words)
    head = head.replace("there's", "there is").replace("i'm", "i am")
    if _NOTHING.fullmatch(head):
        return "denial"
    if _NO_IMAGE.search(head):
        return "refusal"
    if _DENIAL.search(head):
        return "denial"
    if _REFUSAL.search(head):
        return "refusal"
    return "denial" if _MISSED.search(head) else None
