"""Phrases in their captions: what is asked is the whole caption, what is read is what stands behind the phrase."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from torch import Tensor

from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file
from vgbench.data.table import AnnotationTable

CAPTION = "caption"  # the auxiliary input: the number of the caption
_FRAME = re.compile(r"</?(?:phrase|object|grounding|delimiter_of_multi_objects|s)/?>")  # marks that hold no place
_SPAN = re.compile(r"([^<>]*)((?:\s*<[^<>]*\d[^<>]*>)+)")  # words, and the places behind them


class Captions:
    """The caption that every phrase stands in.

    Args:
        path: JSON lines ``{"key": key of the phrase in the annotation table, "caption": text}``.

    Raises:
        UserError: if the file cannot be read, naming the line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}
        try:
            lines = ordinary_file(path).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); method.captions= is a file of JSON lines") from None
        numbers: dict[str, int] = {}
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                key, text = entry["key"], entry["caption"]
                if not isinstance(key, str) or not isinstance(text, str) or not text.strip():
                    raise TypeError("key and caption are texts")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise UserError(
                    f'{path}:{number}: not {{"key": ..., "caption": ...}} ({error}); correct the line'
                ) from None
            self._numbers[key] = numbers.setdefault(text, len(numbers))
        self.texts = list(numbers)

    def numbers(self, table: AnnotationTable) -> dict[str, Tensor]:
        """Key -> number of its caption in :attr:`texts`, int64 [1].

        Raises:
            UserError: if a phrase has none.
        """
        keys = table.column("key").tolist()
        absent = [key for key in keys if key not in self._numbers]
        if absent:
            raise UserError(f"{self.path}: no caption for {len(absent)} of {len(keys)} phrases, first {absent[0]!r}")
        return {key: torch.tensor([self._numbers[key]]) for key in keys}


def phrase_part(words: str, phrase: str) -> str:
    """The phrase and its places in the words to a caption; empty where it has none.

    The span whose words are the phrase, else the first one that holds the phrase or is held by it: models cut captions
    into phrases of their own.
    """
    spans = [(match[1].strip(" ,.;").lower(), match[0]) for match in _SPAN.finditer(_FRAME.sub("", words))]
    asked = phrase.strip(" ,.;").lower()
    for fits in (lambda text: text == asked, lambda text: asked in text, lambda text: bool(text) and text in asked):
        for text, whole in spans:
            if fits(text):
                return whole.strip()
    return ""
