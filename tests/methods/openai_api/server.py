"""A server on this machine that speaks OpenAI's protocol, with the faults that real ones have."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image


def completion(text: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """What a server says, as the protocol has it."""
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
    }


@dataclass
class Question:
    """One request as the server saw it; names of headers in small letters."""

    text: str
    size: tuple[int, int]
    body: dict[str, Any]
    headers: dict[str, str]


Reaction = Callable[[Question, int], tuple[int, Any]]  # status, and what is sent: an object as JSON, or bytes


def box(question: Question, number: int) -> tuple[int, Any]:
    """The left upper quarter, in thousandths."""
    return 200, completion("<box>[[0, 0, 500, 500]]</box>")


@dataclass
class FakeServer:
    """Counts what it is asked. ``react``: question and its number, from 0 -> status and content.

    ``delay``: seconds before each answer. Use as a context manager.
    """

    react: Reaction = box
    delay: float = 0.0
    questions: list[Question] = field(default_factory=list)
    open_now: int = 0
    most_open: int = 0

    def __enter__(self) -> FakeServer:
        owner, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                question = _question(body, {key.lower(): value for key, value in self.headers.items()})
                with lock:
                    number = len(owner.questions)
                    owner.questions.append(question)
                    owner.open_now += 1
                    owner.most_open = max(owner.most_open, owner.open_now)
                time.sleep(owner.delay)
                status, content = owner.react(question, number)
                with lock:
                    owner.open_now -= 1
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                with contextlib.suppress(OSError):  # the one who asked may be gone
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.send_header("Retry-After-Ms", "5")
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"


def _question(body: dict[str, Any], headers: dict[str, str]) -> Question:
    parts = body["messages"][-1]["content"]
    picture = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
    image = Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2])))
    return Question(next(part["text"] for part in parts if part["type"] == "text"), image.size, body, headers)
