"""Models by name: loading one, asking it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch

from vgbench.api.answer import Answer
from vgbench.api.overrides import as_overrides
from vgbench.api.pictures import as_pixels
from vgbench.batches.grounding import Query, check_expression, ground
from vgbench.config.compose import compose
from vgbench.core.errors import UserError
from vgbench.core.registry import methods
from vgbench.method import GroundingMethod
from vgbench.predictions.table import Predictions
from vgbench.training import weights
from vgbench.training.setup import checkpointed_method
from vgbench.types import Prediction

if TYPE_CHECKING:
    from vgbench.api.data import Split
    from vgbench.api.pictures import Picture

BATCH = 16  # samples that are predicted at once


def load(name: str | Path, method: str | None = None, device: str | None = None, **options: Any) -> Model:
    """A trained model.

    Args:
        name: a run folder ("runs/alvg-refcoco"), a file of weights, "hf://ORG/NAME" of the Hub, "shipped:METHOD" or
            "shipped:METHOD/DATASET", or a checkpoint of the authors with ``method``.
        method: which method an authors' checkpoint is of, "simvg" or a configuration of it, "alvg_large".
        device: "cpu", "cuda:0", ...; None: the GPU if there is one.
        options: options of the method, e.g. ``tokenizer="beit3.spm"``.

    Raises:
        UserError: if there is no such file, nobody says of which method it is, or it does not fit.
    """
    overrides = checkpoint_overrides(str(name), method)
    config = compose([*overrides, *as_overrides({f"method.{key}": value for key, value in options.items()})])
    built, path, _ = checkpointed_method(config)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Model(built.to(place).eval(), path)


def checkpoint_overrides(name: str, method: str | None = None) -> list[str]:
    """The overrides that make ``checkpoint=`` of a name, with the method that the file itself names.

    Raises:
        UserError: as :func:`load`.
    """
    if weights.is_shipped(name) and ":" in name:
        owner, _, dataset = name.partition(":")[2].partition("/")
        return as_overrides({"method": owner, "checkpoint": f"shipped:{dataset}" if dataset else "shipped"})
    checkpoint = as_overrides({"checkpoint": name})
    if method is not None:
        return [*as_overrides({"method": method}), *checkpoint]
    stored = weights.method_config(weights.resolve(name))
    registered = methods.name_of(methods.by_path(stored["_target_"])) if stored else None
    if registered is None:
        raise UserError(f"{name}: does not say which method it is of; add method=, one of {', '.join(methods)}")
    return [f"method={registered}", *checkpoint]


class Model:
    """A method with trained weights that is asked about pictures.

    Attributes:
        method: the :class:`~vgbench.method.GroundingMethod`, in evaluation mode on its device.
        path: the file of its weights; None: it has none here (a server).
    """

    def __init__(self, method: GroundingMethod, path: Path | None) -> None:
        self.method, self.path = method, path

    @property
    def name(self) -> str:
        """What leaderboards call it."""
        return self.method.title or self.method.name

    @property
    def outputs(self) -> tuple[str, ...]:
        """Heads that answer each for itself; the first one is asked unless another is named."""
        return self.method.outputs

    @overload
    def predict(self, image: Picture, text: str, output: str | None = None) -> Answer: ...  # type: ignore[overload-overlap]

    @overload
    def predict(
        self, image: Picture | Sequence[Picture], text: Sequence[str], output: str | None = None
    ) -> list[Answer]: ...

    def predict(self, image: Any, text: str | Sequence[str], output: str | None = None) -> Answer | list[Answer]:
        """Ground a text in an image, several texts in one image, or one text in each of several images.

        Args:
            image: a file, PIL image, array or tensor (:func:`~vgbench.api.pictures.as_pixels`), or a list of them.
            text: an expression, or a list: of one image all of them, of several images one for each.
            output: one of :attr:`outputs`.

        Returns:
            an answer, or a list in the order of the texts.

        Raises:
            UserError: for an image that cannot be read, an output that there is not, or lists of different lengths.
        """
        texts = [text] if isinstance(text, str) else list(text)
        images = [as_pixels(one) for one in image] if isinstance(image, (list, tuple)) else [as_pixels(image)]
        if len(images) not in (1, len(texts)):
            raise UserError(f"{len(images)} images and {len(texts)} texts; give one text for each image")
        pictures = images * len(texts) if len(images) == 1 else images
        for one in texts:
            if not isinstance(one, str) or not one.strip():
                raise UserError(f"{one!r} is no expression; give words")
            check_expression(one)
        answers = []
        for start in range(0, len(texts), BATCH):
            part = slice(start, start + BATCH)
            predictions = self._ground(pictures[part], texts[part], output)
            answers += [Answer.of(*one) for one in zip(predictions, texts[part], pictures[part], strict=True)]
        return answers[0] if isinstance(text, str) else answers

    def _ground(self, pictures: Sequence[np.ndarray], texts: Sequence[str], output: str | None) -> list[Prediction]:
        method, chosen = self.method, output or self.method.outputs[0]
        if chosen not in method.outputs:
            raise UserError(f"{self.name} has no output {chosen!r}; there are: {', '.join(method.outputs)}")
        queries = [
            Query("", torch.from_numpy(pixels).permute(2, 0, 1), text)
            for pixels, text in zip(pictures, texts, strict=True)
        ]
        device = next((parameter.device for parameter in method.parameters()), torch.device("cpu"))
        grounded = ground(method, queries, device, (chosen,) if len(method.outputs) > 1 else None)
        if grounded.note:
            warnings.warn(grounded.note, stacklevel=3)
        return [predictions[chosen] for predictions in grounded.predictions]

    def predict_split(self, data: Split, limit: int | None = None, output: str | None = None) -> Predictions:
        """Predictions for a split (:func:`vgbench.dataset`), as :func:`vgbench.evaluate` takes them.

        ``limit``: the first so many expressions only; score them with ``data[:limit]``.
        """
        count = len(data) if limit is None else min(limit, len(data))
        predictions: list[Prediction] = []
        for start in range(0, count, BATCH):
            examples = [data[index] for index in range(start, min(start + BATCH, count))]
            predictions += self._ground([one.pixels for one in examples], [one.text for one in examples], output)
        return Predictions.from_list([data.table.row(index).key for index in range(count)], predictions)

    def __repr__(self) -> str:
        return f"Model({self.name}, {self.path})"
