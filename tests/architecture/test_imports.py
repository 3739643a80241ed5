"""The house holds: folders import one way, nothing goes in a circle, the suite knows no method and no dataset of ours.

Read from the source with ``ast``: imports inside functions and under ``TYPE_CHECKING`` count like all others.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

ROOT = Path(__file__).parents[2]

# A folder (or a module of the root) imports only what stands above it.
ORDER = (
    "types",
    "core",
    "data",
    "text",
    "checkpoints",
    "method",
    "layers",
    "batches",
    "predictions",
    "metrics",
    "probes",  # change annotation tables and images; plug-ins, so that config registers them, and nothing below does
    "config",
    "records",
    "conform",
    "pictures",
    "optim",
    "training",
    "leaderboard",
    "reproduce",
    "bench",
    "bridges",
    "api",  # the door for Python: like the one for the terminal it opens every room
    "cli",
)
MAPPED = ("methods", "datasets", "configs", "leaderboards")  # top-level folders that are part of the package


@cache
def modules() -> dict[str, Path]:
    """Module name -> file, of everything in the package."""
    found = {}
    for top in ("vgbench", *MAPPED):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts if top == "vgbench" else ("vgbench", *parts))
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def imports(name: str) -> tuple[tuple[str, int], ...]:
    """(module of ours, line) that a module imports anywhere in its code."""
    known = modules()
    targets = []
    for node in ast.walk(ast.parse(known[name].read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                targets.append((whole if whole in known else str(node.module), node.lineno))
        elif isinstance(node, ast.Import):
            targets += [(alias.name, node.lineno) for alias in node.names]
    return tuple((target, line) for target, line in targets if target.partition(".")[0] == "vgbench")


def room(name: str) -> str:
    """The folder (or root module) that a module belongs to: "data", "types", "methods"."""
    return name.split(".")[1] if "." in name else ""


def suite() -> list[str]:
    """Modules under vgbench/, without its __init__ (which names the public classes, as texts)."""
    return sorted(name for name in modules() if "." in name and room(name) not in MAPPED)


def test_every_folder_has_its_place() -> None:
    assert {room(name) for name in suite()} == set(ORDER)


def test_folders_import_one_way() -> None:
    upwards = [
        f"{name}:{line} imports {target}"
        for name in suite()
        for target, line in imports(name)
        if room(target) and (room(target) not in ORDER or ORDER.index(room(target)) > ORDER.index(room(name)))
    ]
    assert not upwards, "\n".join(upwards)


def test_methods_and_datasets_stand_on_the_suite_without_its_door() -> None:
    """A dataset knows annotation tables only; a method nothing of runs, leaderboards and commands."""
    allowed = {"datasets": ORDER[: ORDER.index("checkpoints")], "methods": ORDER[: ORDER.index("training")]}
    wrong = [
        f"{name}:{line} imports {target}"
        for name in sorted(modules())
        for target, line in imports(name)
        if room(name) in allowed and room(target) not in ("", room(name), *allowed[room(name)])
    ]
    assert not wrong, "\n".join(wrong)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected parts with more than one node (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    parts: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            part = []
            while not part or part[-1] != node:
                part.append(stack.pop())
            if len(part) > 1:
                parts.append(sorted(part))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return parts


def test_no_module_is_part_of_a_circle() -> None:
    graph = {name: {target for target, _ in imports(name)} - {name, "vgbench"} for name in modules()}
    assert not circles(graph)


def test_a_circle_would_be_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def registered() -> set[str]:
    """Names of our methods and datasets, as they are typed, and of the classes behind them."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    names = set()
    for group in ("vgbench.methods", "vgbench.datasets"):
        for name, value in points[group].items():
            names |= {name, value.partition(":")[2]}
    return names


def code_texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of identifiers and of texts that the code works with: no docstrings, no citations of whose rule a
    metric variant is, no example command lines."""
    citations = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            citations.add(id(node.body[0].value))  # type: ignore[attr-defined]
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            citations.add(id(node.value))  # the text below an attribute
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Variant":
            citations |= {id(item) for item in node.args[1:]}
        if isinstance(node, ast.Dict):  # a metric variant may be called like a method: "vlm" is how lmms-eval counts
            pairs = zip(node.keys, node.values, strict=True)
            citations |= {id(key) for key, value in pairs if isinstance(value, ast.Call) and _is_variant(value)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in citations:
            yield node.lineno, node.value
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.lineno, node.name


def _is_variant(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "Variant"


EXAMPLE = re.compile(
    r"vgbench (run|eval|stress|bench|data|score|export|predict|conform|compare|reproduce|list)\b|\b\w+=[\w.+-]+"
)


def test_the_suite_names_no_method_and_no_dataset_of_ours() -> None:
    """But in examples of command lines, which are what a reader of ``--help`` wants to see."""
    words = re.compile(
        rf"(?<![\w+-])({'|'.join(map(re.escape, sorted(registered(), key=len, reverse=True)))})(?![\w+-])"
    )
    named = []
    for name in suite():
        for line, text in code_texts(ast.parse(modules()[name].read_text("utf-8"))):
            if words.search(text) and not EXAMPLE.search(text):
                named.append(f"{name}:{line}: {text[:80]!r}")
    assert not named, "\n".join(named)


@pytest.mark.parametrize("file", ["run.yaml", "bench.yaml"])
def test_every_key_of_the_configuration_is_read(file: str) -> None:
    """A key is read where code takes it from a node: ``config.eval.limit``, ``recipe.get("x")``, ``"recipe.lr"``."""
    import yaml

    node = yaml.safe_load((ROOT / "configs" / file).read_text("utf-8"))
    keys = []
    for key, value in node.items():
        if key in ("hydra", "defaults"):
            continue
        keys += [f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [key]
    read = set()
    for name, path in modules().items():
        if room(name) in ("configs", "leaderboards", "datasets"):
            continue
        for tree in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(tree, ast.Attribute):
                read.add(tree.attr)
            elif isinstance(tree, ast.Constant) and isinstance(tree.value, str):
                read |= {tree.value, tree.value.rpartition(".")[2]}
    unread = [key for key in keys if key.rpartition(".")[2] not in read]
    assert not unread, f"nobody reads {unread}"


def test_no_file_and_no_function_has_grown_out_of_its_room() -> None:
    """A file has at most 400 lines, a function 60, and six parameters unless it is a constructor or a kernel."""
    grown = []
    for name, path in sorted(modules().items()):
        text = path.read_text("utf-8")
        if (length := text.count("\n")) > 400:
            grown.append(f"{name}: {length} lines")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef):
                continue
            if (length := int(node.end_lineno or 0) - node.lineno + 1) > 60:
                grown.append(f"{name}.{node.name}: {length} lines")
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(argument.arg not in ("self", "cls") for argument in arguments)
            kernel = any(ast.unparse(decorator) == "triton.jit" for decorator in node.decorator_list)  # takes addresses
            if count > 6 and node.name != "__init__" and not kernel and room(name) in ORDER:
                grown.append(f"{name}.{node.name}: {count} parameters")
    assert not grown, "\n".join(grown)


def test_contracts_are_whole() -> None:
    """Nothing of a dataset, method or metric is read by ``getattr`` with a default."""
    guesses = []
    for name in suite():
        for node in ast.walk(ast.parse(modules()[name].read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "getattr"
                and len(node.args) == 3
                and isinstance(node.args[0], ast.Name)
                and node.args[0].id in ("method", "data", "dataset", "metric", "rule")
            ):
                guesses.append(f"{name}:{node.lineno}")
    assert not guesses


def test_every_folder_is_in_the_package() -> None:
    """setuptools is told each package by name: a forgotten one would be missing in the wheel."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    packages = {
        name for name, path in modules().items() if path.name == "__init__.py" and "templates" not in path.parts
    }
    assert packages == set(listed)
