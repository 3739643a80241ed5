"""``vgbench data list|build|verify|convert|register-detectron2``: files on disk and what is made of them."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vgbench.config.actions import Action, Arguments
from vgbench.core.errors import UserError


def show_list(arguments: Arguments) -> int:
    """Which datasets there are; of one (dataset=NAME) the files that are read, a line for each layout."""
    from vgbench.cli.list import show_datasets

    if arguments.names_dataset:
        dataset = arguments.dataset()
        place = "generated on first use; its files" if dataset.embedded else "in data_root=FOLDER, one of"
        print(f"{dataset.title} (dataset={dataset.name}): {place}", *dataset.expected_files(), sep="\n  ")
    elif arguments.overrides:
        raise UserError(f"data list: takes dataset=NAME or nothing, found {arguments.overrides[0]}")
    else:
        show_datasets()
    return 0


def build(arguments: Arguments) -> int:
    """Read (or generate) splits into the cache."""
    dataset = arguments.dataset()
    tables = {name: dataset.load(name) for name in dataset.parse_splits(arguments.own.get("split"))}
    for name, table in tables.items():
        print(f"{dataset.name} {name}: {len(table):,} expressions")
    return 0


def check(arguments: Arguments) -> int:
    """Counts against the published ones, missing and unreadable images, boxes, masks; 1 with --strict if anything is
    not as published."""
    from vgbench.core.console import progress
    from vgbench.data.verify import verify

    dataset = arguments.dataset()
    with progress(f"{dataset.name}: images") if sys.stderr.isatty() else nullcontext() as show:
        decode = "--decode" in arguments.flags
        report = verify(dataset, decode=decode, splits=arguments.own.get("split"), progress=show)
    if "--json" in arguments.flags:
        print(json.dumps({**asdict(report), "differences": report.differences, "ok": report.ok}, indent=1))
    else:
        print("\n".join(report.lines()))
    return 1 if "--strict" in arguments.flags and not report.ok else 0


def write_layout(arguments: Arguments) -> int:
    """Write splits in another layout."""
    from vgbench.data.convert import convert

    own, dataset = arguments.own, arguments.dataset()
    tables = {name: dataset.load(name) for name in dataset.parse_splits(own.get("split"))}
    if "layout" not in own or "out" not in own:
        raise UserError("data convert: layout= and out= are missing, e.g. layout=mdetr out=converted")
    # read back by their names alone: what is not the dataset's usual split must not be called as that is
    usual = dataset.split_by == dataset.usual_split_by
    name = dataset.name if usual else f"{dataset.name}-{dataset.split_by}"
    folder = Path(own["out"]).expanduser()
    for path in convert(tables, own["layout"], folder, name, dataset):
        print(path)
    return 0


def register_detectron2(arguments: Arguments) -> int:
    """Write a module that puts the dataset into Detectron2's catalog."""
    from omegaconf import OmegaConf

    from vgbench.bridges.detectron2 import write_module

    config = arguments.config()
    if "out" not in arguments.own:
        raise UserError("data register-detectron2: out= is missing, e.g. out=register_refcoco.py")
    node: Any = OmegaConf.to_container(config.dataset, resolve=True)
    print(write_module(node, Path(arguments.own["out"]).expanduser()))
    return 0


LIST = Action("list", show_list, "dataset=refcoco", usage="[dataset=NAME]")
BUILD = Action("build", build, "dataset=refcoco data_root=data", keys=("split",))
VERIFY = Action(
    "verify",
    check,
    "dataset=refcoco data_root=data --decode",
    keys=("split",),
    flags={
        "--decode": "decode every image, not only its header",
        "--strict": "exit 1 on any difference",
        "--json": "print the report as JSON",
    },
)
CONVERT = Action(
    "convert",
    write_layout,
    "dataset=refcoco data_root=data layout=mdetr out=converted",
    keys=("split", "layout", "out"),
    usage="layout=... out=FOLDER",
)
REGISTER_DETECTRON2 = Action(
    "register-detectron2",
    register_detectron2,
    "dataset=refcoco data_root=data out=register_refcoco.py",
    keys=("out",),
    usage="out=FILE.py",
)
