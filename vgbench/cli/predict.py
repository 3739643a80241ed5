"""``vgbench predict``: ground an expression in an image."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from vgbench.batches.collate import collate
from vgbench.batches.samples import plain_sample
from vgbench.core.errors import UserError
from vgbench.data.checks import BadSample
from vgbench.data.images import decode_image
from vgbench.data.table import AnnotationTable
from vgbench.training.setup import checkpointed_method


def predict(image: Path, expression: str, config: DictConfig, output: Path | None) -> int:
    """Ground one expression in one image; draw it, print JSON.

    Raises:
        UserError: if the image cannot be read or there is no checkpoint.
    """
    from vgbench.pictures import draw

    try:
        pixels = decode_image(image)
    except BadSample as error:
        raise UserError(str(error)) from None
    method, _, _ = checkpointed_method(config)
    device = torch.device("cuda" if torch.cuda.is_available() and config.trainer.accelerator != "cpu" else "cpu")
    method.to(device).eval()
    sample = plain_sample(pixels, expression)
    try:
        if side := method.auxiliary_inputs(_lone_table(image, pixels, expression)):
            sample["auxiliary"] = {name: values[""] for name, values in side.items()}
    except UserError as error:
        print(f"note: grounded without {', '.join(method.auxiliary_shapes)} ({error})", file=sys.stderr)
    batch = collate([method.eval_transform()(sample)], method.tokenize)
    assert batch is not None
    with torch.set_grad_enabled(method.requires_grad_at_inference):
        sets = {name: found[0] for name, found in method.predict(batch.to(device)).items()}
    for name, prediction in sets.items():
        target = output or image.with_name(f"{image.stem}.grounded.png")
        if name not in ("main", method.outputs[0]):
            target = target.with_name(f"{target.stem}-{name}{target.suffix}")
        draw.save(draw.draw(pixels, expression, prediction=prediction), target)
        answer = {
            "image": str(image),
            "expression": expression,
            "method": method.name,
            "prediction_set": name,
            "boxes": [[round(value, 2) for value in box] for box in prediction.boxes.tolist()],
            "scores": [round(value, 4) for value in prediction.scores.tolist()],
            "no_target": prediction.no_target,
            "point": prediction.point,
            "mask": prediction.mask,
            "picture": str(target),
        }
        print(json.dumps(answer))
    return 0


def _lone_table(image: Path, pixels: torch.Tensor, expression: str) -> AnnotationTable:
    """One expression without a target, under the key ""."""
    lists: dict[str, list[Any]] = {name: [] for name in ("boxes", "masks", "polygons", "ann_ids", "categories")}
    place = {"image": image.name, "image_id": 0, "width": pixels.shape[-1], "height": pixels.shape[-2]}
    identity = {"key": "", "ref_id": None, "sent_id": None, "group": 0, "source": "predict", "split": "predict"}
    info = {"dataset": "predict", "split": "predict", "task": "rec", "sources": {}}
    return AnnotationTable.from_rows([{**place, **identity, **lists, "expression": expression}], info)
