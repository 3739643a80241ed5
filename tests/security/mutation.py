"""Damage: bytes, values of JSON and YAML, texts, archives, and what takes the place of a file."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

TOUCH = {"_target_": "pathlib.Path.touch", "_args_": [{"_target_": "pathlib.Path", "_args_": ["EXECUTED"]}]}
MAKE = {"_target_": "os.mkdir", "path": "EXECUTED"}
SAVE = {"_target_": "torch.save", "obj": {}, "f": "EXECUTED"}
CALL = {"_target_": "builtins.exec", "_args_": ["open('EXECUTED', 'w')"]}
MARKUP = "</script><img src=x onerror=alert(1)>\"'`${jndi}{{7*7}}"
HOSTILE: list[Any] = [
    *(TOUCH, MAKE, SAVE, CALL, "${oc.env:HOME}", "${x}", "???", MARKUP, "\u202etxt", "a\nb", "\x1b[31m"),
    *("../outside/secret.txt", "../../outside/secret.txt", "/etc/passwd", "/dev/zero", "/dev/stdin", "..", ".", "~"),
    *("a\0b", "x" * 5000, "\ud800", "", " ", "NaN", "1e999", "9" * 5000, "%s%n", "{0.__class__}", "{:1000000000}"),
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**70, -(2**64), 1e308, 1e-320, float("nan"), float("inf")),
    *([], [[]], [None], {}, {"": None}, [1, 2, 3, 4], [5, 5, 1, 1], [[1, 2, 3, 4]] * 50, {"size": [1, 1]}),
    *({"size": [48, 64], "counts": "1" * 50}, {"size": [2**31, 2**31], "counts": "0"}, [0] * 10_000),
]


def deep(levels: int = 3000) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def mutated(value: Any, generator: random.Random) -> Any:
    """``value`` with one node replaced, left out, doubled or renamed; in place."""
    if isinstance(value, (dict, list)) and value and generator.random() < 0.85:
        key = generator.choice(list(value) if isinstance(value, dict) else range(len(value)))
        chance = generator.random()
        if chance < 0.12:
            del value[key]
        elif chance < 0.2 and isinstance(value, dict):
            value[generator.choice(["_target_", "", "x" * 300, f"{key} "])] = value.pop(key)
        elif chance < 0.25 and isinstance(value, list):
            value.append(value[key])
        else:
            value[key] = mutated(value[key], generator)
        return value
    if generator.random() < 0.03:
        return deep()
    if isinstance(value, str) and generator.random() < 0.3:
        return text_damage(value, generator)
    return copy.deepcopy(generator.choice(HOSTILE))


def text_damage(text: str, generator: random.Random) -> str:
    parts = [
        "\0",
        "\ufeff",
        "\u2028",
        "[",
        "]",
        "{",
        '"',
        ",",
        "\\",
        "e9",
        "-",
        "<",
        "///",
        "\r",
        "٣",
        "\ud800",
        "(" * 400,
    ]
    at = generator.randrange(len(text) + 1)
    cut = generator.randrange(at, min(len(text), at + 8) + 1)
    return text[:at] + generator.choice(parts) * generator.choice([1, 1, 1, 50]) + text[cut:]


def bytes_damage(content: bytes, generator: random.Random) -> bytes:
    """Some bytes changed, cut out, put in, doubled or lost at the end."""
    data = bytearray(content)
    for _ in range(generator.choice([1, 1, 1, 2, 4, 16])):
        if not data:
            break
        at = generator.randrange(len(data))
        how = generator.random()
        if how < 0.45:
            data[at] = generator.randrange(256)
        elif how < 0.6:
            data[at] ^= 1 << generator.randrange(8)
        elif how < 0.7:
            data[at : at + 4] = generator.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80"])
        elif how < 0.8:
            del data[at : at + generator.choice([1, 4, 64, 4096])]
        elif how < 0.9:
            data[at:at] = bytes(generator.randrange(256) for _ in range(generator.choice([1, 4, 64])))
        elif how < 0.95:
            data[at:at] = data[at : at + 256]
        else:
            del data[at:]
    return bytes(data)


OTHERS = [  # beginnings of files of another kind
    *(b"<!DOCTYPE html><html>404", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04", b"\x1f\x8b"),
    *(b"\x89PNG\r\n\x1a\n", b"GIF89a", b"%!PS-Adobe", b"ARROW1\0\0", b"PAR1"),
]


KINDS = ("gone", "empty", "folder", "pipe", "device", "link", "loop", "other", "zeros", "half")


def replaced(path: Path, generator: random.Random) -> str:
    """Something else in the place of a file; returns what."""
    kind = generator.choice(KINDS)
    replace_by(kind, path, generator.choice(OTHERS))
    return kind


def replace_by(kind: str, path: Path, other: bytes = OTHERS[0]) -> None:
    """Put nothing, a folder, a pipe, a link to a device or out of the folder ... in the place of a file."""
    content = path.read_bytes()
    path.unlink()
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link":
        secret = next(place for above in path.parents if (place := above / "outside/secret.txt").is_file())
        path.symlink_to(os.path.relpath(secret, path.parent))
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "other":
        path.write_bytes(other)
    elif kind == "zeros":
        path.write_bytes(b"\0" * 5000)
    elif kind == "half":
        path.write_bytes(content[: len(content) // 2])


Parse = tuple[Callable[[str], Any], Callable[[Any], str]]
LINES: Parse = (
    lambda text: [json.loads(line) for line in text.splitlines()],
    lambda rows: "".join(f"{json.dumps(row)}\n" for row in rows),
)
PARSERS: dict[str, Parse] = {
    ".json": (json.loads, json.dumps),
    ".jsonl": LINES,
    ".yaml": (yaml.safe_load, lambda value: yaml.safe_dump(value, allow_unicode=True)),
}


def damage(folder: Path, generator: random.Random) -> str:
    """Damage one file below a folder; returns which, and how."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    path = generator.choice(files)
    name = str(path.relative_to(folder))
    if generator.random() < 0.06:
        return f"{name} {replaced(path, generator)}"
    if path.suffix in PARSERS and generator.random() < 0.75:
        read, write = PARSERS[path.suffix]
        value = read(path.read_text())
        for _ in range(generator.choice([1, 1, 2, 3])):
            value = mutated(value, generator)
        try:
            path.write_text(write(value), errors="surrogatepass")
            return f"{name} values"
        except (TypeError, ValueError, RecursionError, yaml.YAMLError):
            pass  # the format has no such value
    if path.suffix in (".txt", ".csv", ".tsv") and generator.random() < 0.6:
        path.write_text(text_damage(path.read_text(), generator), errors="surrogatepass")
        return f"{name} text"
    path.write_bytes(bytes_damage(path.read_bytes(), generator))
    return f"{name} bytes"
