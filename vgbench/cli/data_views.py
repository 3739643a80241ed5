"""``vgbench data stats|leakage|browse``: looking at datasets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vgbench.config.actions import Action, Arguments
from vgbench.config.compose import compose
from vgbench.core.errors import MissingData, UserError
from vgbench.core.registry import datasets

if TYPE_CHECKING:
    from vgbench.data.dataset import GroundingData
    from vgbench.data.describe import Statistics
    from vgbench.data.leakage import ImageAliases
    from vgbench.data.table import AnnotationTable


def stats(arguments: Arguments) -> int:
    """Words, boxes and targets of the splits that are there; ``out`` draws them."""
    from vgbench.core.terminal import output_lines
    from vgbench.data import describe

    own, dataset = arguments.own, arguments.dataset()
    splits: dict[str, Statistics] = {}
    missing: list[str] = []  # a user may have the evaluation splits only
    for name in dataset.parse_splits(own.get("split")):
        try:
            splits[name] = describe.statistics(dataset.load(name))
        except UserError as error:
            if "split" in own:
                raise
            missing.append(f"{name}: {error}")
    if not splits:
        raise UserError(missing[0])
    output_lines(describe.table_rows(splits), ["", *splits])
    for line in missing:
        print(f"not read: {line}")
    if "out" in own:
        describe.figure(splits, Path(own["out"]).expanduser())
        print(own["out"])
    return 0


def leakage(arguments: Arguments) -> int:
    """Training images of A (a dataset, a list of image names, an instances file) that are evaluation images of B."""
    from vgbench.data.leakage import leakage as overlap

    own = arguments.own
    if "train" not in own or "eval" not in own:
        raise UserError("data leakage: train= and eval= are missing, e.g. train=refcocog eval=refcoco data_root=data")
    file = Path(own["train"]).expanduser()
    if own["train"] not in datasets and (file.exists() or _is_file_name(own["train"])):
        return _leakage_from_files(file, own["eval"], arguments.overrides)
    trains, aliases = _tables(own["train"], arguments.overrides, training=True)
    evaluations, more = _tables(own["eval"], arguments.overrides, training=False)
    for table in trains.values():
        for split, evaluation in evaluations.items():
            shared = overlap(table, evaluation, {**more, **aliases})
            print(
                f"{own['eval']} {split}: {shared.images:,} of {shared.evaluation_images:,} images are in "
                f"{own['train']} train ({shared.training_expressions:,} training expressions)"
            )
    return 0


def _is_file_name(text: str) -> bool:
    return "/" in text or Path(text).suffix in (".json", ".jsonl", ".txt", ".csv", ".tsv", ".parquet")


def _leakage_from_files(file: Path, evaluation: str, overrides: Sequence[str]) -> int:
    """Images of a list, of a COCO instances file or of a run that are evaluation images."""
    from vgbench.data.image_lists import ImageList

    listed = ImageList.read(file)
    tables, aliases = _tables(evaluation, overrides, training=False)
    for split, table in tables.items():
        shared, images = listed.shared_with(table, aliases)
        print(f"{evaluation} {split}: {shared:,} of {images:,} images are among the {len(listed):,} of {file}")
    return 0


def _tables(name: str, overrides: Sequence[str], training: bool) -> tuple[dict[str, AnnotationTable], ImageAliases]:
    """The training split of a dataset, or its evaluation splits; and which images are of another collection too."""
    from hydra.utils import instantiate

    dataset: GroundingData = instantiate(compose([*overrides, f"dataset={name}"]).dataset)
    splits = [split for split in dataset.splits if split == "train"] if training else dataset.evaluation_splits
    if not splits:
        key, kind = ("train", "training") if training else ("eval", "evaluation")
        raise UserError(f"data leakage: {key}={name}: has no {kind} split, only {', '.join(dataset.splits)}")
    if training:
        return {split: dataset.load(split) for split in splits}, dataset.image_aliases()
    tables: dict[str, AnnotationTable] = {}
    missing: dict[str, MissingData] = {}
    for split in splits:
        try:
            tables[split] = dataset.load(split)
        except MissingData as error:
            missing[split] = error
    if not tables:
        raise next(iter(missing.values()))
    if missing:
        print(f"note: {name} {', '.join(missing)}: no annotations below {dataset.data_root}, not looked at")
    return tables, dataset.image_aliases()


def browse(arguments: Arguments) -> int:
    """Write a page with images, boxes, masks and expressions."""
    from vgbench.data.additional import AdditionalData
    from vgbench.pictures.browse import Shown
    from vgbench.pictures.browse import browse as write_page

    own = arguments.own
    if "out" not in own:
        raise UserError("data browse: out= is missing, a folder for the page, e.g. out=sheet")
    limit = own.get("limit", "60")
    if not limit.isdecimal() or int(limit) < 1:
        raise UserError(f"limit={limit}: how many images to show, a whole number from 1 on")
    tables: list[Shown] = []
    if "extra_train" in own:
        extra = AdditionalData.open(Path(own["extra_train"]).expanduser())
        tables.append((str(extra.folder), extra.table, extra.image_path))
    else:
        if not arguments.names_dataset:
            raise UserError("data browse: say which: dataset=NAME (vgbench list datasets), or extra_train=FOLDER")
        dataset = arguments.dataset()
        first = next((name for name in dataset.splits if name != "train"), "train")
        for name in dataset.parse_splits(own.get("split", first)):
            tables.append((f"{dataset.title} {name}", dataset.load(name), dataset.image_path))
    print(write_page(tables, Path(own["out"]).expanduser(), int(limit)))
    return 0


STATS = Action(
    "stats",
    stats,
    "dataset=refcoco data_root=data out=refcoco.png",
    keys=("split", "out"),
    usage="[out=PICTURE]",
)
LEAKAGE = Action(
    "leakage",
    leakage,
    "train=refcocog eval=refcoco data_root=data",
    keys=("train", "eval"),
    usage="train=DATASET|LIST|FILE eval=DATASET",
)
BROWSE = Action(
    "browse",
    browse,
    "dataset=refcoco data_root=data split=val out=sheet",
    keys=("split", "out", "limit", "extra_train"),
    usage="out=FOLDER [limit=60] [extra_train=FOLDER]",
)
