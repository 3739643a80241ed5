"""What texts and comments name is there: modules and their members, files of the repository, snippets' imports."""

from __future__ import annotations

import importlib
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KINDS = (".py", ".md", ".yaml", ".toml", ".html", ".js", "Makefile", "Dockerfile")
FOLDERS = ("vgbench", "methods", "datasets", "configs", "docs", "packaging", "tests", "leaderboards")
DOTTED = re.compile(r"(?<![\w.])vgbench(?:\.[A-Za-z_]\w*)+")
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./-]*\.(?:py|md|yaml|toml|html|js)\b")
PART = re.compile(r"`([\w/]+\.py)(?:: ?(\w+)[\w.]*)?`")

#: of other projects' repositories, and what CONTRIBUTING's worked example makes
ELSEWHERE = {
    "configs/Pretrain.yaml",
    "configs/grounding_dino/grounding_dino_swin-t_pretrain_obj365_goldg_cap4m.py",
    "configs/method/centre.yaml",
    "eval.py",
    "setup.py",
}


@cache
def tracked() -> frozenset[str]:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return frozenset(listing.stdout.splitlines())


def texts() -> Iterator[tuple[str, str]]:
    """Text files and what they say. A change log tells of what was, recorded cases of the official repositories."""
    for name in sorted(tracked()):
        if name.endswith(KINDS) and name != "CHANGELOG.md" and not name.startswith("tests/conformance/"):
            yield name, (ROOT / name).read_text("utf-8")


@cache
def resolves(name: str) -> bool:
    """Whether the dotted name is a module, or a member of one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            place = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(place, part) and part not in getattr(place, "__annotations__", {}):
                return False
            place = getattr(place, part, None)
        return True
    return False


def test_dotted_names_resolve() -> None:
    groups = set(re.findall(r'Registry\("([\w.]+)"', (ROOT / "vgbench" / "core" / "registry.py").read_text("utf-8")))
    missing = {
        (name, dotted)
        for name, text in texts()
        for dotted in DOTTED.findall(text)
        if dotted not in groups and not resolves(dotted)
    }
    assert not missing


def test_files_of_the_repository_exist() -> None:
    """Capital letters stand for what a reader is to fill in."""
    named = {(name, path) for name, text in texts() for path in PATH.findall(text) if not re.search("[A-Z]{3}", path)}
    assert not {(name, path) for name, path in named if path not in tracked() and path not in ELSEWHERE}


def test_parts_that_cards_of_methods_name_are_defined_there() -> None:
    """``model.py: Decoder`` in a card is a definition in that file of the method, or of the repository."""
    parts = {
        (str(card.relative_to(ROOT)), *part)
        for card in ROOT.glob("methods/*/README.md")
        for part in PART.findall(card.read_text("utf-8"))
    }
    assert len(parts) > 20
    for card, file, name in parts:
        if file in ELSEWHERE:
            continue
        path = file if file in tracked() else f"{Path(card).parent}/{file}"
        assert path in tracked(), (card, file)
        text = (ROOT / path).read_text("utf-8")
        assert not name or re.search(rf"^(?:class|def) {name}\b|\bself\.{name} = ", text, re.M), (card, name)


def test_imports_of_snippets_work() -> None:
    """``from vgbench... import ...`` in the code of pages."""
    for name, text in texts():
        if not name.endswith(".md"):
            continue
        for module, members in re.findall(r"^ *from (vgbench[\w.]*) import ([\w, ]+)", text, re.M):
            for member in members.replace(" ", "").split(","):
                assert resolves(f"{module}.{member}"), (name, module, member)
