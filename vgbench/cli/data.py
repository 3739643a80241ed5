"""``vgbench data``: look after datasets.

list: which there are; download: fetch files from where the authors put them (``layout=...``, ``part=...``, ``--yes``);
build: read (or generate) splits into the cache; verify: counts against the published ones,
missing and unreadable images, boxes, masks; convert: write another layout (``layout=mdetr out=FOLDER``); stats: words,
boxes and targets per split (``out=FILE.png`` draws them); leakage: training images of A that are evaluation images of B
(``train=A eval=B``); browse: a page with images, boxes, masks and expressions (``out=FOLDER``); priors, augment: side
inputs and training scenes of ResVG (methods/resvg/README.md); register-detectron2: a module that puts the dataset into
Detectron2's catalog (``out=FILE.py``).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from vgbench.config.compose import compose, split_overrides
from vgbench.core.console import progress
from vgbench.core.errors import UserError
from vgbench.data.dataset import GroundingData
from vgbench.data.table import AnnotationTable
from vgbench.data.verify import verify

# keys of an action that are not configuration
OWN_KEYS: dict[str, tuple[str, ...]] = {
    "list": (),
    "download": ("layout", "part"),
    "build": ("split",),
    "verify": ("split",),
    "convert": ("split", "layout", "out"),
    "stats": ("split", "out"),
    "leakage": ("train", "eval"),
    "browse": ("split", "out", "limit", "extra_train"),
    "register-detectron2": ("out",),
}


def main(action: str, overrides: Sequence[str], decode: bool, strict: bool, yes: bool = False) -> int:
    """Run one action; 1 with ``strict`` if ``verify`` finds anything that is not as published, or if the user does not
    want to download after all (``yes``: is not asked)."""
    for flag, given, of in (("--decode", decode, "verify"), ("--strict", strict, "verify"), ("--yes", yes, "download")):
        if given and action != of:
            raise UserError(f"data {action}: {flag} is for data {of} only")
    if action in ("priors", "augment"):
        from vgbench.methods.resvg import commands

        return commands.main(action, overrides)
    own, rest = split_overrides(overrides, *(key for keys in OWN_KEYS.values() for key in keys))
    for key in own:
        if key not in OWN_KEYS[action]:
            there = ", ".join(f"{name}=" for name in OWN_KEYS[action]) or "none"
            hint = "; which layout is read says dataset.layout=" if key == "layout" else ""
            raise UserError(f"data {action}: {key}= is no key of it, its own are: {there}{hint}")
    if action == "list":
        from vgbench.cli.list import print_catalog

        if rest:
            raise UserError(f"data list: takes no arguments, found {rest[0]}")
        return print_catalog("datasets")
    if action == "browse":
        return _browse(own, rest)
    if action == "leakage":
        return _leakage(own, rest)
    if not any(item.startswith("dataset=") for item in rest):
        raise UserError(f"data {action}: say which: dataset=NAME (vgbench list datasets)")
    config = compose(rest)
    data: GroundingData = instantiate(config.dataset)
    if action == "download":
        from vgbench.cli import download as download_command

        root = config.dataset.get("data_root")
        return download_command.main(own, data, None if root is None else Path(root).expanduser(), yes)
    if action == "register-detectron2":
        from vgbench.bridges.detectron2 import write_module

        if "out" not in own:
            raise UserError("data register-detectron2: out= is missing, e.g. out=register_refcoco.py")
        node: Any = OmegaConf.to_container(compose(rest).dataset, resolve=True)
        print(write_module(node, Path(own["out"]).expanduser()))
        return 0
    if action == "verify":
        with progress(f"{data.name}: images") if sys.stderr.isatty() else nullcontext() as show:
            report = verify(data, decode=decode, splits=own.get("split"), progress=show)
        print("\n".join(report.lines()))
        return 1 if strict and not report.ok else 0
    if action == "stats":
        return _statistics(data, own)
    tables = {name: data.load(name) for name in data.parse_splits(own.get("split"))}
    if action == "build":
        for name, table in tables.items():
            print(f"{data.name} {name}: {len(table):,} expressions")
        return 0
    if "layout" not in own or "out" not in own:
        raise UserError("data convert: layout= and out= are missing, e.g. layout=mdetr out=converted")
    from vgbench.data.convert import convert

    # read back by their names alone: what is not the dataset's usual split must not be called as that is
    name = data.name if data.split_by == data.usual_split_by else f"{data.name}-{data.split_by}"
    names = data.layout_names if data.name == type(data).name else {}
    sources = {path for split in tables for path in data.sources(split)}
    for path in convert(tables, own["layout"], Path(own["out"]).expanduser(), name, data.split_by, names, sources):
        print(path)
    return 0


def _browse(own: dict[str, str], rest: Sequence[str]) -> int:
    from vgbench.data.additional import AdditionalData
    from vgbench.pictures.browse import Shown, browse

    if "out" not in own:
        raise UserError("data browse: out= is missing, a folder for the page, e.g. out=sheet")
    limit = own.get("limit", "60")
    if not limit.isdecimal() or int(limit) < 1:
        raise UserError(f"limit={limit}: how many images to show, a whole number from 1 on")
    if "extra_train" in own:
        extra = AdditionalData.open(Path(own["extra_train"]).expanduser())
        shown: list[Shown] = [(str(extra.folder), extra.table, extra.image_path)]
    else:
        if not any(item.startswith("dataset=") for item in rest):
            raise UserError("data browse: say which: dataset=NAME (vgbench list datasets), or extra_train=FOLDER")
        data: GroundingData = instantiate(compose(rest).dataset)
        first = next((name for name in data.splits if name != "train"), "train")
        names = data.parse_splits(own.get("split", first))
        shown = [(f"{data.title} {name}", data.load(name), data.image_path) for name in names]
    print(browse(shown, Path(own["out"]).expanduser(), int(limit)))
    return 0


def _statistics(data: GroundingData, own: dict[str, str]) -> int:
    from vgbench.data import describe
    from vgbench.data.describe import Statistics

    splits: dict[str, Statistics] = {}
    missing: list[str] = []  # a user may have the evaluation splits only
    for name in data.parse_splits(own.get("split")):
        try:
            splits[name] = describe.statistics(data.load(name))
        except UserError as error:
            if "split" in own:
                raise
            missing.append(f"{name}: {error}")
    if not splits:
        raise UserError(missing[0])
    print(describe.text(splits))
    for line in missing:
        print(f"not read: {line}")
    if "out" in own:
        describe.figure(splits, Path(own["out"]).expanduser())
        print(own["out"])
    return 0


def _tables(name: str, rest: Sequence[str], training: bool) -> tuple[dict[str, AnnotationTable], Mapping[int, int]]:
    data: GroundingData = instantiate(compose([*rest, f"dataset={name}"]).dataset)
    wanted = [split for split in data.splits if (split == "train") == training and split != "pretrain"]
    if not wanted:
        key, kind = ("train", "training") if training else ("eval", "evaluation")
        raise UserError(f"data leakage: {key}={name}: has no {kind} split, only {', '.join(data.splits)}")
    return {split: data.load(split) for split in wanted}, data.coco_of_vg()


def _leakage(own: dict[str, str], rest: Sequence[str]) -> int:
    if "train" not in own or "eval" not in own:
        raise UserError("data leakage: train= and eval= are missing, e.g. train=refcocog eval=refcoco data_root=data")
    from vgbench.data.leakage import leakage

    trains, coco_of_vg = _tables(own["train"], rest, training=True)
    evaluations, more = _tables(own["eval"], rest, training=False)
    for table in trains.values():
        for split, evaluated in evaluations.items():
            found = leakage(table, evaluated, {**more, **coco_of_vg})
            print(
                f"{own['eval']} {split}: {found.images:,} of {found.evaluation_images:,} images are in "
                f"{own['train']} train ({found.training_expressions:,} training expressions)"
            )
    return 0
