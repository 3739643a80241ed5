"""``vgbench list``: what there is, and what works on this machine."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from vgbench.config.compose import options, recipes
from vgbench.core.registry import datasets, methods
from vgbench.core.terminal import wrapped

NAME = "list"
HELP = "List methods, datasets, recipes, flows, papers' tables, metrics, answer styles, protocols and probes."
EXAMPLE = "vgbench list methods"
TAKES_PLUGINS = True


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument("what", nargs="?", choices=list(LISTS))
    parser.add_argument("--json", action="store_true", help="print names as JSON")


def execute(arguments: Namespace) -> int:
    """Print the list that was asked for."""
    if arguments.json:
        chosen = [arguments.what] if arguments.what else list(NAMES)
        print(json.dumps({name: NAMES[name]() for name in chosen}, indent=1))
        return 0
    for name, show in LISTS.items():
        if arguments.what in (None, name):
            show()
    return 0


def show_methods() -> None:
    """Registered methods, one line each."""
    print("methods (method=...):")
    weights = Path(str(files("vgbench.methods")))
    for name in methods:
        choices = [option for option in options("method") if option == name or option.startswith(f"{name}_")]
        shipped = sorted(file.stem for file in (weights / name / "weights").glob("*.safetensors"))
        note = f"; shipped weights for {', '.join(shipped)}" if shipped else ""
        wrapped(f"  {name:12} {', '.join(choices) or '(its defaults)'}{note}", 15)


def show_datasets() -> None:
    """Registered datasets, one line each."""
    print("datasets (dataset=...):")
    for name in datasets:
        data = datasets.load(name)
        place = "embedded, generated on first use" if data.embedded else "needs data_root=FOLDER"
        wrapped(f"  {name:12} {data.title} [{', '.join(data.tasks)}]: {place}", 15)


def show_recipes() -> None:
    """All recipes by the names that are typed."""
    print("recipes (chosen by method and dataset):")
    wrapped("  " + ", ".join(recipes()), 2)


def show_flows() -> None:
    """All flows with their stages."""
    from vgbench.training import flow

    print("flows of several stages (vgbench run flow=NAME dataset=...):")
    for name in flow.names():
        one = flow.read(name)
        wrapped(f"  {name:24} {', '.join(one.stages)}: {one.about}", 27)


def show_papers() -> None:
    """Tables of papers that can be reproduced."""
    from vgbench.reproduce.plan import available

    print("papers and their tables (vgbench reproduce paper=... table=...):")
    for paper, papers_tables in available().items():
        wrapped(f"  {paper:12} {', '.join(papers_tables)}", 15)


def show_metrics() -> None:
    """Tasks, their metrics and variants."""
    from vgbench.metrics.catalog import variants

    print("metrics and their variants (eval.variants=[task/name,...]):")
    for task, names in variants().items():
        wrapped(f"  {task:12} {', '.join(names)}", 15)


def show_styles() -> None:
    """Answer styles: how families of models write boxes."""
    from vgbench.predictions.styles import style_classes

    print("answer styles (vgbench score FILE style=...):")
    for name, style in style_classes().items():
        wrapped(f"  {name:12} {style.about().replace('``', '')}", 15)


def _protocols() -> dict[str, dict[str, Any]]:
    """The protocols by name: what they are for, the questions they have, and the types of models that they are for."""
    import yaml

    from vgbench.config.plugins import config_folders

    folders = (Path(str(files("vgbench.configs"))), *config_folders())
    protocols = {}
    for name in options("protocol"):
        place = next(path for folder in folders if (path := folder / "protocol" / f"{name}.yaml").is_file())
        node = yaml.safe_load(place.read_text(encoding="utf-8"))
        models = list(node.get("models") or ())
        protocols[name] = {"about": node.get("about", ""), "questions": list(node["prompts"]), "models": models}
    return protocols


def show_protocols() -> None:
    """How language models are asked, one line each."""
    print("protocols of language models (method.protocol=...):")
    for name, protocol in _protocols().items():
        models = ", ".join(protocol["models"]) or "for no model by itself"
        wrapped(f"  {name:12} {protocol['about']} [{', '.join(protocol['questions'])}; {models}]", 15)


def show_probes() -> None:
    """Registered probes with their kinds and severities."""
    from vgbench.core.registry import probes
    from vgbench.probes.catalog import probe_class

    print("probes (vgbench stress probes=...; vgbench stress cards says what each shows):")
    for name in probes:
        probe = probe_class(name)
        kinds = ", ".join(kind for kind in probe.kinds if kind)
        levels = f" @1 to @{probe.levels}" if probe.levels else ""
        wrapped(f"  {name:12} {probe.title}{levels}{f': {kinds}' if kinds else ''}", 15)


LISTS: dict[str, Callable[[], None]] = {
    "methods": show_methods,
    "datasets": show_datasets,
    "recipes": show_recipes,
    "flows": show_flows,
    "papers": show_papers,
    "metrics": show_metrics,
    "styles": show_styles,
    "protocols": show_protocols,
    "probes": show_probes,
}


def _dataset_names() -> dict[str, dict[str, Any]]:
    classes = {name: datasets.load(name) for name in datasets}
    return {
        name: {"title": data.title, "tasks": list(data.tasks), "embedded": data.embedded, "splits": list(data.splits)}
        for name, data in classes.items()
    }


def _flow_names() -> list[str]:
    from vgbench.training import flow

    return list(flow.names())


def _paper_names() -> dict[str, list[str]]:
    from vgbench.reproduce.plan import available

    return {paper: list(tables) for paper, tables in available().items()}


def _metric_names() -> dict[str, dict[str, str]]:
    from vgbench.metrics.catalog import variants

    return {task: dict(notes) for task, notes in variants().items()}


def _style_names() -> dict[str, str]:
    from vgbench.predictions.styles import style_classes

    return {name: style.about().replace("``", "") for name, style in style_classes().items()}


def _probe_names() -> dict[str, dict[str, Any]]:
    from vgbench.core.registry import probes
    from vgbench.probes.catalog import probe_class

    classes = {name: probe_class(name) for name in probes}
    return {
        name: {"title": probe.title, "kinds": [kind for kind in probe.kinds if kind], "severities": probe.levels}
        for name, probe in classes.items()
    }


NAMES: dict[str, Callable[[], Any]] = {
    "methods": lambda: {
        name: [option for option in options("method") if option == name or option.startswith(f"{name}_")]
        for name in methods
    },
    "datasets": _dataset_names,
    "recipes": recipes,
    "flows": _flow_names,
    "papers": _paper_names,
    "metrics": _metric_names,
    "styles": _style_names,
    "protocols": _protocols,
    "probes": _probe_names,
}
