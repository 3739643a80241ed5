"""``vgbench data priors`` and ``vgbench data augment``: ResVG's two ideas as files that a run reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from hydra.utils import instantiate

from vgbench.config.compose import compose
from vgbench.core.console import progress
from vgbench.core.errors import UserError
from vgbench.data.additional import AdditionalData
from vgbench.data.dataset import GroundingData
from vgbench.methods.resvg.augment import SEEDS_APART, augment
from vgbench.methods.resvg.instances import categories_in, instances_of
from vgbench.methods.resvg.painters import CopyPaste, LayoutToImage, Painter
from vgbench.methods.resvg.priors import ClipEncoder, DiffusionGenerator, Encoder, Generator, make_priors
from vgbench.methods.resvg.sketch import SketchGenerator, ThumbnailEncoder, sketchers

__all__ = ["augmentation", "priors"]

PRIORS = "data priors: dataset=NAME generator=FOLDER encoder=FOLDER [split=...] [extra_train=FOLDER] [out=FILE]"
AUGMENT = "data augment: dataset=NAME out=FOLDER [split=train] [amount=1000] [seed=0]"
TRAINING = ("train", "pretrain")


def priors(own: Mapping[str, str], rest: Sequence[str]) -> int:
    """Make (or go on making) the prior of every expression of a dataset. ``own``: its keys, ``rest``: configuration.

    ``generator``: a diffusers text-to-image folder, or ``sketch`` (RefShapes: no download). ``encoder``: a CLIP folder,
    or ``thumbnail``, the default of sketches. ``split``: default all but pretrain; ``extra_train``: also the
    expressions of a folder of ``vgbench data augment``. ``shard=i/n``: every n-th expression only, for n machines.
    """
    data = _dataset(rest, PRIORS)
    generator, encoder = _models(own, data)
    shard = _numbers(own.get("shard", "0/1"), "shard", "/")
    if not 0 <= shard[0] < shard[1]:
        raise UserError(f"shard={own['shard']}: count from 0, e.g. shard=0/4 to shard=3/4")
    file = Path(own.get("out", f"priors-{data.name}.parquet")).expanduser()
    if file.suffix != ".parquet":
        raise UserError(f"out={file}: priors are kept as Parquet; give a name that ends in .parquet")
    expressions: list[str] = []
    for split in data.parse_splits(own["split"] if "split" in own else [s for s in data.splits if s != "pretrain"]):
        expressions += data.load(split).arrow.column("expression").to_pylist()
    if "extra_train" in own:
        expressions += (
            AdditionalData.open(Path(own["extra_train"]).expanduser()).table.arrow.column("expression").to_pylist()
        )
    batch, seed = _whole(own, "batch", 8, least=1), _whole(own, "seed", 0)
    with progress(f"{data.name}: {generator.name}") as show:
        new_priors = make_priors(
            expressions, file, generator, encoder, batch_size=batch, seed=seed, shard=shard, progress=show
        )
    print(f"{file}: {new_priors:,} priors made; use them with method.priors={file}")
    return 0


def _models(own: Mapping[str, str], data: GroundingData) -> tuple[Generator, Encoder]:
    name = own.get("generator")
    if name is None:
        raise UserError(f"{PRIORS}: generator= is missing; a local Stable Diffusion folder of diffusers, or sketch")
    device = own.get("device", "cuda" if torch.cuda.is_available() else "cpu")
    generator: Generator
    if name == "sketch":
        sketcher = data.sketcher()
        if sketcher is None:
            titles = ", ".join(one.title for one in sketchers())
            raise UserError(f"generator=sketch knows the words of {titles} only, not of {data.name}; give a folder")
        generator = SketchGenerator(sketcher, _whole(own, "size", 64, least=8))
    else:
        options = {"steps": _whole(own, "steps", 30, least=1), "size": _whole(own, "size", 512, least=8)}
        guidance = _decimal(own, "guidance", 7.5)
        generator = DiffusionGenerator(Path(name).expanduser(), device, guidance=guidance, **options)
    described_by = own.get("encoder", "thumbnail" if name == "sketch" else None)
    if described_by is None:
        raise UserError(f"{PRIORS}: encoder= is missing; a local CLIP folder of transformers (ViT-B/32: 512 numbers)")
    if described_by == "thumbnail":
        return generator, ThumbnailEncoder()
    return generator, ClipEncoder(Path(described_by).expanduser(), device)


def augmentation(own: Mapping[str, str], rest: Sequence[str]) -> int:
    """Write ``amount`` scenes with several instances of one category and queries on their relations.

    ``painter``: copy-paste (default), or the folder of a GLIGEN checkpoint of diffusers. ``instances``: COCO's file
    with all objects of the images; default: the dataset's own, where its layout has one. ``counts``: instances per
    scene, e.g. 2-5.
    """
    data = _dataset(rest, AUGMENT)
    if "out" not in own:
        raise UserError(f"{AUGMENT}: out= is missing; a new folder for the images and their table")
    split = own.get("split", "train")
    if data.check_split(split) not in TRAINING:
        raise UserError(f"data augment: split={split} is for evaluation; scenes made of its images would leak it")
    amount, seed = _whole(own, "amount", 1000, least=1), _whole(own, "seed", 0)
    if amount > SEEDS_APART:
        raise UserError(f"amount={amount}: at most {SEEDS_APART} scenes per folder; make several with other seeds")
    counts = _numbers(own.get("counts", "2-5"), "counts", "-")
    targets = instances_of(data.load(split))
    instances = Path(own["instances"]).expanduser() if "instances" in own else _instances_file(data.sources(split))
    present: Mapping[int, Iterable[str]] = {}
    if instances is None:
        print("no instances file in this layout: a background may hold objects of the category that nobody referred to")
    else:
        present = categories_in(instances)
    painter: Painter
    if own.get("painter", "copy-paste") == "copy-paste":
        painter = CopyPaste(targets, data.image_path, present)
    else:
        categories = sorted({instance.category for instance in targets})
        device = "cuda" if torch.cuda.is_available() else "cpu"
        painter = LayoutToImage.from_folder(Path(own["painter"]).expanduser(), categories, device)
    folder = Path(own["out"]).expanduser()
    with progress(f"{data.name}: {painter.name}") as show:
        table = augment(painter, folder, amount, seed=seed, counts=counts, progress=show)
    print(
        f"{folder}: {amount:,} scenes, {len(table):,} queries; train with recipe.extra_train={folder}, "
        f"look at them with `vgbench data browse extra_train={folder} out=FOLDER`"
    )
    return 0


def _instances_file(sources: Sequence[Path]) -> Path | None:
    return next((path for path in sources if re.fullmatch(r"instances.*\.json", path.name)), None)


def _dataset(rest: Sequence[str], usage: str) -> GroundingData:
    if not any(item.startswith("dataset=") for item in rest):
        raise UserError(f"{usage}: dataset= is missing (vgbench list datasets)")
    return instantiate(compose(rest).dataset)


def _whole(own: Mapping[str, str], key: str, default: int, least: int = 0) -> int:
    text = own.get(key, str(default))
    if not text.isdecimal() or int(text) < least:
        raise UserError(f"{key}={text}: a whole number from {least} on is needed")
    return int(text)


def _decimal(own: Mapping[str, str], key: str, default: float) -> float:
    try:
        return float(own.get(key, default))
    except ValueError:
        raise UserError(f"{key}={own[key]}: a number is needed") from None


def _numbers(text: str, key: str, separator: str) -> tuple[int, int]:
    first, _, second = text.partition(separator)
    if not (first.isdecimal() and second.isdecimal()):
        raise UserError(f"{key}={text}: two whole numbers with {separator!r} between are needed")
    return int(first), int(second)
