"""``vgbench list``: what there is, and what works on this machine."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from vgbench.config.compose import options
from vgbench.core.registry import datasets, methods


def print_catalog(what: str | None) -> int:
    """Print one list, or all of them."""
    if what in (None, "methods"):
        print("methods (method=...):")
        weights = Path(str(files("vgbench.methods")))
        for name in methods:
            choices = [option for option in options("method") if option == name or option.startswith(f"{name}_")]
            shipped = sorted(file.stem for file in (weights / name / "weights").glob("*.safetensors"))
            note = f"; shipped weights for {', '.join(shipped)}" if shipped else ""
            print(f"  {name:12} {', '.join(choices) or '(its defaults)'}{note}")
    if what in (None, "datasets"):
        print("datasets (dataset=...):")
        for name in datasets:
            data = datasets.load(name)
            place = "embedded, generated on first use" if data.embedded else "needs dataset.data_root=FOLDER"
            print(f"  {name:12} {data.title} [{', '.join(data.tasks)}]: {place}")
    if what in (None, "recipes"):
        print("recipes (chosen by method and dataset):")
        print("  " + ", ".join(options("recipe")))
    if what in (None, "flows"):
        from vgbench.training import flow

        print("flows of several stages (vgbench run flow=NAME dataset=...):")
        for name in flow.names():
            found = flow.read(name)
            print(f"  {name:24} {', '.join(found.stages)}: {found.about}")
    if what in (None, "papers"):
        from vgbench.reproduce.plan import available

        print("papers and their tables (vgbench reproduce paper=... table=...):")
        for paper, papers_tables in available().items():
            print(f"  {paper:12} {', '.join(papers_tables)}")
    if what in (None, "metrics"):
        from vgbench.metrics.catalog import variants

        print("metrics and their variants (eval.variants=[task/name,...]):")
        for task, names in variants().items():
            print(f"  {task:12} {', '.join(names)}")
    return 0
