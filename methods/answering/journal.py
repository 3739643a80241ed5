"""Answers on disk as they come: a stopped evaluation goes on with those that it has."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any

from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file

FOLDER = "answers"  # in a run folder


@dataclass(frozen=True)
class Words:
    """What a model said to one question.

    Attributes:
        text: its words.
        seconds: from question to answer (of a batch: its share).
        prompt_tokens, answer_tokens: None where nobody counted.
        image: (width, height) of the original image.
        size: (width, height) of the picture as the model saw it after its own resizing; None: not known.
        remark: why there are no words, where there are none ("content_filter"), or why they break off ("length").
    """

    text: str
    seconds: float
    image: tuple[int, int]
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    size: tuple[int, int] | None = None
    remark: str = ""


class Journal:
    """The answers of a run: one JSON line each, written and synced as it comes.

    Every process writes a file of its own and reads all that are there when it starts.

    Args:
        folder: the run folder.
        rank: number of this process.

    Raises:
        UserError: if a file of answers is damaged elsewhere than at its end, where a killed process may have cut it.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder = folder / FOLDER
        self.path = self.folder / f"{rank}.jsonl"
        self._words: dict[str, Words] = dict(self._stored())
        self.reused: set[str] = set()
        self._lock = Lock()
        self._file: IO[bytes] | None = None

    def __contains__(self, question: str) -> bool:
        return question in self._words

    def reuse(self, question: str) -> Words:
        """The answer that is there."""
        words = self._words[question]
        self.reused.add(question)
        return words

    def add(self, question: str, key: str, words: Words) -> None:
        """Write an answer to disk. May be called by several threads.

        Args:
            question: digest of all that was asked.
            key: of the expression in the annotation table, for a reader of the file.
        """
        entry = {"question": question, "key": key, **asdict(words)}
        line = json.dumps({name: value for name, value in entry.items() if value not in (None, "")})
        with self._lock:
            if self._file is None:
                self._file = self._opened()
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._words[question] = words

    def all(self) -> dict[str, Words]:
        """The answers on disk, those of other processes included, by question."""
        return dict(self._stored())

    def _opened(self) -> IO[bytes]:
        """The file, after its last whole line."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.path.open("ab")
        if file.tell():
            whole = self.path.read_bytes().rfind(b"\n") + 1
            file.truncate(whole)
        return file

    def _stored(self) -> Iterator[tuple[str, Words]]:
        for path in sorted(self.folder.glob("*.jsonl")):
            content = _content(path)
            for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
                yield _entry(line, f"{path}:{number}")


def _content(path: Path) -> bytes:
    try:
        return ordinary_file(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); remove it") from None


def _entry(line: bytes, place: str) -> tuple[str, Words]:
    try:
        node: dict[str, Any] = json.loads(line)
        image, size = node["image"], node.get("size")
        for name in ("question", "text", "remark"):
            if not isinstance(node.get(name, ""), str):
                raise TypeError(f"{name} is a {type(node[name]).__name__}")
        return node["question"], Words(
            text=node.get("text", ""),
            seconds=float(node["seconds"]),
            image=(int(image[0]), int(image[1])),
            prompt_tokens=node.get("prompt_tokens"),
            answer_tokens=node.get("answer_tokens"),
            size=None if size is None else (int(size[0]), int(size[1])),
            remark=node.get("remark", ""),
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{place}: not an answer of a language model ({error}); remove the line") from None
