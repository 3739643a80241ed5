"""Grounding models of transformers as grounding methods: the expression is the only thing to look for.

Preprocessing, tokenisation and the meaning of scores and boxes are those of the model's own processor; nothing is
trained here. The ranked boxes of an expression are a detector's boxes by their score for it, or the boxes that a
language model writes down, in the order in which it writes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors

from vgbench.checkpoints.names import LoadReport
from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file
from vgbench.core.hub import local_path
from vgbench.core.published import PublishedFile
from vgbench.layers.boxes import cxcywh_to_xyxy
from vgbench.method import EvaluationOnly
from vgbench.types import Batch, Geometry, Prediction, Sample, Transform

#: Model type -> how it reads text: "caption" (a text whose phrases are looked for), "query" (one text per class),
#: "generate" (an instruction; the answer is text with the caption's phrases, each followed by its boxes).
FAMILIES = {
    "grounding-dino": "caption",
    "mm-grounding-dino": "caption",
    "owlvit": "query",
    "owlv2": "query",
    "florence2": "generate",
}
TASK = "<CAPTION_TO_PHRASE_GROUNDING>"  # of Florence-2
BEAMS = 3  # of Florence-2's model card


def _architecture(folder: Path, family: str) -> Any:
    """The auto class of transformers for a family (see :data:`FAMILIES`)."""
    import transformers

    if family != "generate":
        return transformers.AutoModelForZeroShotObjectDetection
    if getattr(transformers, "Florence2ForConditionalGeneration", None) is None:
        raise UserError(f"{folder}: transformers {transformers.__version__} has no Florence-2; install 4.56 or later")
    return transformers.AutoModelForImageTextToText


class _Transform:
    """The model's image processor on one image, then padding to ``canvas`` so that images stack.

    Args:
        processor: image processor of transformers.
        canvas: side that processed images are padded to, right and below; None: they all have one size.
        square: the processor pads the image to a square before it resizes it (OWLv2).
    """

    def __init__(self, processor: Any, canvas: int | None, square: bool) -> None:
        self.processor, self.canvas, self.square = processor, canvas, square

    def __call__(self, sample: Sample) -> Sample:
        image = sample["image"].as_subclass(Tensor)
        height, width = image.shape[-2:]
        pixels = self.processor(images=image, return_tensors="pt")["pixel_values"][0]
        new_height, new_width = pixels.shape[-2:]
        scale = (new_width / width, new_height / height)
        if self.square:
            scale = (new_width / max(height, width),) * 2
        pad = torch.zeros(new_height, new_width, dtype=torch.bool)
        if self.canvas is not None:
            rest = (0, self.canvas - new_width, 0, self.canvas - new_height)
            pixels, pad = F.pad(pixels, rest), F.pad(pad, rest, value=True)
        geometry = Geometry(scale, (0.0, 0.0), (height, width), (pixels.shape[-2], pixels.shape[-1]))
        boxes = geometry.to_network(sample["boxes"].as_subclass(Tensor))
        changed: Sample = {**sample, "image": tv_tensors.Image(pixels), "geometry": geometry}  # type: ignore[typeddict-item]
        changed["boxes"] = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=geometry.canvas)  # type: ignore[call-overload]
        if self.canvas is not None:
            changed["pad"] = pad
        return changed


class HFGrounding(EvaluationOnly):
    """Grounding DINO, MM-Grounding-DINO, OWL-ViT, OWLv2 or Florence-2.

    Args:
        model: local folder with config.json, the weights (model.safetensors) and the processor's files, or
            "hf://ORG/NAME"; nothing else is downloaded.
        top: boxes that are kept per expression, best first.
        max_tokens: of an expression, Florence-2's instruction included; a longer one is cut. The "query" models have a
            length of their own.
        max_new_tokens: of Florence-2's answer (its model card: 1024); a longer one is cut.

    Raises:
        UserError: if the folder is missing or incomplete, or holds a model of another kind.
    """

    name: ClassVar[str] = "HF grounding"
    tasks = frozenset({"rec", "grec"})
    wants_masks = False
    pad_id = 0
    published_files = (
        PublishedFile(
            "grounding-dino-base",
            "Grounding DINO, for example",
            "method.model",
            "https://huggingface.co/IDEA-Research/grounding-dino-base",
            "hf://IDEA-Research/grounding-dino-base",
        ),
        PublishedFile(
            "Florence-2-large",
            "Florence-2, for example",
            "method.model",
            "https://huggingface.co/florence-community/Florence-2-large",
            "hf://florence-community/Florence-2-large",
        ),
    )
    no_training = "hf_grounding is zero-shot: it is not trained here; use vgbench eval"

    def __init__(
        self, model: str | None = None, top: int = 100, max_tokens: int = 64, max_new_tokens: int = 1024
    ) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoProcessor, GenerationConfig

        if model is None:
            raise UserError("method.model=FOLDER is missing: a local folder with a grounding model of transformers")
        folder = local_path(model)
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: no config.json; method.model= must be a folder that save_pretrained() wrote")
        try:
            settings = json.loads(ordinary_file(folder / "config.json").read_text(encoding="utf-8"))
            kind = settings.get("model_type")
            self.family = FAMILIES.get(kind)
            if self.family is None:
                raise UserError(f"{folder}: model type {kind!r}; supported are {', '.join(FAMILIES)}")
            self.architecture = _architecture(folder, self.family)
            if self.family == "generate" and "auto_map" in settings:
                raise UserError(
                    f"{folder}: Florence-2 with code of its own, which is not run; use one in transformers' own format"
                )
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            self.processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
            self.model = self.architecture.from_config(config).float()  # Florence-2's files are of 16 bit
            if self.family == "generate" and (folder / "generation_config.json").is_file():
                self.model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{folder}: transformers cannot read it: {' '.join(str(error).split())[:300]}") from error
        self.title = folder.resolve().name
        self.top, self.max_new_tokens = top, max_new_tokens
        self.square = config.model_type == "owlv2"
        text = config.text_config
        self.max_tokens = text.max_position_embeddings if self.family == "query" else max_tokens
        self.vocabulary = config.image_token_id if self.family == "generate" else text.vocab_size

    @property
    def text_shape(self) -> tuple[int, int]:
        return self.max_tokens, self.vocabulary

    def eval_transform(self) -> Transform:
        images = self.processor.image_processor
        canvas = images.size.get("longest_edge")
        return _Transform(images, canvas, self.square)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """A "caption" is lower case and ends with a full stop, which separates phrases: those within are left out.

        The places of the image in Florence-2's text are not among the ids; :meth:`predict` puts them in front.
        """
        if self.family == "caption":
            texts = [f"{' '.join(text.lower().replace('.', ' ').split())}." for text in texts]
        elif self.family == "generate":
            instruction = self.processor.task_prompts_with_input[TASK]
            texts = [instruction.format(input=text.strip()) for text in texts]
        padding = "max_length" if self.family == "query" else "longest"
        encoded = self.processor.tokenizer(
            list(texts), padding=padding, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        return encoded["input_ids"], encoded["attention_mask"] == 0

    def predict(self, batch: Batch, outputs: Sequence[str] | None = None) -> dict[str, list[Prediction]]:
        """Boxes and scores as the processor's post-processing defines them, without its thresholds.

        Florence-2 gives no scores: the boxes of the k-th phrase of its answer get 1/k.
        """
        if self.family == "generate":
            return {"main": self._generate(batch)}
        attention = (~batch.text_pad).long()
        if self.family == "caption":
            image, pad = batch.image, batch.image_pad
            assert pad is not None
            # a batch is as large as its largest image, as the processor would have made it; the sizes are on the host
            height = max(round(frame.scale[1] * frame.size[0]) for frame in batch.geometry)
            width = max(round(frame.scale[0] * frame.size[1]) for frame in batch.geometry)
            output = self.model(
                pixel_values=image[..., :height, :width],
                pixel_mask=(~pad[:, :height, :width]).long(),
                input_ids=batch.text_ids,
                attention_mask=attention,
                token_type_ids=torch.zeros_like(batch.text_ids),
            )
        else:
            output = self.model(pixel_values=batch.image, input_ids=batch.text_ids, attention_mask=attention)
        scores = output.logits.float().sigmoid().amax(-1)  # [B, n]
        count = min(self.top, scores.shape[1])
        scores, order = scores.topk(count, dim=1)
        boxes = cxcywh_to_xyxy(output.pred_boxes.float().gather(1, order[..., None].expand(-1, -1, 4)))
        scores, boxes = scores.cpu(), boxes.cpu()
        predictions = []
        for frame, frame_boxes, frame_scores in zip(batch.geometry, boxes, scores, strict=True):
            height, width = frame.size
            if self.square:
                height = width = max(height, width)
            predictions.append(Prediction(frame_boxes * torch.tensor([width, height, width, height]), frame_scores))
        return {"main": predictions}

    def _generate(self, batch: Batch) -> list[Prediction]:
        places = (self.processor.num_image_tokens, 0)
        answers = self.model.generate(
            pixel_values=batch.image,
            input_ids=F.pad(batch.text_ids, places, value=self.processor.image_token_id),
            attention_mask=F.pad((~batch.text_pad).long(), places, value=1),
            num_beams=BEAMS,
            do_sample=False,
            max_new_tokens=self.max_new_tokens,
        )
        predictions = []
        decoded = self.processor.batch_decode(answers, skip_special_tokens=False)
        for answer, frame in zip(decoded, batch.geometry, strict=True):
            parsed = self.processor.post_process_generation(answer, task=TASK, image_size=frame.size[::-1])[TASK]
            boxes = torch.tensor(parsed["bboxes"], dtype=torch.float32).reshape(-1, 4)[: self.top]
            # neighbours with one label are boxes of one phrase
            phrase = accumulate((one != next_one for one, next_one in pairwise(parsed["labels"])), initial=1)
            predictions.append(Prediction(boxes, 1 / torch.tensor(list(phrase), dtype=torch.float32)[: len(boxes)]))
        return predictions

    def read_official(self, path: Path, ema: bool = True) -> dict[str, Tensor]:
        """The weights beside ``path``, read by transformers, which knows the names of older files. ``ema`` says nothing
        here: such a folder has one set of weights."""
        model, info = self.architecture.from_pretrained(path.parent, local_files_only=True, output_loading_info=True)
        if info["missing_keys"]:
            raise UserError(f"{path}: has no weights for {sorted(info['missing_keys'])[0]!r}; is it the whole model?")
        return model.state_dict()

    def load_official(self, state: Mapping[str, Tensor]) -> LoadReport:
        try:
            self.model.load_state_dict(dict(state))
        except RuntimeError as error:
            raise UserError(f"not the weights of {self.title}: {' '.join(str(error).split())[:200]}") from None
        return LoadReport(used=tuple(state))
