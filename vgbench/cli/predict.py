"""``vgbench predict``: ground an expression in an image."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgbench.config.compose import compose
from vgbench.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from vgbench.data.table import AnnotationTable
    from vgbench.method import GroundingMethod
    from vgbench.types import Prediction

NAME = "predict"
HELP = "Ground an expression in an image: draws the result, prints JSON."
EXAMPLE = 'vgbench predict image.jpg "the red mug left of the sink" checkpoint=runs/alvg-refcoco'
TAKES_PLUGINS = True


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument("image", type=Path)
    parser.add_argument("expression")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="checkpoint=... and the like")
    parser.add_argument(
        "-o", "--output", type=Path, help="picture to write (default: <image>.grounded.png in the working directory)"
    )


def execute(arguments: Namespace) -> int:
    """Ground one expression in one image; draw it, print one line of JSON per output of the method.

    Raises:
        UserError: if the image cannot be read or there is no checkpoint.
    """
    from vgbench.data.checks import BadSample
    from vgbench.data.images import decode_image
    from vgbench.pictures import draw
    from vgbench.training.setup import checkpointed_method

    overrides = arguments.overrides
    if not any(item.startswith(("checkpoint=", "method=")) for item in overrides):
        overrides = [*overrides, "checkpoint=shipped"]
        print(
            "note: no checkpoint= was given: toy weights answer, trained on rendered scenes; they know nothing of "
            "photographs; checkpoint=runs/RUN, hf://ORG/NAME or an official file takes a real model",
            file=sys.stderr,
        )
    config = compose(overrides)
    image, expression = arguments.image, arguments.expression
    try:
        pixels = decode_image(image, upright=True)
    except BadSample as error:
        raise UserError(str(error)) from None
    method, _, _ = checkpointed_method(config)
    predictions = _ground(method, pixels, expression, image.name, on_cpu=config.trainer.accelerator == "cpu")
    for name, prediction in predictions.items():
        picture = arguments.output or Path(f"{image.stem}.grounded.png")
        if name not in ("main", method.outputs[0]):
            picture = picture.with_name(f"{picture.stem}-{name}{picture.suffix}")
        draw.save(draw.draw(pixels, expression, prediction=prediction), picture)
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
            "picture": str(picture),
        }
        if prediction.answer is not None:
            answer["words"] = prediction.answer
        print(json.dumps(answer))
    return 0


def _ground(
    method: GroundingMethod, pixels: Tensor, expression: str, image: str, on_cpu: bool
) -> dict[str, Prediction]:
    """The prediction of every output of ``method`` for an RGB image [3, H, W] (uint8), on the GPU if there is one."""
    import torch

    from vgbench.batches.collate import collate
    from vgbench.batches.samples import plain_sample

    device = torch.device("cuda" if torch.cuda.is_available() and not on_cpu else "cpu")
    method.to(device).eval()
    sample = plain_sample(pixels, expression)
    try:
        if auxiliary := method.auxiliary_inputs(_lone_table(image, pixels, expression)):
            sample["auxiliary"] = {name: values[""] for name, values in auxiliary.items()}
    except UserError as error:
        print(f"note: grounded without {', '.join(method.auxiliary_shapes)} ({error})", file=sys.stderr)
    batch = collate([method.eval_transform()(sample)], method.tokenize)
    assert batch is not None
    with torch.set_grad_enabled(method.requires_grad_at_inference):
        return {name: predictions[0] for name, predictions in method.predict(batch.to(device)).items()}


def _lone_table(image: str, pixels: Tensor, expression: str) -> AnnotationTable:
    """One expression without a target, under the key ""."""
    from vgbench.data.table import AnnotationTable

    lists: dict[str, list[Any]] = {name: [] for name in ("boxes", "masks", "polygons", "ann_ids", "categories")}
    place = {"image": image, "image_id": 0, "width": pixels.shape[-1], "height": pixels.shape[-2]}
    identity = {"key": "", "ref_id": None, "sent_id": None, "group": 0, "source": "predict", "split": "predict"}
    info = {"dataset": "predict", "split": "predict", "task": "rec", "sources": {}}
    return AnnotationTable.from_rows([{**place, **identity, **lists, "expression": expression}], info)
