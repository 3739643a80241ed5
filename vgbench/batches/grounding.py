"""Loose pictures and expressions, of no data set, grounded by a method in batches."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vgbench.batches.collate import collate
from vgbench.batches.samples import plain_sample
from vgbench.core.errors import UserError
from vgbench.data.table import AnnotationTable
from vgbench.method import GroundingMethod
from vgbench.types import Prediction


@dataclass(frozen=True)
class Query:
    """What is asked.

    Attributes:
        image: name of the image.
        pixels: uint8 RGB [3, H, W].
        expression: what to find in it.
    """

    image: str
    pixels: Tensor
    expression: str


@dataclass(frozen=True)
class Grounded:
    """Answers to queries: a prediction of every output of the method for each, and what they lack."""

    predictions: list[dict[str, Prediction]]
    note: str | None = None


def check_expression(text: str) -> str:
    """An expression as it is.

    Raises:
        UserError: if it has no word, but is empty or punctuation alone; every method would answer with a box anyway.
    """
    if all(unicodedata.category(character)[0] in "PZC" for character in text):
        what = "is empty (is a shell variable unset?)" if not text.strip() else f"has no word: {text!r}"
        raise UserError(f"the expression {what}; say what to find")
    return text


def ground(
    method: GroundingMethod, queries: Sequence[Query], device: torch.device, outputs: Sequence[str] | None = None
) -> Grounded:
    """Ground a batch of queries.

    Args:
        method: moved to ``device`` and set to evaluation.
        queries: at least one.
        device: where the method runs.
        outputs: which of the method's outputs to predict; None: all.
    """
    samples = [plain_sample(query.pixels, query.expression, str(number)) for number, query in enumerate(queries)]
    method.to(device).eval()
    note = None
    try:
        auxiliary = method.auxiliary_inputs(_table(queries))
        for sample in samples if auxiliary else ():
            sample["auxiliary"] = {name: values[sample["key"]] for name, values in auxiliary.items()}
    except UserError as error:
        note = f"grounded without {', '.join(method.auxiliary_shapes)} ({error})"
    transform = method.eval_transform()
    batch = collate([transform(sample) for sample in samples], method.tokenize)
    assert batch is not None
    with torch.set_grad_enabled(method.requires_grad_at_inference):
        by_output = method.start_prediction(batch.to(device), outputs)()
    answers = [dict(zip(by_output, one, strict=True)) for one in zip(*by_output.values(), strict=True)]
    return Grounded(answers, note)


def _table(queries: Sequence[Query]) -> AnnotationTable:
    """The queries as expressions without targets, keyed by their numbers."""
    lists: dict[str, list[Any]] = {name: [] for name in ("boxes", "masks", "polygons", "ann_ids", "categories")}
    identity = {"ref_id": None, "sent_id": None, "group": 0, "source": "predict", "split": "predict"}
    info = {"dataset": "predict", "split": "predict", "task": "rec", "sources": {}}
    rows = []
    for number, query in enumerate(queries):
        size = {"width": query.pixels.shape[-1], "height": query.pixels.shape[-2]}
        place = {"key": str(number), "image": query.image, "image_id": 0, "expression": query.expression}
        rows.append({**place, **size, **identity, **lists})
    return AnnotationTable.from_rows(rows, info)
