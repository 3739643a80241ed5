"""A model's own processor: reading it from a folder, its limits, and the size in which it hands a picture over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
Picture = Any  # PIL.Image.Image


def model_type(folder: Path, option: str = "method.model") -> str:
    """``model_type`` of a folder's config.json.

    Raises:
        UserError: if there is none.
    """
    try:
        node = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(node["model_type"])
    except OSError:
        raise UserError(
            f"{folder}: no config.json; {option}= must be a folder that save_pretrained() wrote, or a download"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/config.json: no model_type ({error}); copy the folder again") from None


def read_processor(folder: Path, min_pixels: int | None = None, max_pixels: int | None = None) -> Any:
    """The processor of a folder; no code in the folder is run.

    Args:
        min_pixels, max_pixels: limits of the picture, for processors that keep pictures within such limits.

    Raises:
        UserError: if the folder has none, transformers cannot read it, or it knows no such limits.
    """
    from transformers import AutoProcessor

    if not any((folder / name).is_file() for name in PROCESSOR_FILES):
        raise UserError(
            f"{folder}: no processor in it ({' or '.join(PROCESSOR_FILES)}); copy these files from where the model "
            "is from"
        )
    limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    limits = {name: value for name, value in limits.items() if value is not None}
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **limits)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{folder}: transformers cannot read the processor: {reason}") from error
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise UserError(f"{folder}: its processor is none of pictures and text; is this an image-text-to-text model?")
    now = pixel_limits(processor)
    for name, value in limits.items():
        if now.get(name) != value:
            raise UserError(f"method.{name}={value}: the processor of {folder} knows no such limit; leave it out")
    return processor


def pixel_limits(processor: Any) -> dict[str, int]:
    """``min_pixels`` and ``max_pixels`` of a processor that keeps pictures within limits, else an empty dictionary."""
    images = processor.image_processor
    size = dict(images.size or {}) if hasattr(images, "size") else {}
    if not hasattr(images, "merge_size") or "longest_edge" not in size:  # elsewhere these are sides, not areas
        values = {name: getattr(images, name, None) for name in ("min_pixels", "max_pixels")}
        return {name: value for name, value in values.items() if isinstance(value, int)}
    return {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}


def own_resolution(processor: Any) -> list[str]:
    """What a processor without limits of pixels says of sizes and tiles, e.g. ["height=448", "max_patches=12"]."""
    images = processor.image_processor
    size = dict(getattr(images, "size", None) or {})
    tiles = {
        name: getattr(images, name, None) for name in ("max_patches", "do_image_splitting", "image_grid_pinpoints")
    }
    return [f"{name}={value}" for name, value in (size | tiles).items() if value]


def seen_sizes(processor: Any, inputs: Any, count: int) -> list[tuple[int, int] | None]:
    """(width, height) of each picture as the model sees it, from what the processor made of it.

    None where the processor gives no single size: pictures in tiles.

    Args:
        inputs: what the processor returned for ``count`` pictures.
    """
    grid = inputs.get("image_grid_thw")
    if grid is not None:
        side = int(processor.image_processor.patch_size)
        return [(int(columns) * side, int(rows) * side) for _, rows, columns in grid.tolist()]
    pixels = inputs.get("pixel_values")
    if pixels is not None and pixels.ndim == 4 and pixels.shape[0] == count:
        return [(int(pixels.shape[-1]), int(pixels.shape[-2]))] * count
    return [None] * count


def seen_size(processor: Any, picture: Picture) -> tuple[int, int] | None:
    """:func:`seen_sizes` of one picture, without a question."""
    return seen_sizes(processor, processor.image_processor(images=[picture], return_tensors="pt"), 1)[0]
