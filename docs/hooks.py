"""Pages of the site that are made from the code: commands, recipes, cards, metric variants, public names.

Cards and README stand beside the code and link to files of the repository; what is no page becomes plain text.
"""

from __future__ import annotations

import argparse
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import vgbench
from vgbench.cli.main import Parser, build_parser

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
ROLE = re.compile(r":(?:class|func|meth|attr|mod|data|exc):<code>~?([^<]*)</code>")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages; MkDocs calls it once per build."""
    cards = _cards()
    pages = {
        "index.md": _home(),
        "commands.md": _commands(),
        "recipes.md": _recipes(),
        "metrics.md": _card("vgbench/metrics/README.md"),
        "methods.md": _overview("Methods", "methods"),
        "datasets.md": _overview("Data sets", "datasets"),
        "leaderboards.md": _card("leaderboards/README.md"),
        "api.md": _names(),
        "tutorials/own-method.md": _sections("In a package of your own", "A new method"),
        "tutorials/own-data.md": _sections("A new dataset", "A new metric"),
        "tutorials/paper-table.md": _sections("A paper's table"),
        **{page: _card(source) for source, page in cards.items()},
    }
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name other objects by Sphinx's roles; show the last part of the name."""
    return ROLE.sub(lambda match: f"<code>{match[1].rpartition('.')[2]}</code>", html)


def _cards() -> dict[str, str]:
    """Card in the repository -> page of the site."""
    methods = {
        str(file.relative_to(ROOT)): f"methods/{file.parent.name}.md" for file in ROOT.glob("methods/*/README.md")
    }
    folders = {
        str(file.relative_to(ROOT)): f"datasets/{file.parent.name}.md" for file in ROOT.glob("datasets/*/README.md")
    }
    modules = {str(file.relative_to(ROOT)): f"datasets/{file.name}" for file in ROOT.glob("datasets/*.md")}
    probes = {str(file.relative_to(ROOT)): f"probes/{file.name}" for file in ROOT.glob("vgbench/probes/**/*.md")}
    return dict(sorted((methods | folders | modules | probes).items()))


def _pages() -> dict[str, str]:
    own = {str(file.relative_to(ROOT)): str(file.relative_to(ROOT / "docs")) for file in ROOT.glob("docs/**/*.*")}
    return (
        own
        | _cards()
        | {
            "README.md": "index.md",
            "vgbench/metrics/README.md": "metrics.md",
            "leaderboards/README.md": "leaderboards.md",
            "methods": "methods.md",
            "datasets": "datasets.md",
        }
    )


def _relinked(text: str, source: str, page: str) -> str:
    """Links of a file of the repository as links of its page; what has no page becomes plain text."""
    pages = _pages()

    def target(link: str) -> str | None:
        path, hash_sign, anchor = link.partition("#")
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path)) if path else source
        if place not in pages:
            return None
        return posixpath.relpath(pages[place], posixpath.dirname(page) or ".") + hash_sign + anchor

    def link(match: re.Match[str]) -> str:
        if re.match(r"[a-z]+:", match[2]):
            return match[0]
        new = target(match[2])
        return f"[{match[1]}]({new})" if new else match[1]

    def image(match: re.Match[str]) -> str:
        return f"![{match[1]}]({target(match[2]) or match[2]})"

    return LINK.sub(link, IMAGE.sub(image, text))


def _card(source: str) -> str:
    return _relinked((ROOT / source).read_text("utf-8"), source, _pages()[source])


def _home() -> str:
    text = _card("README.md")
    return text.replace("[CONTRIBUTING.md](CONTRIBUTING.md)", "[tutorials](tutorials/own-method.md)")


def _sections(*headings: str) -> str:
    """Sections of CONTRIBUTING.md, whose examples a test runs."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    bodies = dict(zip(parts[1::2], parts[2::2], strict=True))
    return "\n".join(
        f"# {heading}\n{_relinked(bodies[heading], 'CONTRIBUTING.md', 'tutorials/x.md')}" for heading in headings
    )


def _overview(title: str, folder: str) -> str:
    lines = [f"# {title}", "", "Each has a card: what it is, where it comes from, how it is run, what to mind.", ""]
    for source, page in _cards().items():
        if page.startswith(f"{folder}/"):
            heading = next(line for line in (ROOT / source).read_text("utf-8").splitlines() if line.startswith("# "))
            lines.append(f"- [{heading[2:]}]({page})")
    return "\n".join(lines)


def _commands() -> str:
    """The help of every command and of its actions, as the terminal shows it."""
    os.environ |= {"COLUMNS": "80", "NO_COLOR": "1"}
    lines = [
        "# Commands",
        "",
        "What the terminal shows for `--help`; exit codes stand at the end of the first text.",
    ]
    _help(build_parser(), lines, 2)
    return "\n".join(lines)


def _help(parser: argparse.ArgumentParser, lines: list[str], level: int) -> None:
    if isinstance(parser, Parser) and parser.command is not None:
        parser.command.add_arguments(parser)
    lines += ["", f"{'#' * min(level, 4)} {parser.prog}", "", "```text", parser.format_help().strip(), "```"]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action.choices.values():
                _help(choice, lines, level + 1)


def _recipes() -> str:
    """The authors' recipes as they stand in the configuration, one folder of details per pair."""
    lines = [
        "# Recipes",
        "",
        "A pair of method and data set brings its recipe by itself; `recipe=NAME` takes another. Every key",
    ]
    lines += ["can be overridden (`recipe.lr=1e-4`); `vgbench run ... --cfg job` shows the whole configuration."]
    folder = ROOT / "configs" / "recipe"
    for place in sorted({file.parent for file in folder.rglob("*.yaml")}):
        lines += ["", f"## {place.relative_to(folder)}", ""]
        for file in sorted(place.glob("*.yaml")):
            content = "\n".join(f"    {line}".rstrip() for line in file.read_text("utf-8").splitlines())
            lines += [f'??? note "{file.stem}"', "    ```yaml", content, "    ```", ""]
    return "\n".join(lines)


def _names() -> str:
    """The public names, from the table that ``vgbench`` itself looks them up in."""
    lines = ["# Python", "", "All of these come from `vgbench` itself: `from vgbench import GroundingMethod`.", ""]
    lines += [f"::: {home}.{name}" for name, home in sorted(vgbench.PUBLIC.items())]
    return "\n\n".join(lines)
