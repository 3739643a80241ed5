"""The semantic prior: a text-to-image model draws what the expression says, an image encoder describes the drawing.

The official code only reads ready features and ships neither model; what is made here follows the specification's
recommendation: the prompt is the lower-cased expression, one image of 512 x 512 pixels, the seed is a hash of the
expression, the feature is CLIP's projected image embedding, not normalised. One Parquet file holds the features by
expression, so that equal expressions of any split share one drawing.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image as PILImage
from torch import Tensor

from vgbench.checkpoints.read import SAFE_GLOBALS
from vgbench.core.errors import UserError, require_extra
from vgbench.core.files import atomic, ordinary_file
from vgbench.core.torch_files import load_torch
from vgbench.data.table import AnnotationTable
from vgbench.methods.resvg.prompts import prompt, prompt_seed

__all__ = ["ClipEncoder", "DiffusionGenerator", "Encoder", "Generator", "find_priors", "load_priors", "make_priors"]

EXTRA = "priors"


class Generator(Protocol):
    """A text-to-image model. ``name`` identifies model and settings: equal names make equal images."""

    name: str

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[PILImage.Image]:
        """One RGB image per prompt; an image depends on its own prompt and seed only."""
        ...


class Encoder(Protocol):
    """An image encoder. ``name`` identifies it as for :class:`Generator`."""

    name: str

    def __call__(self, images: Sequence[PILImage.Image]) -> Tensor:
        """Features [n, dim] float32 on the CPU."""
        ...


class DiffusionGenerator:
    """A text-to-image pipeline of ``diffusers`` from a local folder (any Stable Diffusion checkpoint).

    Args:
        folder: the checkpoint in the layout of diffusers (with ``model_index.json``).
        device: where to run; half precision on a GPU.
        steps: denoising steps.
        guidance: classifier-free guidance.
        size: side of the square image in pixels.

    Raises:
        UserError: if diffusers is not installed or the folder holds no pipeline.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device | str = "cpu",
        steps: int = 30,
        guidance: float = 7.5,
        size: int = 512,
    ) -> None:
        diffusers = require_extra("diffusers", EXTRA, "generator=diffusion")
        if not (folder / "model_index.json").is_file():
            raise UserError(f"{folder}: no model_index.json; give the folder of a diffusers text-to-image checkpoint")
        dtype = torch.float32 if torch.device(device).type == "cpu" else torch.float16
        try:
            pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{folder}: not a loadable pipeline ({' '.join(str(error).split())})") from None
        if getattr(pipeline, "safety_checker", None) is not None:
            pipeline.safety_checker = None  # it would put out black images, which say nothing about the expression
        self.pipeline = pipeline.to(device, dtype)
        self.pipeline.set_progress_bar_config(disable=True)
        self.device, self.steps, self.guidance, self.size = device, steps, guidance, size
        self.name = f"{folder.resolve().name} steps={steps} guidance={guidance:g} size={size}"

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[PILImage.Image]:
        # A generator per prompt, so that a drawing does not depend on its neighbours in the batch.
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        with torch.inference_mode():
            output = self.pipeline(
                prompt=list(prompts),
                generator=generators,
                num_inference_steps=self.steps,
                guidance_scale=self.guidance,
                height=self.size,
                width=self.size,
                output_type="pil",
            )
        return [image.convert("RGB") for image in output.images]


class ClipEncoder:
    """CLIP's projected image embedding (512 numbers for ViT-B), not normalised, with ``transformers``.

    Args:
        folder: a local CLIP checkpoint (whole or vision part) with its preprocessor configuration.
        device: where to run.

    Raises:
        UserError: if the folder holds no CLIP checkpoint.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

        try:
            self.processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
            model = CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: not a local CLIP checkpoint ({' '.join(str(error).split())[:200]})") from None
        self.model: Any = model.eval()
        self.model.to(device)
        self.device = device
        self.name = folder.resolve().name

    def __call__(self, images: Sequence[PILImage.Image]) -> Tensor:
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"].to(self.device)
        with torch.inference_mode():
            return self.model(pixel_values=pixels).image_embeds.float().cpu()


def make_priors(
    expressions: Iterable[str],
    file: Path,
    generator: Generator,
    encoder: Encoder,
    *,
    batch_size: int = 8,
    seed: int = 0,
    save_every: int = 64,
    shard: tuple[int, int] = (0, 1),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Make the features of all expressions that ``file`` does not have yet.

    What is done is saved every ``save_every`` batches in parts beside the file, so that a stopped run goes on where
    it was; in the end the parts become one Parquet file.

    Args:
        expressions: in any order, with repeats.
        file: the Parquet file to make or to complete.
        batch_size: images at a time.
        seed: mixed into the seed of every image.
        shard: (i, n): only every n-th distinct expression from the i-th on, for n processes with a file each.
        progress: called with (done, total) after each batch.

    Returns:
        number of features made in this call.

    Raises:
        UserError: if ``file`` or its parts were made with another generator, encoder or seed.
    """
    settings = {"generator": generator.name, "encoder": encoder.name, "seed": seed}
    folder = file.with_name(f"{file.name}.parts")
    sources = [path for path in [file, *sorted(folder.glob("*.parquet"))] if path.exists()]
    texts_done = _texts_done(sources, settings)
    own_texts = list(dict.fromkeys(prompt(text) for text in expressions))[shard[0] :: shard[1]]
    missing = [text for text in own_texts if text not in texts_done]
    count = len(own_texts) - len(missing)
    for part_texts in _chunks(missing, batch_size * save_every):
        features = []
        for texts in _chunks(part_texts, batch_size):
            features.append(encoder(generator(texts, [prompt_seed(text, seed) for text in texts])))
            count += len(texts)
            progress(count, len(own_texts))
        part = folder / f"{len(sources):06d}.parquet"
        _write(part, part_texts, torch.cat(features), settings)
        sources.append(part)
    if sources and sources != [file]:
        _join_parts(file, sources)
    _remove_parts(folder)
    return len(missing)


def _texts_done(files: Iterable[Path], settings: dict[str, Any]) -> set[str]:
    """The expressions in ``files``.

    Raises:
        UserError: if one of them was made with other settings.
    """
    texts: set[str] = set()
    for path in files:
        table = _open(path)
        settings_there = _settings(table, path)
        if settings_there != settings:
            raise UserError(
                f"{path}: made with {settings_there}, not with {settings}; give another file, or delete this one"
            )
        texts.update(table.column("expression").to_pylist())
    return texts


def _join_parts(file: Path, parts: Sequence[Path]) -> None:
    tables = [_open(path) for path in parts]
    _replace(file, pa.concat_tables([table.replace_schema_metadata(tables[0].schema.metadata) for table in tables]))


def _remove_parts(folder: Path) -> None:
    for part in folder.glob("*.parquet"):
        part.unlink()
    if folder.exists():
        folder.rmdir()


def find_priors(source: str | Path | Sequence[str | Path], table: AnnotationTable) -> dict[str, Tensor]:
    """The priors that the option ``method.priors`` stands for, as :func:`load_priors` gives them.

    Args:
        source: a Parquet file of :func:`make_priors` or a list of them; a folder as the authors lay it out, with
            ``<split>_fea.pth`` and ``<dataset>_<split>.pth`` (for the training split also ``new_train``); or "sketch":
            sketches of what the words say, painted as they are needed (of datasets that offer it).

    Raises:
        UserError: if there is no such file, or it does not fit.
    """
    if source == "sketch":
        from vgbench.methods.resvg.sketch import sketch_priors

        return sketch_priors(table)
    items = [source] if isinstance(source, (str, Path)) else list(source)
    paths = [Path(item).expanduser() for item in items]
    for path in paths:
        if not path.exists():
            raise UserError(f"method.priors={path}: no such file; make it with `vgbench data priors out={path}`")
    if len(paths) > 1 or paths[0].is_file():
        return load_priors(paths, table)
    split = str(table.info.get("split"))
    for name in [split, "new_train"] if split == "train" else [split]:
        features, index_files = paths[0] / f"{name}_fea.pth", sorted(paths[0].glob(f"*_{name}.pth"))
        if name == "train":
            index_files = [path for path in index_files if not path.stem.endswith("_new_train")]
        if features.is_file() and len(index_files) == 1:
            return load_priors(features, table, index_files[0])
    raise UserError(
        f"{paths[0]}: no {split}_fea.pth with one <dataset>_{split}.pth beside it; give the authors' folder"
    )


def load_priors(file: Path | Sequence[Path], table: AnnotationTable, index: Path | None = None) -> dict[str, Tensor]:
    """The prior of every expression of ``table``, by its key; each a float32 vector.

    Args:
        file: a Parquet file of :func:`make_priors` (or several that were made alike), or the authors'
            ``<split>_fea.pth``.
        table: the expressions.
        index: for the authors' features: their index file ``<dataset>_<split>.pth``, whose records the rows belong to.

    Raises:
        UserError: if the file is damaged or lacks expressions of the table.
    """
    files = [file] if isinstance(file, Path) else list(file)
    if files[0].suffix == ".pth":
        return _official_priors(files[0], table, index)
    parts = [_open(path) for path in files]
    settings = [_settings(part, path) for part, path in zip(parts, files, strict=True)]
    for path, setting in zip(files, settings, strict=True):
        if setting != settings[0]:
            raise UserError(
                f"{path}: made with {setting}, but {files[0].name} with {settings[0]}; use files made alike"
            )
    stored = pa.concat_tables([part.replace_schema_metadata() for part in parts])
    features = stored.column("prior").combine_chunks()
    matrix = torch.from_numpy(np.array(features.flatten())).view(len(features), -1)
    rows = {text: row for row, text in enumerate(stored.column("expression").to_pylist())}
    expressions = [prompt(text) for text in table.arrow.column("expression").to_pylist()]
    missing = [text for text in expressions if text not in rows]
    if missing:
        raise UserError(
            f"{', '.join(map(str, files))}: no prior for {len(missing)} of {len(expressions)} expressions, the first "
            f"is {missing[0]!r}; run `vgbench data priors` on this dataset with the same file, it adds what is missing"
        )
    keys = table.arrow.column("key").to_pylist()
    return {key: matrix[rows[text]] for key, text in zip(keys, expressions, strict=True)}


def _official_priors(file: Path, table: AnnotationTable, index: Path | None) -> dict[str, Tensor]:
    features = _load_torch(file)
    if isinstance(features, (list, tuple)) and all(isinstance(row, Tensor) for row in features):
        features = torch.stack([row.reshape(-1) for row in features])
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise UserError(f"{file}: expected one tensor [records, 512] of prior features")
    if index is None:
        raise UserError(f"{file}: its rows follow an index file; name it too (<dataset>_<split>.pth of the authors)")
    records = _load_torch(index)
    if not isinstance(records, list) or len(records) != len(features):
        count = len(records) if isinstance(records, list) else "no"
        raise UserError(
            f"{index}: {count} records, but {file.name} has {len(features)} rows; they do not belong together"
        )
    rows: dict[tuple[str, str], int] = {}
    for number, record in enumerate(records):
        # (image, unused, box, phrase, unused), or (image, box, phrase) for Flickr30k
        rows.setdefault((PurePosixPath(str(record[0])).name, prompt(str(record[3 if len(record) > 3 else 2]))), number)
    priors, missing = {}, []
    for row in table:
        number = rows.get((PurePosixPath(row.image).name, prompt(row.expression)), -1)
        if number < 0:
            missing.append(row.key)
        else:
            priors[row.key] = features[number].float()
    if missing:
        raise UserError(
            f"{index}: has no record for {len(missing)} of {len(table)} expressions, the first is {missing[0]!r}; "
            "take the index file of this dataset and split"
        )
    return priors


def _load_torch(path: Path) -> Any:
    try:
        return load_torch(path, SAFE_GLOBALS)
    except (OSError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give the authors' file") from None


def _chunks(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _open(path: Path) -> pa.Table:
    try:
        table = pq.read_table(ordinary_file(path))
        _settings(table, path)
        if not pa.types.is_fixed_size_list(table.schema.field("prior").type):
            raise KeyError("prior")
        table.column("expression")
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise UserError(f"{path}: not a file of priors ({error}); make it with `vgbench data priors`") from None
    return table


def _settings(table: pa.Table, path: Path) -> dict[str, Any]:
    metadata = table.schema.metadata or {}
    if b"vgbench" not in metadata:
        raise UserError(f"{path}: not a file of priors; make it with `vgbench data priors`")
    return json.loads(metadata[b"vgbench"])


def _write(path: Path, expressions: Sequence[str], features: Tensor, settings: dict[str, Any]) -> None:
    values = pa.array(features.float().contiguous().numpy().reshape(-1), pa.float32())
    column = pa.FixedSizeListArray.from_arrays(values, features.shape[1])
    table = pa.table({"expression": pa.array(expressions, pa.string()), "prior": column})
    _replace(path, table.replace_schema_metadata({"vgbench": json.dumps(settings)}))


def _replace(path: Path, table: pa.Table) -> None:
    with atomic(path) as temporary:
        pq.write_table(table, temporary)
