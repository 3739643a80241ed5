"""``vgbench new``: a working package for a method or a dataset, from the templates beside this file."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from argparse import ArgumentParser, Namespace
from importlib.resources import files
from pathlib import Path
from typing import Literal

from vgbench.core.errors import UserError
from vgbench.core.files import write_atomically
from vgbench.core.registry import datasets, methods

NAME = "new"
HELP = "Write a working package for a new method or dataset."
EXAMPLE = "vgbench new method mymethod"
TAKES_PLUGINS = False  # it reads templates only

ENDING = ".in"  # of templates, so that no tool takes them for code of ours
HIDDEN = "dot-"  # begins the names of templates of hidden files, which wheels would leave out


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument("kind", choices=["method", "dataset"])
    parser.add_argument("name", help="lower case; what is typed for method= or dataset=")
    parser.add_argument("folder", nargs="?", type=Path, help="folder to make (default: vgbench-NAME)")


def execute(arguments: Namespace) -> int:
    """Write the package and say what to do with it."""
    kind, name = arguments.kind, arguments.name
    target = new(kind, name, arguments.folder)
    print(f"{target}: a package with a {kind} that works; README.md is its card")
    if kind == "method":
        print(f"try:     vgbench run --plugin {target / name} method={name} dataset=refshapes")
    else:
        print(f"try:     vgbench data verify --plugin {target / name} dataset={name} data_root=FOLDER")
    print(f"install: pip install -e {target}   (then without --plugin)")
    return 0


def new(kind: Literal["method", "dataset"], name: str, folder: Path | None = None) -> Path:
    """Write a package called ``name``.

    Args:
        name: lower case, a Python module's name.
        folder: to be made; None: ``vgbench-NAME`` in the working directory.

    Returns:
        The folder.

    Raises:
        UserError: if the name is no module's name or taken, also by an installed package, or the folder exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or name in sys.stdlib_module_names:
        raise UserError(f"{name}: not a name for a {kind}; take lower-case letters, digits and _ (no word of Python)")
    installed = importlib.util.find_spec(name)
    if installed is not None and installed.origin is not None:  # its package would hide that one, or be hidden by it
        raise UserError(f"{name}: a Python package of this name is installed already; take another")
    registry = methods if kind == "method" else datasets
    if name in registry:
        raise UserError(f"{name}: there is a {kind} of this name already (vgbench list {kind}s); take another")
    target = folder or Path(f"vgbench-{name}")
    if target.exists():
        raise UserError(f"{target}: exists already; give another folder: vgbench new {kind} {name} FOLDER")
    placeholder = "mymethod" if kind == "method" else "mydata"
    title = "".join(part.capitalize() for part in name.split("_"))
    class_placeholder = "MyMethod" if kind == "method" else "MyData"

    def fill(text: str) -> str:
        return text.replace(placeholder, name).replace(class_placeholder, title)

    def named(name: str) -> str:
        return fill(f".{name[len(HIDDEN) :]}" if name.startswith(HIDDEN) else name)

    def copy(source: Path, place: Path) -> None:
        for entry in source.iterdir():
            if entry.is_dir():
                copy(entry, place / named(entry.name))
            elif entry.name.endswith(ENDING):
                path = place / named(entry.name.removesuffix(ENDING))
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, fill(entry.read_text("utf-8")).encode())

    for part in (kind, "project"):  # the second is what every package has
        copy(Path(str(files("vgbench"))) / "templates" / part, target)
    return target
