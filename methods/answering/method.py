"""The base of methods that ask a language model for boxes in words: questions, kept answers, reading, notes."""

from __future__ import annotations

import hashlib
import json
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from vgbench.core.errors import UserError
from vgbench.data.table import AnnotationTable
from vgbench.method import EvaluationOnly
from vgbench.methods.answering.captions import CAPTION, Captions, phrase_part
from vgbench.methods.answering.journal import Journal, Words
from vgbench.methods.answering.protocol import Protocol
from vgbench.methods.answering.segmenter import Segmenter
from vgbench.predictions import styles
from vgbench.predictions.styles.base import AnswerStyle, TextAnswer
from vgbench.types import Batch, Geometry, Prediction, Sample, Transform, Usage

SEGMENTED = "segmenter"  # the output with masks
MEAN_COLOUR = (122, 116, 104)  # OpenAI CLIP's mean: what LLaVA pads pictures with


@dataclass(frozen=True)
class Question:
    """One expression to ask about.

    Attributes:
        key: of the expression in the annotation table.
        picture: RGB, as the model is given it.
        image: (width, height) of the original image.
        prompt: the text.
        digest: of all that makes the answer what it is: a stored answer with the same digest is its answer.
    """

    key: str
    picture: Image.Image
    image: tuple[int, int]
    prompt: str
    digest: str


Save = Callable[[Question, Words], None]


class _Untouched:
    """Images as they are, in sizes of their own: the model's processor resizes them."""

    def __call__(self, sample: Sample) -> Sample:
        image = sample["image"].as_subclass(Tensor)
        height, width = image.shape[-2:]
        geometry = Geometry((1.0, 1.0), (0.0, 0.0), (height, width), (height, width))
        return {**sample, "image": tv_tensors.Image(image), "geometry": geometry}  # type: ignore[typeddict-item]


class AnsweringMethod(EvaluationOnly):
    """Asks, keeps every answer as it comes, reads it after the protocol's style.

    Args:
        protocol: how to ask and to read.
        segmenter: folder of a promptable segmenter that makes masks from the boxes; None: no masks.
        captions: file with the caption that every phrase stands in (:class:`Captions`): the caption is asked for as a
            whole, and what stands behind the phrase is read; None: the expression itself is asked for.

    Raises:
        UserError: if the protocol has no question for captions, or a folder or file is damaged.
    """

    pad_id = 0
    text_shape = (1, 1)  # the model reads the text itself
    steady = False
    file_options: ClassVar[frozenset[str]] = frozenset({"segmenter", "captions"})
    fill: tuple[int, int, int] = MEAN_COLOUR

    def __init__(self, protocol: Protocol, segmenter: str | None, captions: str | None = None) -> None:
        super().__init__()
        self.protocol = protocol
        self.style: AnswerStyle = styles.style(protocol.style)
        self.answer_style = protocol.style
        self.question = next(iter(protocol.prompts))
        self.captions = Captions(Path(captions).expanduser()) if captions else None
        if self.captions is not None:
            if "caption" not in protocol.prompts:
                raise UserError(f"method.captions={captions}: protocol {protocol.name} asks for no whole captions")
            self.auxiliary_shapes = {CAPTION: (1,)}
        self.segmenter = Segmenter(segmenter) if segmenter else None
        self.wants_masks = self.segmenter is not None
        self.tasks = protocol.tasks
        self.journal: Journal | None = None
        if self.segmenter is not None:
            self.outputs = ("main", SEGMENTED)
            masks = {"rec": "res", "grec": "gres"}
            self.output_tasks = {
                "main": protocol.tasks,
                SEGMENTED: frozenset(masks[task] for task in protocol.tasks if task in masks),
            }
            self.tasks = self.tasks | self.output_tasks[SEGMENTED]

    @property
    def output_labels(self) -> dict[str, str]:  # type: ignore[override]
        """The row of the masks is named after both models."""
        return {} if self.segmenter is None else {SEGMENTED: f"{self.title or self.name} + {self.segmenter.name}"}

    @property
    def variant(self) -> str:
        """The protocol: it belongs to every number."""
        return self.protocol.name

    @abstractmethod
    def ask(self, questions: Sequence[Question], save: Save) -> None:
        """Ask; ``save`` every answer as soon as it is there."""

    @property
    @abstractmethod
    def decoding(self) -> dict[str, Any]:
        """What makes answers what they are besides prompt and picture: model, decoding, limits of the picture."""

    def eval_transform(self) -> Transform:
        return _Untouched()

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        ids = torch.zeros(len(texts), 1, dtype=torch.int64)
        return ids, ids.bool()

    def prepare(self, folder: Path, tasks: Collection[str]) -> None:
        """Choose the question that suits the tasks; answers are kept in the run folder."""
        self.prepare_questions(tasks)
        self.journal = Journal(folder, int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))))

    def prepare_questions(self, tasks: Collection[str]) -> None:
        """Choose the kind of question whose answers are scored in these tasks."""
        boxes = {"res": "rec", "gres": "grec"}
        asked = self.protocol.question({boxes.get(task, task) for task in tasks})
        self.question = "caption" if self.captions is not None else asked

    def auxiliary_inputs(self, table: AnnotationTable) -> Mapping[str, Mapping[str, Tensor]]:
        return {} if self.captions is None else {CAPTION: self.captions.numbers(table)}

    def predict(self, batch: Batch, outputs: Sequence[str] | None = None) -> dict[str, list[Prediction]]:
        """Boxes in the order in which the model wrote them, all with score 1, and its words."""
        wanted = self.outputs if outputs is None else outputs
        images = [self._image(batch, index) for index in range(len(batch))]
        keys = batch.keys or [""] * len(batch)
        texts = list(batch.texts)
        if self.captions is not None and CAPTION in batch.auxiliary:
            texts = [self.captions.texts[number] for number in batch.auxiliary[CAPTION][:, 0].tolist()]
        questions = [self._question(*item) for item in zip(keys, images, texts, strict=True)]
        words = self._answers(questions)
        if texts != list(batch.texts):
            pairs = zip(words, batch.texts, strict=True)
            words = [replace(each, text=phrase_part(each.text, phrase)) for each, phrase in pairs]
        answers = [self.style.read(each.text, each.image, each.size) for each in words]
        predictions = [self._prediction(*pair) for pair in zip(answers, words, strict=True)]
        made = {"main": predictions}
        if SEGMENTED in wanted and self.segmenter is not None:
            made[SEGMENTED] = [self._segmented(*pair) for pair in zip(predictions, images, strict=True)]
        return {name: made[name] for name in wanted}

    def _image(self, batch: Batch, index: int) -> Image.Image:
        height, width = batch.geometry[index].size
        pixels = batch.image[index, :, :height, :width].round().clamp(0, 255).to(torch.uint8)
        return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())

    def _question(self, key: str, image: Image.Image, expression: str) -> Question:
        picture = framed(image, self.style.coordinates.frame, self.fill)
        prompt = self.protocol.prompt(self.question, expression)
        asked = [prompt, self.protocol.system, self.protocol.chat, picture.size, self.decoding]
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
        digest.update(picture.tobytes())
        return Question(key, picture, image.size, prompt, digest.hexdigest())

    def _answers(self, questions: Sequence[Question]) -> list[Words]:
        """The words to every question: those on disk, and the model's."""
        fresh: dict[str, Words] = {}
        open_questions: dict[str, Question] = {}
        for question in questions:
            if self.journal is None or question.digest not in self.journal:
                open_questions.setdefault(question.digest, question)

        def save(question: Question, words: Words) -> None:
            fresh[question.digest] = words
            if self.journal is not None:
                self.journal.add(question.digest, question.key, words)

        if open_questions:
            self.ask(list(open_questions.values()), save)
        return [
            fresh[question.digest] if question.digest in fresh else self._stored(question.digest)
            for question in questions
        ]

    def _stored(self, digest: str) -> Words:
        assert self.journal is not None
        return self.journal.reuse(digest)

    def _prediction(self, answer: TextAnswer, words: Words) -> Prediction:
        geometry = None
        if words.size is not None:
            (width, height), (seen_width, seen_height) = words.image, words.size
            scale = (seen_width / width, seen_height / height)
            geometry = Geometry(scale, (0.0, 0.0), (height, width), (seen_height, seen_width))
        prediction = answer.prediction(words.text, geometry)
        if prediction.point is None and len(prediction.boxes):
            x1, y1, x2, y2 = prediction.boxes[0].tolist()
            prediction.point = (int((x1 + x2) / 2), int((y1 + y2) / 2))
        return prediction

    def _segmented(self, prediction: Prediction, image: Image.Image) -> Prediction:
        """Masks of the box that counts: the first for one target, all of them for any number."""
        assert self.segmenter is not None
        boxes = prediction.boxes if self.question == "any" else prediction.boxes[:1]
        mask = self.segmenter.union(image, torch.as_tensor(boxes))
        return Prediction(prediction.boxes, prediction.scores, mask=mask, no_target=prediction.no_target)

    def usage(self) -> Usage | None:
        if self.journal is None:
            return None
        words = list(self.journal.all().values())
        counts = [
            None if any(value is None for value in values) else sum(value or 0 for value in values)
            for values in ([each.prompt_tokens for each in words], [each.answer_tokens for each in words])
        ]
        return Usage(len(words), len(self.journal.reused), counts[0], counts[1], sum(each.seconds for each in words))

    def notes(self) -> list[str]:
        """The protocol in full, and how the answers were read."""
        notes = self.protocol.notes(self.question)
        if "pointing" in self.tasks and self.question != "point":
            notes.append("points are the centres of the first boxes")
        if self.captions is not None:
            notes.append("captions were asked for as a whole; read is what stands behind the phrase in the answer")
        if self.segmenter is not None:
            notes.append(f"masks: those of {self.segmenter.name} in the predicted boxes")
        words = [] if self.journal is None else list(self.journal.all().values())
        ends = Counter(each.remark for each in words if each.remark)
        return notes + [f"{count} of {len(words)} answers ended with {end!r}" for end, count in ends.most_common()]


def framed(image: Image.Image, frame: str, fill: tuple[int, int, int]) -> Image.Image:
    """The picture that a model gets whose coordinates are measured in a frame: "square" and "corner" are padded."""
    if frame not in ("square", "corner") or image.width == image.height:
        return image
    side = max(image.size)
    canvas = Image.new("RGB", (side, side), fill)
    place = ((side - image.width) // 2, (side - image.height) // 2) if frame == "square" else (0, 0)
    canvas.paste(image, place)
    return canvas


def required(value: Any, key: str, what: str) -> Any:
    """An option that has no default.

    Raises:
        UserError: if it is not set.
    """
    if value is None:
        raise UserError(f"method.{key}= is missing: {what}")
    return value
