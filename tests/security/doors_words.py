"""Doors for texts: what models and servers answer, and command lines."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import json
import random
import threading
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.security.harness import Door
from tests.security.mutation import MARKUP, bytes_damage, mutated, text_damage
from vgbench.cli.main import main
from vgbench.predictions.numbers import FORMS
from vgbench.predictions.styles import style, style_classes
from vgbench.predictions.words import read_words

ANSWERS = [
    "[12, 20, 30, 44]",
    "<think>The cup is left.</think><answer>{'bbox_2d': [12, 20, 30, 44]}</answer>",
    '```json\n[{"bbox_2d": [12, 20, 30, 44], "label": "cup"}, {"bbox": [1, 2, 3, 4]}]\n```',
    "<box>(12,20),(30,44)</box><|box_start|>(1,2),(3,4)<|box_end|>",
    "<loc0012><loc0020><loc0030><loc0044> cup ; <loc0001><loc0002><loc0003><loc0004>",
    "<phrase>a cup</phrase><object><patch_index_0044><patch_index_0863></object>",
    '<point x="12.5" y="44.1" alt="cup">cup</point> <points x1="1" y1="2" x2="3" y2="4">cups</points>',
    "x1=0.1, y1=0.2, x2=0.3, y2=0.4; there is no such object in the image",
    "\\boxed{[[12, 20, 30, 44]]} The final answer is (0.1, 0.2, 0.3, 0.4).",
]
PIECES = [
    "[",
    "]",
    "(",
    ")",
    "<box>",
    "</box>",
    "<|box_start|>",
    "<loc0012>",
    "<think>",
    "</think>",
    "<answer>",
    "```json",
    "{",
    "}",
    ",",
    "12",
    "1e99",
    "-",
    ".",
    " ",
    "\n",
    "nan",
    "x1",
    "=",
    MARKUP,
    "９",
    '<point x="',
    "&#",
    "\\boxed{",
]


def write_answer(folder: Path) -> None:
    (folder / "answer.txt").write_text("\n\n".join(ANSWERS))


def damage_answer(folder: Path, generator: random.Random) -> str:
    text = generator.choice(ANSWERS)
    chance = generator.random()
    if chance < 0.5:
        for _ in range(generator.choice([1, 2, 5])):
            text = text_damage(text, generator)
    elif chance < 0.9:
        text = "".join(generator.choice(PIECES) for _ in range(generator.choice([5, 50, 500])))
    else:
        text = generator.choice(PIECES) * generator.choice([1000, 20_000]) + text
    (folder / "answer.txt").write_text(text, errors="surrogatepass")
    return "answer"


def use_answer(folder: Path) -> Any:
    text = (folder / "answer.txt").read_text(errors="surrogatepass")
    found: list[Any] = [len(read_words(text, form).boxes) for form in FORMS]
    for name in style_classes():
        reading = style(name).read(text, image_size=(640, 480), model_size=(644, 476))
        assert all(len(box) == 4 for box in reading.boxes)
        found.append(len(reading.boxes))
    return found


VALUES = [
    "",
    "x",
    "../x",
    "/dev/zero",
    "here",
    "nothing",
    "x" * 5000,
    "${oc.env:HOME}",
    "{a:1}",
    "[",
    "1",
    "-1",
    "a=b",
    "'",
    "é",
    "\\",
    "null",
    "{_target_:os.mkdir,path:EXECUTED}",
    "os.mkdir",
]
KEYS = [
    "dataset",
    "method",
    "split",
    "task",
    "format",
    "scale",
    "boxes",
    "match",
    "paper",
    "table",
    "data_root",
    "method.width",
    "dataset.filter",
    "dataset.data_root",
    "+x",
    "~dataset",
    "a.b.c",
    "flow",
    "",
    "recipe",
    "checkpoint",
    "layout",
    "out",
    "limit",
]
NAMES = ["refcoco", "refshapes", "alvg", "coco", "text", "val", "rec", "amc", *VALUES]
COMMANDS = [
    "list",
    "compare",
    "score",
    "export",
    "predict",
    "data",
    "conform",
    "reproduce",
    "new",
    "eval",
    "nosuch",
]
OPTIONS = [
    "--help",
    "--slices",
    "--html",
    "--published",
    "--json",
    "--register",
    "--variant",
    "--format",
    "--debugg",
    "-x",
    "--output",
    "--plugin",
    "--",
    "--version",
    "datasets",
    "verify",
    "describe",
    "convert",
    "browse",
    "leakage",
    "here",
    "nothing",
    "here/answers.jsonl",
]


def write_line(folder: Path) -> None:
    (folder / "line.txt").write_text("list")
    (folder / "here").mkdir()
    (folder / "here" / "answers.jsonl").write_text('{"key": "0", "boxes": []}\n')


def damage_line(folder: Path, generator: random.Random) -> str:
    line = [generator.choice(COMMANDS)]
    for _ in range(generator.randrange(6)):
        if generator.random() < 0.5:
            line.append(f"{generator.choice(KEYS)}={generator.choice(NAMES)}")
        else:
            line.append(generator.choice(OPTIONS))
    (folder / "line.txt").write_text("\n".join(line))
    return " ".join(line)[:200]


def use_line(folder: Path) -> int:
    """One line on the error stream and exit code 2, or what was asked for."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        code = main((folder / "line.txt").read_text().split("\n"))
    text = errors.getvalue()
    assert code in (0, 1, 2) and "Traceback" not in text, text[-500:]
    assert code != 2 or text.strip().count("\n") == 0, text
    return code


TEXTS = (
    Door("answers", write_answer, use_answer, damage_answer),
    Door("command lines", write_line, use_line, damage_line, few=8),
)


REPLY = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWERS[0]}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14},
}


class Server(http.server.BaseHTTPRequestHandler):
    """Answers every question with ``status``, ``kind`` and ``body`` of its server."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, kind, body = self.server.reply  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing is printed."""


@functools.cache
def local_server() -> http.server.ThreadingHTTPServer:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def write_reply(folder: Path) -> None:
    (folder / "reply.json").write_text(json.dumps(REPLY))
    (folder / "status.txt").write_text("200 application/json")


def damage_reply(folder: Path, generator: random.Random) -> str:
    if generator.random() < 0.3:
        status = generator.choice([200, 200, 204, 301, 400, 401, 403, 404, 409, 418, 429, 500, 503, 599])
        kind = generator.choice(["application/json", "text/html", "text/event-stream", "application/octet-stream", ""])
        (folder / "status.txt").write_text(f"{status} {kind}")
    path = folder / "reply.json"
    if generator.random() < 0.5:
        with contextlib.suppress(RecursionError):
            path.write_text(json.dumps(mutated(json.loads(path.read_text()), generator)), errors="surrogatepass")
            return "values of the answer"
    path.write_bytes(bytes_damage(path.read_bytes(), generator))
    return "bytes of the answer"


def use_reply(folder: Path) -> Any:
    """Ask a server that answers with a file."""
    pytest.importorskip("openai")
    from vgbench.methods.openai_api.client import Client

    server = local_server()
    status, _, kind = (folder / "status.txt").read_text().partition(" ")
    server.reply = int(status), kind, (folder / "reply.json").read_bytes()  # type: ignore[attr-defined]
    client = Client(f"http://127.0.0.1:{server.server_address[1]}/v1", "m", None, retries=0, timeout=5.0)
    reply = client.ask([{"role": "user", "content": "where is the cup?"}])
    return [len(read_words(reply.text, form).boxes) for form in FORMS], str(reply.remark)[:100]


def write_journal(folder: Path) -> None:
    """What a run has kept of the answers to its questions."""
    (folder / "answers").mkdir()
    entry = {"text": ANSWERS[0], "seconds": 0.5, "image": [64, 48], "prompt_tokens": 5, "answer_tokens": 9}
    lines = [json.dumps({"question": str(number), "key": str(number), **entry}) for number in range(4)]
    (folder / "answers" / "0.jsonl").write_text("\n".join(lines) + "\n")


def use_journal(folder: Path) -> Any:
    from vgbench.methods.answering.journal import Journal

    return len(Journal(folder)._words)


def write_protocol(folder: Path) -> None:
    """What a language model is asked, the captions of phrases, and numbers of papers."""
    prompts = {"one": "Where is {expression}?", "all": "Where are all {expression}?"}
    node = {"style": "qwen2.5-vl", "prompts": prompts, "system": "You see.", "max_new_tokens": 64, "min_pixels": 100}
    (folder / "mine.yaml").write_text(json.dumps({**node, "sources": ["a paper"], "chat": True}))
    (folder / "captions.jsonl").write_text('{"key": "0", "caption": "a cup"}\n{"key": "1", "caption": "a cup"}\n')
    numbers = (files("vgbench.leaderboards") / "published.csv").read_text().splitlines(keepends=True)
    (folder / "published.csv").write_text("".join(numbers[:20]))


def use_protocol(folder: Path) -> Any:
    from vgbench.leaderboard.published import read_published
    from vgbench.methods.answering.captions import Captions
    from vgbench.methods.answering.protocol import Protocol

    newest = max(folder.iterdir(), key=lambda path: path.lstat().st_mtime_ns)
    if newest.name == "captions.jsonl":
        return len(Captions(newest).texts)
    if newest.name == "published.csv":
        return len(read_published(newest))
    return Protocol.read(str(folder / "mine.yaml")).changed(prompt="{expression}!", max_new_tokens=5).name


SERVERS = (
    Door("server answers", write_reply, use_reply, damage_reply, few=8),
    Door("kept answers", write_journal, use_journal),
    Door("protocols and numbers", write_protocol, use_protocol),
)
