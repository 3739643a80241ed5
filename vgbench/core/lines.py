"""Texts of others on a terminal: what they may not do there."""

from __future__ import annotations

import re

# what moves the cursor, colours, or turns the direction of writing: a text of somebody else could forge the lines below
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
LONGEST = 2000  # characters of a message


def printable(text: str) -> str:
    """A text with control characters (but for line ends and tabs) written out, as ``\\x1b``."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def one_line(error: BaseException | str) -> str:
    """A message without line breaks and control characters, no longer than a reader reads."""
    text = printable(" ".join(str(error).split()))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."
