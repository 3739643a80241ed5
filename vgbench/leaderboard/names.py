"""How a model is called, without what says nothing about which one it is."""

from __future__ import annotations

import re

# What folders of weights add to the name in a paper: tuned for chat, converted, size of the patches
_ENDINGS = re.compile(r"(-(instruct|hf|it|chat-hf|patch\d+-\d+))+$", re.I)


def plain_name(name: str) -> str:
    """A method's name for looking up: without case, dashes and blanks."""
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def paper_name(name: str) -> str:
    """The name of a folder of weights as papers write it: "Qwen2.5-VL-7B-Instruct" -> "Qwen2.5-VL-7B"."""
    return _ENDINGS.sub("", name)
